"""The name server's end of the control socket: frames in, calls of the server, frames out. No DNS here."""

from __future__ import annotations

import errno
import os
import socket
import stat
import sys
from collections import deque
from pathlib import Path

import msgspec

from netengine.dns import protocol
from netengine.dns.explain import explain
from netengine.dns.loop import READ, WRITE, Loop
from netengine.dns.privileges import may_control
from netengine.dns.protocol import Answer
from netengine.dns.server import Server
from netengine.dns.tcp import PAUSE
from netengine.errors import Conflict, Invalid, NetengineError

_CHUNK = 1 << 16  # more, and the memory for it is asked of the kernel for each frame, and given back
_decoder = msgspec.json.Decoder(protocol.Request)


def listen(path: Path) -> socket.socket:
    """A listening socket at `path` that its owner and root may connect to. Conflict if another server answers there."""
    if path.exists() and stat.S_ISSOCK(path.lstat().st_mode):
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(path))
            except OSError as error:
                if error.errno != errno.ECONNREFUSED:
                    raise
                path.unlink()  # left behind by one that was killed
            else:
                raise Conflict(f"a name server answers at {path} already; connect to it, or stop it first")
    sock = socket.socket(socket.AF_UNIX)
    before = os.umask(0o177)
    try:
        sock.bind(str(path))
    finally:
        os.umask(before)
    sock.listen(8)
    sock.setblocking(False)
    return sock


class Control:
    """The listening socket and its connections."""

    def __init__(self, loop: Loop, server: Server, sock: socket.socket) -> None:
        self.loop, self.server = loop, server
        self._sock = sock
        self.connections: set[_Connection] = set()
        self._listen()

    def _listen(self) -> None:
        self.loop.watch(self._sock.fileno(), self._accept)

    def _accept(self, _events: int) -> None:
        try:
            sock, _ = self._sock.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as error:
            print(f"a control connection cannot be accepted: {error}", file=sys.stderr, flush=True)
            self.loop.forget(self._sock.fileno())
            self.loop.later(PAUSE, self._listen)
            return
        if not may_control(sock):
            return
        sock.setblocking(False)
        self.connections.add(_Connection(self, sock))


class _Connection:
    def __init__(self, control: Control, sock: socket.socket) -> None:
        self._control, self._sock = control, sock
        self._received = bytearray()
        self._descriptors: deque[list[int]] = deque()
        self._unsent = bytearray()
        control.loop.watch(sock.fileno(), self._ready)

    def _ready(self, events: int) -> None:
        try:
            if events & WRITE:
                self._send()
            if events & ~WRITE:
                self._receive()
        except (BlockingIOError, InterruptedError):
            return
        except (OSError, Invalid) as error:
            print(f"control connection closed: {error}", file=sys.stderr, flush=True)
            self._close()

    def _receive(self) -> None:
        data, descriptors, flags, _ = socket.recv_fds(self._sock, _CHUNK, protocol.MOST_DESCRIPTORS)
        if descriptors:
            self._descriptors.append(descriptors)
        if flags & socket.MSG_CTRUNC:
            raise Invalid(f"more than {protocol.MOST_DESCRIPTORS} descriptors came with one frame")
        if not data:
            self._close()
            return
        self._received += data
        while len(self._received) >= protocol.LENGTH.size:
            (size,) = protocol.LENGTH.unpack_from(self._received)
            if size > protocol.LARGEST_FRAME:
                raise Invalid(f"a frame of {size} bytes; the most is {protocol.LARGEST_FRAME}")
            if len(self._received) < protocol.LENGTH.size + size:
                return
            body = bytes(self._received[protocol.LENGTH.size : protocol.LENGTH.size + size])
            del self._received[: protocol.LENGTH.size + size]
            answer = self._answer(body)
            if answer is not None:
                self._reply(answer)

    def _answer(self, body: bytes) -> Answer | None:
        try:
            request = _decoder.decode(body)
        except msgspec.MsgspecError as error:
            return Answer(_seq(body), error=f"not understood: {error}")
        try:
            return self._apply(request)
        except NetengineError as error:
            return Answer(request.seq, error=error.message)

    def _apply(self, request: protocol.Request) -> Answer | None:
        server, done = self._control.server, Answer(request.seq, ok=True)
        match request:
            case protocol.Hello():
                done.pid, done.version = os.getpid(), protocol.VERSION
                done.sandboxes = {ident: sandbox.ports for ident, sandbox in server.sandboxes.items()}
            case protocol.Add(sandbox=ident):
                if not self._descriptors:
                    raise Invalid(f"no descriptors came with `add` of sandbox {ident}; pass its UDP and its TCP socket")
                server.add(ident, self._descriptors.popleft())
            case protocol.Remove(sandbox=ident):
                server.remove(ident)
            case protocol.Sync():
                done.removed = server.sync(request)
            case protocol.Update():
                server.update(request)
            case protocol.Stats():
                done.stats, done.memory_kib = server.counters(), _resident_kib()
            case protocol.Explain():
                explain(server, request, done, self._reply)  # when it is known, maybe behind later answers
                return None
            case protocol.Stop():
                self._control.loop.running = False
        return done

    def _reply(self, answer: Answer) -> None:
        if self._sock.fileno() >= 0:
            self._unsent += protocol.frame(answer)
            self._send()

    def _send(self) -> None:
        while self._unsent:
            try:
                del self._unsent[: self._sock.send(self._unsent)]
            except (BlockingIOError, InterruptedError):
                break
        self._control.loop.change(self._sock.fileno(), READ | (WRITE if self._unsent else 0))

    def _close(self) -> None:
        self._control.loop.forget(self._sock.fileno())
        self._control.connections.discard(self)
        self._sock.close()
        for descriptors in self._descriptors:
            for fd in descriptors:
                os.close(fd)


class _Numbered(msgspec.Struct):
    seq: int = 0


def _seq(body: bytes) -> int:
    try:
        return msgspec.json.decode(body, type=_Numbered).seq
    except msgspec.MsgspecError:
        return 0


def _resident_kib() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") // 1024
