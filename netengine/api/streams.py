"""Taking an HTTP connection over for a byte stream, as Docker's attach and exec do, and connecting it with a process.

Only bytes here: which process, and whether the client may, the routes and the engine have settled before.
"""

from __future__ import annotations

import asyncio
import collections
import select
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from netengine.api import stdcopy
from netengine.errors import Invalid, NetengineError

MULTIPLEXED = "application/vnd.docker.multiplexed-stream"
RAW = "application/vnd.docker.raw-stream"

_SESSIONS = web.AppKey("hijacked_sessions", set[asyncio.Task[None]])

_HIGH, _LOW = 128 * 1024, 32 * 1024  # bytes of input held: above, the client is not read; below, it is again
_CHUNK = 32 * 1024


class Stream(Protocol):
    """What `pump` needs of a process; netengine.runtime's streams are such."""

    async def read(self) -> tuple[int, bytes] | None:
        """The next output: 1 for stdout or 2 for stderr, and the bytes; None at the end."""

    async def write(self, data: bytes) -> None:
        """Give input."""

    async def close_stdin(self) -> None:
        """End of input."""


class HijackedConnection(asyncio.Protocol):
    """A connection that no longer speaks HTTP. Both directions have back-pressure and end on their own."""

    def __init__(self, transport: asyncio.Transport, *, tty: bool, early: bytes = b"") -> None:
        self._transport = transport
        self._tty = tty
        self._input: collections.deque[bytes] = collections.deque()
        self._held = 0
        self._eof = False
        self._lost = False
        self._lost_because: BaseException | None = None
        self._arrived = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._gone = asyncio.Event()
        self._hangup: select.epoll | None = None
        if early:
            self.data_received(early)

    async def read(self) -> bytes:
        """The next bytes of the client; empty when it has ended its direction, or is gone."""
        while not self._input:
            if self._eof or self._lost:
                return b""
            self._arrived.clear()
            await self._arrived.wait()
        data = self._input.popleft()
        self._held -= len(data)
        if self._held <= _LOW and not self._lost and not self._eof:
            self._transport.resume_reading()
        return data

    async def write(self, data: bytes) -> None:
        """Send bytes as they are; returns when the client has room for more. ConnectionError when it is gone."""
        if self._lost or self._transport.is_closing():
            raise ConnectionResetError("the client is gone")
        self._transport.write(data)
        await self._writable.wait()
        if self._lost:
            raise ConnectionResetError("the client is gone")

    async def send(self, stream: int, data: bytes) -> None:
        """Send output of a process: raw for a terminal, else framed as of `stream` (1 stdout, 2 stderr)."""
        for start in range(0, len(data), _CHUNK):
            piece = data[start : start + _CHUNK]
            await self.write(piece if self._tty else stdcopy.frame(stream, piece))

    async def gone(self) -> None:
        """Return when the client has left altogether; its end of input alone does not count."""
        await self._gone.wait()

    # What the transport calls.

    def data_received(self, data: bytes) -> None:
        self._input.append(data)
        self._held += len(data)
        self._arrived.set()
        if self._held >= _HIGH:
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        self._eof = True
        self._arrived.set()
        self._watch_hangup()
        return True  # keep the other direction open

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, error: BaseException | None) -> None:
        self._lost, self._lost_because = True, error
        self._forget_hangup()
        for event in (self._arrived, self._writable, self._gone):
            event.set()

    def _watch_hangup(self) -> None:
        """After its end of input a client that leaves is not noticed before the next write. On a unix socket the kernel
        tells the two apart (EPOLLHUP: both directions are shut), but only to someone who does not ask for input as well.
        """
        sock = self._transport.get_extra_info("socket")
        if sock is None or sock.family != socket.AF_UNIX:
            return
        self._hangup = select.epoll()
        self._hangup.register(sock.fileno(), 0)
        asyncio.get_running_loop().add_reader(self._hangup.fileno(), self._hung_up)

    def _hung_up(self) -> None:
        self._forget_hangup()
        self._transport.abort()

    def _forget_hangup(self) -> None:
        if self._hangup is not None:
            asyncio.get_running_loop().remove_reader(self._hangup.fileno())
            self._hangup.close()
            self._hangup = None


def setup(app: web.Application) -> None:
    """Make the application end its hijacked sessions when it shuts down, instead of waiting for them."""
    app[_SESSIONS] = set()
    app.on_shutdown.append(_end_sessions)


async def _end_sessions(app: web.Application) -> None:
    sessions = app[_SESSIONS].copy()
    for session in sessions:
        session.cancel()
    await asyncio.gather(*sessions, return_exceptions=True)


class Answered(web.StreamResponse):
    """What aiohttp gets back from a handler whose answer was sent by hand, or whose client has left: nothing is written."""

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        return None


