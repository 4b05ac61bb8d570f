"""The daemon's end of the name server's control socket, and how its process is started. No DNS here.

The process is a session of its own and outlives the daemon: a daemon that starts again connects to the one that runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
import subprocess
from collections import deque
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from netengine import unprivileged
from netengine.dns import protocol
from netengine.dns.protocol import Answer, Counters, Entry, Network, NetworkChange, Ports, Settings
from netengine.errors import Invalid, Unavailable

__all__ = ["Counters", "Entry", "Explanation", "NameServer", "Network", "NetworkChange", "Ports", "Settings", "spawn"]

ANSWER_SECONDS = 2.0
EXPLAIN_SECONDS = 10.0  # it asks other servers, which have 4 seconds each way
START_SECONDS = 30.0  # under load at boot, an interpreter on a small machine takes more than 5
_CHUNK = 1 << 16
_decoder = msgspec.json.Decoder(Answer)


class Explanation(msgspec.Struct, frozen=True):
    """What a sandbox is answered: the response code's name, the records as text, and the reasons, a sentence each."""

    rcode: str
    records: tuple[str, ...]
    lines: tuple[str, ...]


class Statistics(msgspec.Struct, frozen=True):
    """Counters of each sandbox, and the process's resident memory in KiB."""

    sandboxes: dict[str, Counters]
    memory_kib: int


class NameServer:
    """A connection to a running name server. Make it with `connect` or `spawn`.

    Every method raises Unavailable when the connection is lost or an answer does not come in time (then the connection is
    closed: what was asked may or may not have been done, so sync after reconnecting), Invalid when the server refuses.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.closed = asyncio.Event()
        self.process: subprocess.Popen[bytes] | None = None  # if it is our child: `process.poll()` reaps it
        self._sock = sock
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._outgoing: deque[tuple[memoryview, list[int]]] = deque()
        """Frames that have not been sent, or not to their end, and descriptors that go with their first bytes."""
        self._full = False
        """The socket has no room: `_send` goes on when it has."""
        self._received = bytearray()
        asyncio.get_running_loop().add_reader(sock, self._receive)

    @classmethod
    async def connect(cls, path: Path) -> NameServer:
        """Connect to the name server at `path`. Unavailable if none answers there."""
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(sock, str(path))
        except OSError as error:
            sock.close()
            raise Unavailable(f"no name server answers at {path}: {error.strerror}; start one") from None
        return cls(sock)

    async def hello(self) -> tuple[int, dict[str, Ports]]:
        """(process id, ports of each sandbox that has sockets there)."""
        answer = await self._ask(protocol.Hello(next(self._numbers)))
        if answer.version != protocol.VERSION:
            raise Unavailable(f"the name server speaks version {answer.version}, not {protocol.VERSION}; restart it")
        return answer.pid, answer.sandboxes

    def add(
        self, sandbox: str, udp: socket.socket, tcp: socket.socket, own: Sequence[socket.socket] = ()
    ) -> Coroutine[Any, Any, Answer]:
        """Hand over a sandbox's sockets (bound UDP, listening TCP, unconnected UDP to ask its own servers from). They are on
        their way when this returns, and have arrived when the answer is there.

        They are duplicated: the caller may close its own when this returns.
        """
        descriptors = [os.dup(one.fileno()) for one in (udp, tcp, *own)]
        return self._ask(protocol.Add(next(self._numbers), sandbox), descriptors)

    async def remove(self, sandbox: str) -> None:
        """Close a sandbox's sockets there. Nothing happens if it has none."""
        try:
            await self._ask(protocol.Remove(next(self._numbers), sandbox))
        except Invalid:
            pass

    async def sync(
        self,
        networks: Mapping[str, Network],
        sandboxes: Mapping[str, Settings],
        host_servers: Sequence[str],
        host_search: Sequence[str] = (),
    ) -> tuple[str, ...]:
        """Replace the whole model. Returns the sandboxes whose sockets were closed, because it does not name them."""
        number = next(self._numbers)
        request = protocol.Sync(number, dict(networks), dict(sandboxes), tuple(host_servers), tuple(host_search))
        return (await self._ask(request)).removed

    def update(
        self,
        networks: Mapping[str, NetworkChange | None] | None = None,
        sandboxes: Mapping[str, Settings | None] | None = None,
        host_servers: Sequence[str] | None = None,
    ) -> Coroutine[Any, Any, Answer]:
        """Change the model at once; None as a value removes. It is on its way when this returns; when the answer is there, the
        change answers questions."""
        servers = None if host_servers is None else tuple(host_servers)
        return self._ask(protocol.Update(next(self._numbers), dict(networks or {}), dict(sandboxes or {}), servers))

    async def stats(self) -> Statistics:
        """Counters."""
        answer = await self._ask(protocol.Stats(next(self._numbers)))
        return Statistics(answer.stats, answer.memory_kib)

    async def explain(self, sandbox: str, name: str, qtype: str = "A") -> Explanation:
        """What a sandbox would be answered, and why. Asks other servers if that is what the answer takes."""
        answer = await self._ask(protocol.Explain(next(self._numbers), sandbox, name, qtype), seconds=EXPLAIN_SECONDS)
        return Explanation(answer.rcode, answer.records, answer.lines)

    async def stop(self) -> None:
        """End the process."""
        await self._ask(protocol.Stop(next(self._numbers)))

    async def close(self) -> None:
        """Let go of the connection; the name server goes on."""
        self._end("the connection to the name server was closed")

    def _ask(
        self, request: protocol.Request, descriptors: list[int] | None = None, seconds: float = ANSWER_SECONDS
    ) -> Coroutine[Any, Any, Answer]:
        """Send a request, at once if the socket has room, and else in its turn; the answer is to be awaited."""
        if self.closed.is_set():
            _close_all(descriptors or [])
            return _away()
        future = self._waiting[request.seq] = asyncio.get_running_loop().create_future()
        self._outgoing.append((memoryview(protocol.frame(request)), descriptors or []))
        if len(self._outgoing) == 1:
            self._send()
        return self._answer(request, future, seconds)

    async def _answer(self, request: protocol.Request, future: asyncio.Future[Answer], seconds: float) -> Answer:
        try:
            if not future.done() and not self.closed.is_set():
                self._receive()  # it may have come meanwhile; to wait for what is there would let others go first
            if future.done():
                answer = future.result()
            else:
                async with asyncio.timeout(seconds):
                    answer = await future
        except TimeoutError:
            self._end("the name server did not answer in time")
            raise Unavailable(f"the name server did not answer {type(request).__name__} in {seconds:.0f} s") from None
        finally:
            self._waiting.pop(request.seq, None)
        if not answer.ok:
            raise Invalid(f"the name server refused: {answer.error}")
        return answer

    def _send(self) -> None:
        """What is to be sent, as far as the socket has room for it. The rest follows when it has."""
        loop = asyncio.get_running_loop()
        while self._outgoing:
            data, descriptors = self._outgoing[0]
            try:
                sent = socket.send_fds(self._sock, [data], descriptors) if descriptors else self._sock.send(data)
            except (BlockingIOError, InterruptedError):
                loop.add_writer(self._sock, self._send)
                self._full = True
                return
            except OSError as error:
                self._end(f"the name server is gone: {error.strerror}")
                return
            _close_all(descriptors)
            if sent == len(data):
                self._outgoing.popleft()
            else:
                self._outgoing[0] = (data[sent:], [])
        if self._full:
            self._full = False
            loop.remove_writer(self._sock)

    def _receive(self) -> None:
        received = self._received
        try:
            data = self._sock.recv(_CHUNK)
            if not data:
                self._end("the name server ended")
                return
            received += data
            while len(received) >= protocol.LENGTH.size:
                (size,) = protocol.LENGTH.unpack_from(received)
                if len(received) < protocol.LENGTH.size + size:
                    break
                answer = _decoder.decode(bytes(received[protocol.LENGTH.size : protocol.LENGTH.size + size]))
                del received[: protocol.LENGTH.size + size]
                future = self._waiting.pop(answer.seq, None)
                if future is not None and not future.done():
                    future.set_result(answer)
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as error:
            self._end(f"the name server is gone: {error.strerror}")
        except msgspec.MsgspecError as error:
            self._end(f"the name server's answer was not understood: {error}")

    def _end(self, why: str) -> None:
        if self.closed.is_set():
            return
        self.closed.set()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(Unavailable(why))
        while self._outgoing:
            _close_all(self._outgoing.popleft()[1])
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._sock)
        loop.remove_writer(self._sock)
        self._sock.close()


