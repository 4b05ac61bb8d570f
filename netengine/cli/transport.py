"""HTTP/1.1 over a unix socket or what stands in for one (remote.py), as little of it as the Docker Engine API needs: one
request per connection, answers framed by Content-Length, by chunks or by the end of the connection, and connections that are
taken over ("hijacked") by a byte stream.

http.client would do most of it at 10 ms of import time, and hides the bytes it has read ahead, which a hijacked stream
needs. Knows no paths, no JSON and no Docker errors: see engine.py for those. Every failure to talk is an `Unreachable`.
"""

from __future__ import annotations

import os
import socket

from netengine.errors import Unavailable

TYPE_CHECKING = False  # typing.TYPE_CHECKING without importing typing: type checkers know the name
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Protocol

    class Channel(Protocol):
        """What is used of a socket."""

        def recv(self, size: int, /) -> bytes: ...
        def sendall(self, data: bytes, /) -> None: ...
        def shutdown(self, how: int, /) -> None: ...
        def close(self) -> None: ...

    class Way(Protocol):
        """A way to a daemon that is not a unix socket."""

        def connect(self) -> Channel: ...


BLOCK = 64 * 1024
MAX_HEAD = 64 * 1024
"""Bytes of status line and headers accepted from a daemon."""

_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")


def quote(text: str) -> str:
    """Percent-encode everything but RFC 3986's unreserved characters, so that a name cannot leave its path segment."""
    data = text.encode("utf-8", "surrogateescape")
    return "".join(chr(byte) if byte in _UNRESERVED else f"%{byte:02X}" for byte in data)


class Unreachable(Unavailable):
    """There is no talking to the daemon: none there, not let in, or it went away. Another request would fare no better."""


class Response:
    """An answer whose head has been read and whose body has not. Use once, then `close()` (or a `with` block)."""

    __slots__ = ("_buffer", "_socket", "headers", "status")

    def __init__(self, sock: Channel) -> None:
        self._socket = sock
        self._buffer = bytearray()
        self.status, self.headers = self._read_head()

    def __enter__(self) -> Response:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def content_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    def body(self) -> bytes:
        return b"".join(self.blocks())

    def blocks(self) -> Iterator[bytes]:
        """The body, piece by piece as it arrives."""
        if self.status in (204, 304) or self.status < 200:
            return
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            yield from self._chunks()
        elif "content-length" in self.headers:
            yield from self._exactly(_number(self.headers["content-length"], 10))
        else:
            while block := self._take():
                yield block

    def lines(self) -> Iterator[bytes]:
        """The body line by line, each as soon as it is complete; the last one even without its newline."""
        rest = b""
        for block in self.blocks():
            *complete, rest = (rest + block).split(b"\n")
            yield from complete
        if rest:
            yield rest

    def take_over(self) -> tuple[Channel, bytes]:
        """Leave HTTP: the raw socket, and what has already been read from it past the head."""
        left, self._buffer = bytes(self._buffer), bytearray()
        return self._socket, left

    def _read_head(self) -> tuple[int, dict[str, str]]:
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > MAX_HEAD:
                raise Unreachable("this is no Engine API: the answer's head is longer than 64 KiB")
            self._fill()
        head = self._buffer[:end].decode("latin-1")
        del self._buffer[: end + 4]
        status, *fields = head.split("\r\n")
        words = status.split(" ", 2)
        if len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].isdigit():
            raise Unreachable(f"this is no Engine API: the answer begins with {status[:40]!r}")
        headers = {}
        for field in fields:
            name, _, value = field.partition(":")
            headers[name.strip().lower()] = value.strip()
        return int(words[1]), headers

    def _fill(self) -> None:
        """Read more into the buffer; the end of the connection is an error here."""
        block = _receive(self._socket)
        if not block:
            raise Unreachable("the daemon closed the connection in the middle of its answer; is it still running?")
        self._buffer += block

    def _take(self) -> bytes:
        """What is buffered, else the next block; empty at the end of the connection."""
        if self._buffer:
            block = bytes(self._buffer)
            self._buffer.clear()
            return block
        return _receive(self._socket)

    def _exactly(self, length: int) -> Iterator[bytes]:
        while length > 0:
            if not self._buffer:
                self._fill()
            block = bytes(self._buffer[:length])
            del self._buffer[:length]
            length -= len(block)
            yield block

    def _line(self) -> str:
        while (end := self._buffer.find(b"\r\n")) < 0:
            if len(self._buffer) > MAX_HEAD:
                raise Unreachable("this is no Engine API: a chunk's head is longer than 64 KiB")
            self._fill()
        line = self._buffer[:end].decode("latin-1")
        del self._buffer[: end + 2]
        return line

    def _chunks(self) -> Iterator[bytes]:
        while size := _number(self._line().partition(";")[0].strip(), 16):
            yield from self._exactly(size)
            self._line()
        while self._line():  # trailers, up to the empty line
            pass


def request(
    way: str | Way,
    method: str,
    target: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes | Iterator[bytes] | None = None,
) -> Response:
    """Send one request and read the head of the answer. `way` is the path of a unix socket, or leads elsewhere.

    A body that is not `bytes` is sent in chunks. The daemon may answer before the body is through (a refused upload):
    the answer wins over the broken pipe.
    """
    fields = {"Host": "netengine", "User-Agent": "netengine", "Connection": "close", **(headers or {})}
    if isinstance(body, bytes) or (body is None and method == "POST"):
        fields["Content-Length"] = str(len(body or b""))
    elif body is not None:
        fields["Transfer-Encoding"] = "chunked"
    head = "".join((f"{method} {target} HTTP/1.1\r\n", *(f"{name}: {value}\r\n" for name, value in fields.items())))
    sock: Channel = _connect(way) if isinstance(way, str) else way.connect()
    try:
        try:
            sock.sendall(f"{head}\r\n".encode("ascii") + (body if isinstance(body, bytes) else b""))
            if body is not None and not isinstance(body, bytes):
                for block in body:
                    if block:
                        sock.sendall(b"%x\r\n%b\r\n" % (len(block), block))
                sock.sendall(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            pass
        return Response(sock)
    except BaseException:
        sock.close()
        raise


def _connect(path: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.connect(path)
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
        sock.close()
        raise Unreachable(
            f"Cannot connect to the netengine daemon at unix://{path}. Is it running? Start it with: netengined"
        ) from None
    except PermissionError:
        sock.close()
        raise Unreachable(f"permission denied on the daemon's socket unix://{path}: {_way_in(path)}") from None
    except OSError as error:
        sock.close()
        raise Unreachable(f"unix://{path} is no usable socket: {error.strerror or error}") from None
    return sock


def _way_in(path: str) -> str:
    """What lets this user open the socket: its group, when it has one of its own, else sudo."""
    import grp

    try:
        group = grp.getgrgid(os.stat(path).st_gid).gr_name
    except (OSError, KeyError):
        return "use sudo"
    if group == "root":
        return "use sudo"
    return f"use sudo, or join its group with 'sudo usermod -aG {group} $USER' and log in again"


def _receive(sock: Channel) -> bytes:
    try:
        return sock.recv(BLOCK)
    except ConnectionResetError:
        return b""


def _number(text: str, base: int) -> int:
    """A length from the wire: digits of that base and nothing else (int() alone would take signs and underscores)."""
    if not text or not all(char in "0123456789abcdefABCDEF" for char in text):
        raise Unreachable(f"this is no Engine API: the answer has the length {text[:40]!r}")
    try:
        return int(text, base)
    except ValueError:
        raise Unreachable(f"this is no Engine API: the answer has the length {text[:40]!r}") from None
