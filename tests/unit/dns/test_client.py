"""The daemon's end of the control socket, with the test at the other one: what is sent when, and what an end leaves behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct

import msgspec
import pytest

from netengine.dns import protocol
from netengine.dns.client import NameServer, NetworkChange
from netengine.dns.protocol import Answer
from netengine.errors import Unavailable

FRAMES = 40


def pair() -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.settimeout(60)
    return ours, theirs


class Reader:
    """Reads frames, and descriptors with them."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.descriptors: list[tuple[int, int]] = []
        """(sequence number of the frame that they came with, device and inode)."""

    def frame(self) -> dict[str, object]:
        head, descriptors, *_ = socket.recv_fds(self.sock, protocol.LENGTH.size, protocol.MOST_DESCRIPTORS)
        (size,) = protocol.LENGTH.unpack(head)
        body = b""
        while len(body) < size:
            body += self.sock.recv(size - len(body))
        frame: dict[str, object] = msgspec.json.decode(body)
        for descriptor in descriptors:
            self.descriptors.append((int(str(frame["seq"])), os.fstat(descriptor).st_ino))
            os.close(descriptor)
        return frame

    def answer(self, frame: dict[str, object]) -> None:
        self.sock.sendall(protocol.frame(Answer(int(str(frame["seq"])), ok=True)))


def test_what_is_asked_is_on_its_way_before_anybody_waits_for_the_answer() -> None:
    async def ask() -> None:
        ours, theirs = pair()
        with theirs:
            server = NameServer(ours)
            asked = server.update({"n": NetworkChange(name="app")})
            reader = Reader(theirs)
            frame = reader.frame()  # no other task has run
            assert frame["op"] == "update"
            reader.answer(frame)
            assert (await asked).ok
            await server.close()

    asyncio.run(ask())


def test_frames_that_the_socket_has_no_room_for_follow_in_order_with_their_descriptors() -> None:
    async def ask() -> None:
        ours, theirs = pair()
        with theirs, socket.socket(type=socket.SOCK_DGRAM) as udp, socket.socket() as tcp:
            server = NameServer(ours)
            asked = []
            for number in range(FRAMES):
                asked.append(server.update({"n": NetworkChange(name=f"{number}" * 20_000)}))
                asked.append(server.add(f"s{number}", udp, tcp))
            reader = Reader(theirs)
            answers = [asyncio.ensure_future(a) for a in asked]

            def serve() -> list[object]:
                seen = []
                for _ in asked:
                    frame = reader.frame()
                    seen.append(frame["seq"])
                    reader.answer(frame)
                return seen

            assert await asyncio.to_thread(serve) == list(range(1, 2 * FRAMES + 1))
            assert all(answer.ok for answer in await asyncio.gather(*answers))
            inodes = [os.fstat(s.fileno()).st_ino for s in (udp, tcp)]
            assert reader.descriptors == [(number, i) for number in range(2, 2 * FRAMES + 1, 2) for i in inodes]
            await server.close()

    asyncio.run(ask())


def _open_files() -> set[str]:
    out = set()
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # that of the listing itself
            out.add(os.readlink(f"/proc/self/fd/{descriptor}"))
    return out


@pytest.mark.parametrize("last", [b"", struct.pack("!I", 3) + b"{x}"], ids=["an end", "nonsense"])
def test_who_waits_when_the_name_server_ends_is_told(last: bytes) -> None:
    async def ask() -> None:
        ours, theirs = pair()
        with socket.socket() as tcp:
            handed = os.readlink(f"/proc/self/fd/{tcp.fileno()}")
            server = NameServer(ours)
            asked = [server.add("s", tcp, tcp) for _ in range(3)]
            asked += [server.update({"n": NetworkChange(name="x" * 1_000_000)}), server.add("s", tcp, tcp)]
            theirs.sendall(last) if last else None
            theirs.close()
            outcomes = await asyncio.gather(*asked, return_exceptions=True)
            assert [type(o) for o in outcomes] == [Unavailable] * 5
            with pytest.raises(Unavailable):
                await server.update()
            with pytest.raises(Unavailable):
                await server.add("s", tcp, tcp)
        assert server.closed.is_set()
        assert handed not in _open_files(), "what was to be handed over is closed"

    asyncio.run(ask())