async def hijack(
    request: web.Request,
    *,
    tty: bool,
    session: Callable[[HijackedConnection], Awaitable[None]],
    headers: Mapping[str, str] | None = None,
    multiplexed_type: bool = True,
) -> web.StreamResponse:
    """Answer 101 (or 200 to a client that asked for no upgrade), run `session` on the bare connection, close it.

    Read the request's body before. An error that is raised before becomes an HTTP answer; from here on there is no HTTP to
    carry it, and a NetengineError of the session is written to the client's stdout, as Docker does when an exec fails.
    `multiplexed_type` False: the client's API is older than 1.42 and expects the raw type for frames too.
    """
    transport = request.transport
    http = request.protocol
    answer = Answered(status=101)
    answer.force_close()
    if not isinstance(transport, asyncio.Transport) or transport.is_closing():
        return answer
    connection = HijackedConnection(transport, tty=tty, early=_already_received(http))
    open_sessions = request.config_dict.get(_SESSIONS, set())
    transport.set_protocol(connection)
    transport.resume_reading()
    try:
        transport.write(_head(request, tty, headers or {}, multiplexed_type))
        running = asyncio.ensure_future(_run(session, connection))
        open_sessions.add(running)
        running.add_done_callback(open_sessions.discard)
        try:
            await running
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if current is None or current.cancelling():  # else only the session was, by the shutdown
                raise
    except ConnectionError:
        pass
    finally:
        connection._forget_hangup()
        # aiohttp has to hear of the end: it keeps a list of its connections.
        if connection._lost:
            http.connection_lost(connection._lost_because if isinstance(connection._lost_because, Exception) else None)
        else:
            transport.set_protocol(http)
            transport.close()
    return answer


async def _run(session: Callable[[HijackedConnection], Awaitable[None]], connection: HijackedConnection) -> None:
    try:
        await session(connection)
    except NetengineError as error:
        await connection.send(stdcopy.STDOUT, error.message.encode() + b"\r\n")


def _head(request: web.Request, tty: bool, headers: Mapping[str, str], multiplexed_type: bool) -> bytes:
    kind = MULTIPLEXED if multiplexed_type and not tty else RAW
    if "upgrade" in request.headers.get("Connection", "").lower() and request.headers.get("Upgrade"):
        lines = ["HTTP/1.1 101 UPGRADED", f"Content-Type: {kind}", "Connection: Upgrade", "Upgrade: tcp"]
    else:
        lines = ["HTTP/1.1 200 OK", f"Content-Type: {RAW}"]
    for name, value in headers.items():
        if any(character in name + value for character in "\r\n\0"):
            raise ValueError(f"header {name} has a line break")
        lines.append(f"{name}: {value}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")


def _already_received(http: object) -> bytes:
    """Bytes behind the request that aiohttp has read already, where it keeps them aside for an upgrade."""
    tail = getattr(http, "_message_tail", b"")
    if tail:
        http._message_tail = b""  # type: ignore[attr-defined]
    return bytes(tail) if isinstance(tail, (bytes, bytearray)) else b""


async def pump(
    connection: HijackedConnection,
    stream: Stream,
    *,
    stdin: bool = True,
    outputs: frozenset[int] = frozenset({1, 2}),
    detach_keys: bytes | None = None,
) -> bool:
    """Connect a client with a process both ways until the process's output ends or the client leaves.

    Returns True when the client typed `detach_keys` (see `parse_detach_keys`; only for terminals).
    """
    detached = asyncio.Event()

    async def inward() -> None:
        keys = _DetachKeys(detach_keys) if detach_keys else None
        while data := await connection.read():
            if keys is not None:
                data = keys.feed(data)
            if data and stdin:
                await stream.write(data)
            if keys is not None and keys.complete:
                detached.set()
                return
        if stdin:
            await stream.close_stdin()

    async def outward() -> None:
        while (chunk := await stream.read()) is not None:
            if chunk[0] in outputs:
                await connection.send(*chunk)

    feeding = asyncio.ensure_future(inward())
    endings = [asyncio.ensure_future(awaitable) for awaitable in (outward(), connection.gone(), detached.wait())]
    try:
        await asyncio.wait(endings, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (feeding, *endings):
            task.cancel()
        results = await asyncio.gather(feeding, *endings, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception) and not isinstance(result, ConnectionError):
            raise result
    return detached.is_set()


def parse_detach_keys(text: str) -> bytes:
    """`ctrl-p,ctrl-q` or `a,ctrl-[` as the bytes that the keys send. Invalid when it is no such list."""
    keys = bytearray()
    for key in text.split(","):
        name = key.lower()
        if len(key) == 1 and key.isascii() and key.isprintable():
            keys += key.encode()
        elif name.startswith("ctrl-") and len(key) == 6 and ("a" <= name[5] <= "z" or key[5] in "@[\\]^_"):
            keys.append(ord(key[5].upper()) & 0x1F)
        elif name == "del":
            keys.append(127)
        else:
            raise Invalid(
                f"invalid detach keys {text[:100]!r}: {key[:20]!r} is neither a character nor ctrl- and a letter"
            )
    return bytes(keys)


class _DetachKeys:
    """Looks for a sequence in input that comes in pieces; what may be its beginning is held back."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._pending = b""
        self.complete = False

    def feed(self, data: bytes) -> bytes:
        """The input to pass on."""
        data = self._pending + data
        at = data.find(self._keys)
        if at >= 0:
            self.complete = True
            return data[:at]
        held = next(n for n in range(min(len(self._keys) - 1, len(data)), -1, -1) if data.endswith(self._keys[:n]))
        self._pending = data[len(data) - held :] if held else b""
        return data[: len(data) - held]
