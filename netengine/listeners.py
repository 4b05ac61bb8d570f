"""The sockets that the API is served on: made here, or handed over by systemd.

Who may connect is decided here (mode, group) since whoever may, is root in effect. What is said over them lives in `api/`.
"""

from __future__ import annotations

import errno
import grp
import logging
import os
import socket
import stat
import struct
from collections.abc import MutableMapping
from contextlib import ExitStack
from pathlib import Path

from netengine.config import Config
from netengine.errors import Conflict, Invalid

log = logging.getLogger(__name__)

FIRST_INHERITED = 3  # SD_LISTEN_FDS_START, sd_listen_fds(3)
BACKLOG = 1024  # connections that wait to be accepted; the kernel caps it at net.core.somaxconn
PROBE_SECONDS = 2.0  # how long a socket that already exists has to show that somebody serves it
DEFAULT_GROUP = Config().group


class Inherited:
    """The sockets that systemd passed, by their position and by the name of the socket unit, as sd_listen_fds(3) says."""

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        """Take them out of the environment, since the daemon's own children must not believe that they are theirs."""
        pid, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "")
        names = environ.pop("LISTEN_FDNAMES", "").split(":")
        number = int(count) if pid == str(os.getpid()) and count.isdigit() else 0
        self._descriptors = [
            (FIRST_INHERITED + index, names[index] if index < len(names) else "") for index in range(number)
        ]
        for descriptor, _ in self._descriptors:
            os.set_inheritable(descriptor, False)

    def __bool__(self) -> bool:
        return bool(self._descriptors)

    def select(self, which: str) -> list[socket.socket]:
        """The sockets of `fd://which`: all of them (""), by descriptor ("3") or by name ("netengine.socket")."""
        found = [fd for fd, name in self._descriptors if which in ("", str(fd), name)]
        if not found:
            raise Invalid(
                f"fd://{which}: no such socket was passed via socket activation; is the daemon started by systemd, with"
                " netengine.socket enabled?"
            )
        return [_listening(fd) for fd in found]


def _listening(descriptor: int) -> socket.socket:
    sock = socket.socket(fileno=descriptor)
    if sock.family != socket.AF_UNIX or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        sock.detach()
        raise Invalid(
            f"descriptor {descriptor} of the socket unit is not a listening unix socket; use ListenStream=/path"
        )
    sock.setblocking(False)
    return sock


def open_listeners(config: Config, inherited: Inherited, stack: ExitStack) -> list[socket.socket]:
    """Open all `hosts`; `stack` closes them again and removes the paths that were made here.

    Raises `Conflict` when a path is served by someone, `Invalid` when one cannot be used.
    """
    hosts = config.hosts
    if inherited and hosts == Config().hosts:
        hosts = ("fd://",)  # started by a socket unit and told nothing else
    sockets: list[socket.socket] = []
    for host in hosts:
        scheme, _, rest = host.partition("://")
        if scheme == "fd":
            opened = inherited.select(rest)
            for sock in opened:
                stack.callback(sock.close)
        elif scheme == "tcp":
            opened = [_bind_tcp(rest, stack)]
        else:
            opened = [_bind(Path(rest), config.group, stack)]
        sockets += opened
    return sockets


def shown(listener: socket.socket) -> str:
    """Where a socket listens, for people."""
    name = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return str(name)
    return f"tcp://[{name[0]}]:{name[1]}" if listener.family == socket.AF_INET6 else f"tcp://{name[0]}:{name[1]}"


def _bind_tcp(where: str, stack: ExitStack) -> socket.socket:
    """`address:port` as config.py has checked it; the TLS that is spoken on it lives in api/tls.py."""
    address, _, port = where.rpartition(":")
    family = socket.AF_INET6 if address.startswith("[") else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    stack.callback(sock.close)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    try:
        sock.bind((address.strip("[]"), int(port)))
    except OSError as error:
        kind = Conflict if error.errno == errno.EADDRINUSE else Invalid
        raise kind(f"cannot listen on tcp://{where}: {error.strerror}") from error
    sock.listen(BACKLOG)
    sock.setblocking(False)
    return sock


def _bind(path: Path, group: str, stack: ExitStack) -> socket.socket:
    _make_way(path)
    gid = _gid(group)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    stack.callback(sock.close)
    try:
        path.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        _bind_closed(sock, path)
    except OSError as error:
        raise Invalid(f"cannot listen on unix://{path}: {error.strerror}") from error
    stack.callback(_remove, path, os.stat(path, follow_symlinks=False))
    os.chown(path, -1, -1 if gid is None else gid)
    os.chmod(path, 0o660)
    sock.listen(BACKLOG)
    sock.setblocking(False)
    return sock


def _bind_closed(sock: socket.socket, path: Path) -> None:
    """Born closed to everybody, opened to the group later: at no moment could a stranger connect."""
    before = os.umask(0o177)
    try:
        sock.bind(str(path))
    finally:
        os.umask(before)


def _make_way(path: Path) -> None:
    """Remove the socket of a daemon that is gone; refuse when it is not gone, or not a socket."""
    try:
        mode = os.stat(path, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise Invalid(f"cannot listen on unix://{path}: {error.strerror}") from error
    if not stat.S_ISSOCK(mode):
        raise Conflict(
            f"cannot listen on unix://{path}: it exists and is not a socket; remove it, or choose another --host"
        )
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(PROBE_SECONDS)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            log.info("replacing %s, left behind by a daemon that is gone", path)
            path.unlink(missing_ok=True)
            return
        except FileNotFoundError:
            return
        except OSError as error:  # a full backlog: somebody holds it who does not accept
            raise Conflict(
                f"cannot listen on unix://{path}: a daemon holds it and does not answer ({error})"
            ) from error
        # SO_PEERCRED on a stream socket tells who called listen(), unix(7).
        pid: int = struct.unpack("3i", probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
    who = f"the process with pid {pid}" if pid > 0 else "a process outside this pid namespace"
    raise Conflict(f"cannot listen on unix://{path}: {who} serves it; stop that one, or choose another --host")


def _gid(group: str) -> int | None:
    """The group's number, or None where the default group does not exist: then root alone may connect."""
    if group.isdigit():
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        if group != DEFAULT_GROUP:
            raise Invalid(f'group: "{group}" does not exist; create it with "groupadd --system {group}"') from None
        log.info('no group "%s" on this host: only root may use the socket', group)
        return None


def _remove(path: Path, made: os.stat_result) -> None:
    """Remove the path unless somebody else has put another socket there since."""
    try:
        if os.path.samestat(os.stat(path, follow_symlinks=False), made):
            path.unlink()
    except FileNotFoundError:
        pass
