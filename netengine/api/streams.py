"""Taking an HTTP connection over for a byte stream, as Docker's attach and exec do, and connecting it with a process.

Only bytes here: which process, and whether the client may, the routes and the engine have settled before.
"""

from __future__ import annotations

import asyncio
import collections
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from netengine.api import stdcopy
from netengine.errors import Invalid, NetengineError
from netengine.http import Request, Response
from netengine.http.hangup import HangUp

MULTIPLEXED = "application/vnd.docker.multiplexed-stream"
RAW = "application/vnd.docker.raw-stream"

_HIGH, _LOW = 128 * 1024, 32 * 1024  # bytes of input held: above, the client is not read; below, it is again
_CHUNK = 32 * 1024
_BODY_LIMIT = 64 * 1024  # of a request that needs none


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
        self._arrived = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._gone = asyncio.Event()
        self._hangup: HangUp | None = None
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
        self._hangup = HangUp(self._transport.get_extra_info("socket"), self._transport.abort)
        return True  # keep the other direction open

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, error: BaseException | None) -> None:
        self._lost = True
        self._forget_hangup()
        for event in (self._arrived, self._writable, self._gone):
            event.set()

    def close(self) -> None:
        """End it; what was written is sent yet."""
        self._forget_hangup()
        self._transport.close()

    def _forget_hangup(self) -> None:
        if self._hangup is not None:
            self._hangup.close()
            self._hangup = None


async def hijack(
    request: Request,
    *,
    tty: bool,
    session: Callable[[HijackedConnection], Awaitable[None]],
    headers: Mapping[str, str] | None = None,
    multiplexed_type: bool = True,
) -> Response:
    """Answer 101 (or 200 to a client that asked for no upgrade), run `session` on the bare connection, close it.

    An error that is raised before becomes an HTTP answer; from here on there is no HTTP to carry it, and a NetengineError of
    the session is written to the client's stdout, as Docker does when an exec fails. What is returned is for the audit trail.
    `multiplexed_type` False: the client's API is older than 1.42 and expects the raw type for frames too.
    """
    head = _head(request, tty, headers or {}, multiplexed_type)
    await request.body.whole(_BODY_LIMIT)
    transport, early = request.take_over()
    connection = HijackedConnection(transport, tty=tty, early=early)
    transport.set_protocol(connection)
    try:
        transport.write(head)
        await _run(session, connection)
    except ConnectionError:
        pass  # the client is gone
    except asyncio.CancelledError:
        pass  # the daemon stops, and with it the session; that is its end, and nothing comes after it
    finally:
        connection.close()
    return Response(101)


async def _run(session: Callable[[HijackedConnection], Awaitable[None]], connection: HijackedConnection) -> None:
    try:
        await session(connection)
    except NetengineError as error:
        await connection.send(stdcopy.STDOUT, error.message.encode() + b"\r\n")


def _head(request: Request, tty: bool, headers: Mapping[str, str], multiplexed_type: bool) -> bytes:
    kind = MULTIPLEXED if multiplexed_type and not tty else RAW
    if request.upgrades:
        lines = ["HTTP/1.1 101 UPGRADED", f"Content-Type: {kind}", "Connection: Upgrade", "Upgrade: tcp"]
    else:
        lines = ["HTTP/1.1 200 OK", f"Content-Type: {RAW}"]
    for name, value in headers.items():
        if any(character in name + value for character in "\r\n\0"):
            raise ValueError(f"header {name} has a line break")
        lines.append(f"{name}: {value}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")


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
