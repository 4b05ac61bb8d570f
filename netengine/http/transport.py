"""A connection's socket on the event loop: an asyncio transport for local clients, and the listener that makes them.

asyncio's own takes five rounds of the event loop from a client's connect() to its request, and two more to its end of file, and
most clients of a daemon ask one thing for each connection. This one reads as soon as it has accepted, since the request is
there as a rule, watches the socket only if something more may come, and closes it on the spot when all is sent. No HTTP here.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Callable
from typing import Any

log = logging.getLogger(__name__)

_MOST = 1 << 18
"""Bytes that are read in one go."""
_HIGH, _LOW = 1 << 16, 1 << 14
"""Unsent bytes at which the protocol is told to pause, and to go on."""
_PAUSE = 1.0
"""Seconds without accepting after the host had no descriptor or no memory for a client."""
_SHORT = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_LEFT = (BrokenPipeError, ConnectionResetError, ConnectionAbortedError)

_buffer = memoryview(bytearray(_MOST))
"""One for all: a fresh one for each read has its memory asked of the kernel, and given back."""


class Listener:
    """Accepts on a stream socket that listens already; it is closed with this."""

    def __init__(self, sock: socket.socket, protocol: Callable[[], asyncio.Protocol]) -> None:
        self._loop = asyncio.get_running_loop()
        self._sock = sock
        self._protocol = protocol
        self._again: asyncio.TimerHandle | None = None
        sock.setblocking(False)
        self._listen()

    def _listen(self) -> None:
        self._again = None
        self._loop.add_reader(self._sock, self._accept)

    def _accept(self) -> None:
        try:
            sock, _ = self._sock.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as error:
            if error.errno not in _SHORT:
                raise
            log.error("a client cannot be accepted, and will be in a moment: %s", error)
            self._loop.remove_reader(self._sock)
            self._again = self._loop.call_later(_PAUSE, self._listen)
            return
        sock.setblocking(False)
        Transport(self._loop, sock, self._protocol())

    def close(self) -> None:
        if self._sock.fileno() < 0:
            return
        if self._again is not None:
            self._again.cancel()
        self._loop.remove_reader(self._sock)
        self._sock.close()


class Transport(asyncio.Transport):
    """As asyncio's of stream sockets, for a protocol that is no BufferedProtocol."""

    __slots__ = (
        "_closing", "_ended", "_eof", "_loop", "_paused", "_protocol", "_reading", "_sock", "_stopped", "_unsent",
    )  # fmt: skip

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: socket.socket, protocol: asyncio.Protocol) -> None:
        """`sock` is connected and does not block; from here on it is the transport's."""
        super().__init__()
        self._loop = loop
        self._sock = sock
        self._protocol = protocol
        self._unsent = bytearray()
        self._reading = False  # the loop watches the socket
        self._paused = False
        self._ended = False  # nothing more will come
        self._stopped = False  # the protocol was told to pause writing
        self._eof = False  # one was written, or will be behind what is unsent
        self._closing = False
        protocol.connection_made(self)
        self._read()
        # If what came is answered by then, nobody has watched it, and nobody has to stop.
        loop.call_soon(self._watch)

    # -- what asyncio asks of a transport -----------------------------------------------------------------------------

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._sock if name == "socket" else default

    def is_closing(self) -> bool:
        return self._closing

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        assert isinstance(protocol, asyncio.Protocol)
        self._protocol = protocol

    def is_reading(self) -> bool:
        return not (self._closing or self._paused or self._ended)

    def pause_reading(self) -> None:
        self._paused = True
        self._unwatch()

    def resume_reading(self) -> None:
        self._paused = False
        self._watch()

    def get_write_buffer_size(self) -> int:
        return len(self._unsent)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return _LOW, _HIGH

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._eof:
            raise RuntimeError("nothing can be written behind the end")
        if not data or self._closing:
            return
        if not self._unsent:
            try:
                data = data[self._sock.send(data) :]
            except (BlockingIOError, InterruptedError):
                pass
            except OSError as error:
                self._end(error)
                return
            if not data:
                return
            self._loop.add_writer(self._sock, self._send)
        self._unsent += data
        if len(self._unsent) > _HIGH and not self._stopped:
            self._stopped = True
            self._protocol.pause_writing()

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        if self._eof or self._closing:
            return
        self._eof = True
        if not self._unsent:
            self._shut()

    def close(self) -> None:
        """What is unsent is sent yet."""
        if self._closing:
            return
        self._unwatch()
        self._closing = True
        if not self._unsent:
            self._lost(None)

    def abort(self) -> None:
        self._end(None)

    # -- what the loop calls ------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        if not (self._reading or self._paused or self._ended or self._closing):
            self._reading = True
            self._loop.add_reader(self._sock, self._read)

    def _unwatch(self) -> None:
        if self._reading:
            self._reading = False
            self._loop.remove_reader(self._sock)

    def _read(self) -> None:
        if self._paused or self._closing:
            return
        try:
            size = self._sock.recv_into(_buffer)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._end(error)
            return
        if size:
            self._protocol.data_received(bytes(_buffer[:size]))
            return
        self._ended = True
        self._unwatch()  # or the end would be read over and over
        if not self._protocol.eof_received():
            self.close()

    def _send(self) -> None:
        try:
            del self._unsent[: self._sock.send(self._unsent)]
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._end(error)
            return
        if self._stopped and len(self._unsent) <= _LOW:
            self._stopped = False
            self._protocol.resume_writing()
        if self._unsent or self._sock.fileno() < 0:  # resumed, the protocol may have done either
            return
        self._loop.remove_writer(self._sock)
        if self._closing:
            self._lost(None)
        elif self._eof:
            self._shut()

    # -- the end ------------------------------------------------------------------------------------------------------

    def _shut(self) -> None:
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            self._end(error)

    def _end(self, error: OSError | None) -> None:
        """At once."""
        if self._sock.fileno() < 0:
            return
        self._unwatch()
        self._closing = True
        if self._unsent:
            self._unsent.clear()
            self._loop.remove_writer(self._sock)
        self._lost(error)

    def _lost(self, error: OSError | None) -> None:
        """The client sees it now, the protocol in a moment: it may be in the middle of something."""
        self._sock.close()
        if error is not None and not isinstance(error, _LEFT):
            log.warning("a connection has ended: %s", error)
        self._loop.call_soon(self._protocol.connection_lost, error)
