"""Doors of the relay: ports of the host on IPv6 addresses that its process serves (netengine/relay), and this end of it.

The process is started when there is a first door and ends by itself with the last one. It is a session of its own, so that what
flows through it outlives the daemon; a daemon that starts finds it, and gets the sockets of its doors back from it. Runs on the
kernel thread, in the namespace that the process works in.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import select
import socket
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from netengine import unprivileged
from netengine.errors import KernelRefused
from netengine.kernel import hostports
from netengine.kernel.descriptors import move_up, moved_up
from netengine.kernel.resources import HostPort, Relay, Resource
from netengine.relay import protocol
from netengine.relay.protocol import Door

if TYPE_CHECKING:
    from netengine.kernel.host import Kernel

log = logging.getLogger(__name__)

T = TypeVar("T")

_ANSWER_SECONDS = 5.0
"""A process that has just been started answers after some 0.1 s, more on a busy machine."""

_MOST_OWED = 32
_KNOWN_VERSIONS = (1, protocol.VERSION)
_BACKLOG = 512
_NOBODY = 65534
_decoder = msgspec.json.Decoder(protocol.Answer)


class Relays:
    """The connection to the relay's process. `watch` is a descriptor that becomes readable when the connection has ended."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._log_path = path.with_suffix(".log")
        self._sock: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._version = protocol.VERSION
        """Of the process's words: an earlier daemon may have started it."""
        self._owed = 0
        """Answers that were not waited for."""
        self._open: set[HostPort] = set()
        """Doors that the process is known to have: while there is one, it does not end by itself."""
        self._epoll = select.epoll()
        self.watch = self._epoll.fileno()
        # That a connection has ended may be found out by who asks something, before anybody looks at `watch`.
        self._found_out = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._found_out, select.EPOLLIN)

    def close(self) -> None:
        """Let go of the process; it goes on."""
        self._drop()
        self._epoll.close()
        os.close(self._found_out)

    def has_ended(self) -> bool:
        """Whether the connection has ended since this was last asked. From any thread, when `watch` is readable."""
        ready = {fd for fd, _ in self._epoll.poll(0)}
        if self._found_out in ready:
            os.eventfd_read(self._found_out)
        return bool(ready)

    def bury(self) -> None:
        """The process has ended, or is about to: let go of it, and of its exit status."""
        if self._sock is None or self._connected():
            return
        self._drop()
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_ANSWER_SECONDS)
                self._process = None

    def _connected(self) -> bool:
        """Whether the other end is there. There may be answers that nobody has waited for yet."""
        poll = select.poll()
        poll.register(self._sock or -1, select.POLLRDHUP)
        return not any(events & (select.POLLRDHUP | select.POLLHUP | select.POLLERR) for _, events in poll.poll(0))

    # -- what the process is asked ------------------------------------------------------------------------------------

    def inherit(self) -> dict[HostPort, socket.socket]:
        """The sockets of the doors of a process that runs already, for a daemon that has just started. One of another
        version is ended, and what flows through it."""
        if not self._connect():
            return {}
        out: dict[HostPort, socket.socket] = {}
        for door, sock in self._listed(sockets=True):
            if sock is not None:
                out[HostPort(door.address, door.protocol, door.port)] = sock
        self._open |= out.keys()
        return out

    def doors(self) -> set[Relay]:
        """The doors that the process has now."""
        if self._sock is None:
            return set()
        return {_relay(door) for door, _ in self._listed(sockets=False)}

    def open(self, doors: Sequence[tuple[Relay, socket.socket]]) -> None:
        """Let the process serve ports of the host, at most protocol.MOST. Raises KernelRefused."""
        for _ in range(2):
            new = self._sock is None and not self._connect()
            if new:
                self._start()
            if not all(self._tell(request, descriptors) for request, descriptors in self._opening(doors)):
                continue
            if not new and not self._open:
                self._answers()  # one without a door may be about to end, and never read this
                if self._sock is None:
                    continue
            self._open |= {_port(relay) for relay, _ in doors}
            return  # else its answer is read before the next one that is waited for
        which = ", ".join(f"{relay.address}:{relay.port}" for relay, _ in doors[:3])
        raise KernelRefused(f"the relay for IPv6 ports does not take {which}; {self._log_path} may say why")

    def _opening(self, doors: Sequence[tuple[Relay, socket.socket]]) -> list[tuple[protocol.Request, list[int]]]:
        """What the process is asked, with the descriptors that go along: all in one, if it understands that."""
        asked = [(Door(r.address, r.protocol, r.port, r.target, r.target_port), held.fileno()) for r, held in doors]
        if self._version < protocol.VERSION:
            return [(protocol.Open(door), [descriptor]) for door, descriptor in asked]
        return [(protocol.OpenAll([door for door, _ in asked]), [descriptor for _, descriptor in asked])]

    def shut(self, relays: Sequence[Relay]) -> None:
        """The process lets go of ports: nobody holds them but us when this returns."""
        ports: list[tuple[str, str, int]] = [(r.address, r.protocol, r.port) for r in relays]
        self._open -= {_port(r) for r in relays}
        requests: list[protocol.Request] = [protocol.CloseAll(ports)]
        if self._version < protocol.VERSION:
            requests = [protocol.Close(*port) for port in ports]
        if self._sock is not None and all(self._tell(request, []) for request in requests):
            self._answers()

    # -- the connection -----------------------------------------------------------------------------------------------

    def _connect(self) -> bool:
        """Connect to a process that runs. One that does not answer, or not in our words, is ended."""
        made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        try:
            made.settimeout(_ANSWER_SECONDS)
            made.connect(str(self._path))
        except OSError:
            made.close()
            return False
        sock = self._use(made)
        try:
            sock.send(msgspec.json.encode(protocol.List()))
            while isinstance(answer := _decoder.decode(sock.recv(protocol.LARGEST)), protocol.Listed):
                pass
            if answer.version in _KNOWN_VERSIONS:
                self._version = answer.version
                return True
        except (OSError, msgspec.MsgspecError) as error:
            log.warning("the relay for IPv6 ports does not answer as it should (%s); it is replaced", error)
        self._end_process()
        return False

    def _use(self, made: socket.socket) -> socket.socket:
        self._drop()
        self._sock = moved_up(made)
        self._sock.settimeout(_ANSWER_SECONDS)
        self._owed = 0
        # Of its end alone, and once: answers are read where they are waited for.
        self._epoll.register(self._sock.fileno(), select.EPOLLRDHUP | select.EPOLLONESHOT)
        return self._sock

    def _lost(self) -> None:
        """The connection has ended unexpectedly. Who is told by `watch` opens the doors again that were open."""
        if self._open:
            os.eventfd_write(self._found_out, 1)
        self._drop()

    def _drop(self) -> None:
        if self._sock is not None:
            self._sock.close()  # leaves the epoll set by that
            self._sock = None
        self._open.clear()
        if self._process is not None and self._process.poll() is not None:
            self._process = None

    def _tell(self, request: protocol.Request, descriptors: list[int]) -> bool:
        """Send a request; false when there is nobody to send it to any more."""
        if self._owed >= _MOST_OWED:
            self._answers()  # unread, they would fill the socket, and the process would wait for us
        if self._sock is None:
            return False
        try:
            socket.send_fds(self._sock, [msgspec.json.encode(request)], descriptors)
        except OSError as error:
            if isinstance(error, TimeoutError):
                self._end_process()
            self._lost()
            return False
        self._owed += 1
        return True

    def _listed(self, *, sockets: bool) -> list[tuple[Door, socket.socket | None]]:
        return self._answers() if self._tell(protocol.List(sockets), []) else []

    def _answers(self) -> list[tuple[Door, socket.socket | None]]:
        """Read all answers that are owed; what the last one lists."""
        listed: list[tuple[Door, socket.socket | None]] = []
        try:
            while self._owed and self._sock is not None:
                data, descriptors, _, _ = socket.recv_fds(self._sock, protocol.LARGEST, 1)
                if not data:
                    raise OSError(errno.EPIPE, os.strerror(errno.EPIPE))
                made = [socket.socket(fileno=move_up(fd)) for fd in descriptors]
                answer = _decoder.decode(data)
                if isinstance(answer, protocol.Listed):
                    listed.append((answer.door, made[0] if made else None))
                    continue
                self._owed -= 1
                if answer.error:
                    log.error("the relay for IPv6 ports refused: %s", answer.error)
        except (OSError, msgspec.MsgspecError) as error:
            if not isinstance(error, BrokenPipeError | ConnectionError):
                log.warning("the relay for IPv6 ports does not answer (%s); it is ended", error)
                self._end_process()
            self._lost()
            return []
        return listed

    # -- the process --------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        """Start the process. It need not be up when this returns: what is sent to it waits in its socket."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC) as control:
            self._path.unlink(missing_ok=True)  # of one that was killed: nobody answered there
            before = os.umask(0o177)
            try:
                control.bind(str(self._path))
            finally:
                os.umask(before)
            control.listen(8)
            self._process = _spawn(control, self._log_path)
            made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
            made.connect(str(self._path))
        self._use(made)
        self._version = protocol.VERSION

    def _end_process(self) -> None:
        if self._sock is None:
            return
        pid = int.from_bytes(self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4], sys.byteorder)
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        elif pid > 0 and _is_relay(pid):
            _kill(pid)
        self._lost()