async def _away() -> Answer:
    raise Unavailable("the name server is away; connect again")


def _close_all(descriptors: list[int]) -> None:
    for fd in descriptors:
        with contextlib.suppress(OSError):
            os.close(fd)


async def spawn(
    path: Path, log_path: Path, uid: int | None = None, gid: int | None = None, server_port: int = 53
) -> NameServer:
    """Start a name server that listens at `path` and becomes `uid`, and connect to it.

    It is a session of its own, holds no descriptor of ours, and writes what it has to say to `log_path`. Unavailable if it
    does not come up within START_SECONDS, or ends before that.
    """
    process = _start(path, log_path, uid, gid, server_port)
    deadline = asyncio.get_running_loop().time() + START_SECONDS
    while True:
        try:
            server = await NameServer.connect(path)
        except Unavailable:
            status = process.poll()
            if status is not None:
                raise Unavailable(f"the name server ended at once, with status {status}; {log_path} says why") from None
            if asyncio.get_running_loop().time() > deadline:
                process.kill()
                raise Unavailable(
                    f"the name server did not answer within {START_SECONDS:g} s; {log_path} may say why"
                ) from None
            await asyncio.sleep(0.005)
        else:
            server.process = process
            return server


def _start(path: Path, log_path: Path, uid: int | None, gid: int | None, server_port: int) -> subprocess.Popen[bytes]:
    arguments = ["--control", str(path), "--server-port", str(server_port)]
    arguments += [] if uid is None else ["--uid", str(uid)]
    arguments += [] if gid is None else ["--gid", str(gid)]
    return unprivileged.start("netengine.dns", arguments, log_path, what="the name server", refused=Unavailable)
