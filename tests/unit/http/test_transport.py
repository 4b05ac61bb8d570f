"""The transport of local clients, with a protocol that writes down what it is told and a bare socket at the other end."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from netengine.http import transport
from netengine.http.transport import Listener, Transport

MUCH = b"x" * 4_000_000


class Noting(asyncio.Protocol):
    """`keeps`: whether it goes on writing when the other side has ended."""

    def __init__(self, keeps: bool = False) -> None:
        self.seen: list[str] = []
        self.keeps = keeps
        self.lost = asyncio.Event()
        self.error: BaseException | None = None
        self.reply = b""
        self.transport: Transport | None = None

    def connection_made(self, made: asyncio.BaseTransport) -> None:
        assert isinstance(made, Transport)
        self.transport = made

    def data_received(self, data: bytes) -> None:
        self.seen.append(data.decode())
        if self.reply and self.transport is not None:
            self.transport.write(self.reply)
            self.transport.close()
            self.seen.append("closed")

    def eof_received(self) -> bool:
        self.seen.append("end")
        return self.keeps

    def pause_writing(self) -> None:
        self.seen.append("pause")

    def resume_writing(self) -> None:
        self.seen.append("resume")

    def connection_lost(self, error: BaseException | None) -> None:
        self.seen.append("lost")
        self.error = error
        self.lost.set()


class Pair:
    """A transport and the client at its other end."""

    def __init__(self, first: bytes = b"", *, keeps: bool = False, reply: bytes = b"") -> None:
        here, self.client = socket.socketpair()
        here.setblocking(False)
        self.client.setblocking(False)
        if first:
            self.client.send(first)
        self.protocol = Noting(keeps)
        self.protocol.reply = reply
        self.transport = Transport(asyncio.get_running_loop(), here, self.protocol)
        self.seen = self.protocol.seen

    async def read(self, size: int) -> bytes:
        return await asyncio.get_running_loop().sock_recv(self.client, size)

    async def to_the_end(self) -> bytes:
        out = b""
        while piece := await self.read(1 << 16):
            out += piece
        return out


def play(test: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(60):
            await test()

    asyncio.run(main())


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0)


def test_what_is_there_already_is_read_at_once_and_the_client_sees_the_end_with_the_answer() -> None:
    async def test() -> None:
        pair = Pair(b"ask", reply=b"answer")
        assert pair.seen == ["ask", "closed"], "the loop has not turned yet"
        assert pair.client.recv(100) == b"answer" and pair.client.recv(100) == b""
        await pair.protocol.lost.wait()
        assert pair.seen[-1] == "lost" and pair.protocol.error is None

    play(test)


def test_what_comes_later_is_read_when_it_comes_but_not_while_reading_is_paused() -> None:
    async def test() -> None:
        pair = Pair()
        pair.client.send(b"one")
        await until(lambda: pair.seen == ["one"])
        pair.transport.pause_reading()
        assert not pair.transport.is_reading()
        pair.client.send(b"two")
        for _ in range(5):
            await asyncio.sleep(0)
        assert pair.seen == ["one"]
        pair.transport.resume_reading()
        await until(lambda: pair.seen == ["one", "two"])
        pair.transport.abort()

    play(test)


def test_a_slow_reader_gets_all_of_it_and_then_the_end() -> None:
    async def test() -> None:
        pair = Pair(keeps=True)
        pair.transport.write(MUCH)
        pair.transport.write_eof()
        assert pair.seen == ["pause"] and pair.transport.get_write_buffer_size() > 0
        assert await pair.to_the_end() == MUCH
        assert pair.seen == ["pause", "resume"]
        pair.client.shutdown(socket.SHUT_WR)
        await until(lambda: "end" in pair.seen)
        assert not pair.transport.is_closing()
        with pytest.raises(RuntimeError):
            pair.transport.write(b"behind the end")
        pair.transport.close()
        await pair.protocol.lost.wait()
        assert pair.seen == ["pause", "resume", "end", "lost"], "the end is said once"

    play(test)


def test_closing_sends_what_is_unsent_and_aborting_does_not() -> None:
    async def test() -> None:
        closed, aborted = Pair(), Pair()
        for pair in closed, aborted:
            pair.transport.write(MUCH)
        closed.transport.close()
        closed.transport.write(b"too late")
        assert not closed.protocol.lost.is_set()
        aborted.transport.abort()
        assert await closed.to_the_end() == MUCH
        assert len(await aborted.to_the_end()) < len(MUCH)
        await closed.protocol.lost.wait()
        await aborted.protocol.lost.wait()

    play(test)


def test_a_client_that_is_gone_is_noticed_by_writing_and_by_reading() -> None:
    async def test() -> None:
        writing, reading = Pair(), Pair()
        for pair in writing, reading:
            pair.client.close()
        writing.transport.write(b"x")
        assert writing.transport.is_closing()
        await writing.protocol.lost.wait()
        assert isinstance(writing.protocol.error, BrokenPipeError)
        await reading.protocol.lost.wait()
        assert reading.seen == ["end", "lost"] and reading.protocol.error is None

    play(test)


def test_a_host_without_descriptors_makes_clients_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(transport, "_PAUSE", 0.01)

    class Short(socket.socket):
        refusals = 2

        def accept(self) -> tuple[socket.socket, object]:
            if Short.refusals:
                Short.refusals -= 1
                raise OSError(errno.EMFILE, "Too many open files")
            return super().accept()

    async def test() -> None:
        protocol = Noting()
        listening = Short(socket.AF_UNIX)
        listening.bind(str(tmp_path / "s"))
        listening.listen()
        listener = Listener(listening, lambda: protocol)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(tmp_path / "s"))
            client.send(b"here")
            await until(lambda: protocol.seen == ["here"])
        await protocol.lost.wait()
        listener.close()
        listener.close()

    play(test)
    assert caplog.text.count("cannot be accepted") == 2