def _spawn(control: socket.socket, log_path: Path) -> subprocess.Popen[bytes]:
    arguments = ["--control", str(control.fileno()), "--uid", str(_NOBODY), "--gid", str(_NOBODY)]
    what = "the relay for IPv6 ports"
    fds = [control.fileno()]
    return unprivileged.start("netengine.relay", arguments, log_path, what=what, refused=KernelRefused, pass_fds=fds)


def _is_relay(pid: int) -> bool:
    try:
        return b"netengine.relay" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _kill(pid: int) -> None:
    """End the process that listens at our socket, and wait until it is gone: it holds ports."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        os.kill(pid, 9)
        select.select([descriptor], [], [], _ANSWER_SECONDS)
    except ProcessLookupError:
        pass
    finally:
        os.close(descriptor)


# -- as resources -----------------------------------------------------------------------------------------------------


def create(kernel: Kernel, resources: list[Relay], made: list[Resource]) -> None:
    doors: list[tuple[Relay, socket.socket]] = []
    for r in resources:
        held = kernel.held.get(_port(r))
        if held is None:
            raise KernelRefused(f"cannot relay {r.address}:{r.port}/{r.protocol}: nobody holds that port")
        hostports.let_in(held, _BACKLOG)
        doors.append((r, held))
    for some in _few(doors):
        kernel.relays.open(some)
        made.extend(r for r, _ in some)


def delete(kernel: Kernel, resources: Iterable[Relay]) -> None:
    resources = list(resources)
    for some in _few(resources):
        kernel.relays.shut(some)
    for r in resources:
        unused = kernel.inherited.pop(_port(r), None)
        if unused is not None:
            unused.close()
        held = kernel.held.get(_port(r))
        if held is not None:
            hostports.keep_out(held)


def _few(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """As many at once as a message holds."""
    for start in range(0, len(items), protocol.MOST):
        yield items[start : start + protocol.MOST]


def _port(r: Relay) -> HostPort:
    return HostPort(r.address, r.protocol, r.port)


def _relay(door: Door) -> Relay:
    return Relay(door.address, door.protocol, door.port, door.target, door.target_port)
