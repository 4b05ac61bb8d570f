"""A hijacked connection between this terminal and a process in a container: both directions, raw mode, size, signals.

Docker's frames (stream number, three zero bytes, big-endian length, payload) carry stdout and stderr apart; with a terminal
there is one raw stream. Input runs on its own thread, so that neither side can starve the other; the end of input is passed
on by closing half of the connection.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading

from netengine.cli.transport import BLOCK, Unreachable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import FrameType

    from netengine.cli.engine import Engine
    from netengine.cli.transport import Channel

STDIN, STDOUT, STDERR = 0, 1, 2
_HEADER = 8


def frames(blocks: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Take Docker's frames apart: (stream, payload) as it arrives, a long frame in pieces.

    A cut header or payload ends the stream. Stream 3 is the daemon's own word on why it breaks off, for the user to see.
    """
    buffer, stream, left = b"", STDOUT, 0
    for block in blocks:
        buffer += block
        while buffer:
            if left:
                piece, buffer = buffer[:left], buffer[left:]
                left -= len(piece)
                yield stream, piece
                continue
            if len(buffer) < _HEADER:
                break
            stream, left = buffer[0], int.from_bytes(buffer[4:_HEADER], "big")
            if stream > 3 or buffer[1:4] != b"\0\0\0":
                raise Unreachable("this is no Docker stream: a frame's header is wrong")
            buffer = buffer[_HEADER:]


def copy_out(blocks: Iterable[bytes], framed: bool) -> None:
    """Write a process's output to our stdout and stderr, as soon as it comes."""
    if not framed:
        for block in blocks:
            _write(STDOUT, block)
        return
    for stream, piece in frames(blocks):
        _write(STDERR if stream >= STDERR else STDOUT, piece)


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


class Attachment:
    """One hijacked connection. Use as a context: leaving it gives the terminal back, whatever happened."""

    def __init__(self, sock: Channel, left: bytes, framed: bool, *, stdin: bool, tty: bool) -> None:
        self._socket, self._left, self._framed = sock, left, framed
        self._stdin, self._raw = stdin, tty and stdin and os.isatty(STDIN)
        self._saved: list[object] | None = None

    def __enter__(self) -> Attachment:
        if self._raw:
            import termios
            import tty

            self._saved = list(termios.tcgetattr(STDIN))
            tty.setraw(STDIN)
        return self

    def __exit__(self, *_: object) -> None:
        if self._saved is not None:
            import termios

            termios.tcsetattr(STDIN, termios.TCSADRAIN, self._saved)  # type: ignore[arg-type]
            self._saved = None
        self._socket.close()

    def pump(self) -> None:
        """Copy both ways until the process's output ends."""
        if self._stdin:
            # A daemon thread: it may sit in read() on a terminal when the process is long gone.
            threading.Thread(target=self._feed, name="stdin", daemon=True).start()
        copy_out(self._blocks(), self._framed)

    def _feed(self) -> None:
        try:
            while block := os.read(STDIN, BLOCK):
                self._socket.sendall(block)
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the process ended first, or stdin is closed: the other direction tells how it went

    def _blocks(self) -> Iterator[bytes]:
        if self._left:
            yield self._left
        while True:
            try:
                block = self._socket.recv(BLOCK)
            except ConnectionResetError:
                return
            if not block:
                return
            yield block


def follow_size(engine: Engine, path: str) -> None:
    """Give the terminal behind `path` (.../resize) our size, now and whenever it changes."""
    if not os.isatty(STDOUT):
        return

    def resize(*_: object) -> None:
        size = os.get_terminal_size(STDOUT)
        try:
            engine.post(path, {"h": size.lines, "w": size.columns})
        except Exception:
            pass  # cosmetic, and this may run inside a signal handler: never let it end the session

    signal.signal(signal.SIGWINCH, resize)
    resize()


_PROXIED = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGCONT", "SIGALRM")
_PATIENCE = 3


def proxy_signals(send: Callable[[str], None]) -> None:
    """Hand our signals to the container's process. After the third Ctrl-C or SIGTERM, give up waiting for it."""
    asked = 0

    def forward(number: int, _: FrameType | None) -> None:
        nonlocal asked
        if number in (signal.SIGINT, signal.SIGTERM):
            asked += 1
            if asked >= _PATIENCE:
                print(f"\nnetengine: got {_PATIENCE} SIGTERM/SIGINTs, forcefully exiting", file=sys.stderr)
                os._exit(1)
        try:
            send(signal.Signals(number).name.removeprefix("SIG"))
        except Exception:
            pass  # the process has just ended, or the daemon is away: both show on the stream itself

    for name in _PROXIED:
        signal.signal(getattr(signal, name), forward)
