"""Network namespaces: made, entered and let go of without ever forking a child (see docs/architecture.md for the figures).

A namespace is kept alive by a bind mount of its nsfs file, as iproute2 does. All of this must run on a thread of the
kernel layer: `setns(2)` and `unshare(2)` with CLONE_NEWNET act on the calling thread alone.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

CLONE_NEWNET = 0x40000000  # include/uapi/linux/sched.h
MS_BIND = 4096  # include/uapi/linux/mount.h
MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _setns(fd: int) -> None:
    _check(_libc.setns(fd, CLONE_NEWNET), "setns")


def open_current() -> int:
    """A descriptor of the calling thread's network namespace."""
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


@contextmanager
def entered(fd: int, home: int) -> Iterator[None]:
    """The calling thread is in the network namespace `fd` for the block, and back in `home` after it."""
    _setns(fd)
    try:
        yield
    finally:
        _setns(home)


def create(path: Path, home: int) -> int:
    """Make a network namespace and keep it under `path`; answer an open descriptor of it. The thread ends up in `home`.

    Raises FileExistsError when `path` exists.
    """
    os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444))
    try:
        _check(_libc.unshare(CLONE_NEWNET), "unshare(CLONE_NEWNET)")
        try:
            source = b"/proc/thread-self/ns/net"
            _check(_libc.mount(source, os.fsencode(path), b"none", MS_BIND, None), f"bind mount on {path}")
            return open_current()
        finally:
            _setns(home)
    except OSError:
        os.unlink(path)
        raise


def keep(fd: int, path: Path) -> None:
    """Keep the namespace that `fd` is a descriptor of under `path`, whose file may be missing or bare."""
    os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o444))
    source = f"/proc/thread-self/fd/{fd}".encode()
    _check(_libc.mount(source, os.fsencode(path), b"none", MS_BIND, None), f"bind mount on {path}")


def release(path: Path) -> None:
    """Let go of the namespace kept under `path`. It ends when nothing else holds it: no process, socket or mount."""
    # Mounts can stack up on one file when something bind-mounts it again; peel them all off.
    while _libc.umount2(os.fsencode(path), MNT_DETACH) == 0:
        pass
    number = ctypes.get_errno()
    if number not in (errno.EINVAL, errno.ENOENT):
        raise OSError(number, f"unmount {path}: {os.strerror(number)}")
    path.unlink(missing_ok=True)


def is_alive(path: Path) -> bool:
    """Whether `path` is a mounted nsfs file (and not the bare file that a foreign unmount leaves behind)."""
    try:
        return path.stat().st_dev != path.parent.stat().st_dev
    except OSError:
        return False


def not_alive(directory: Path, names: Iterable[str]) -> list[str]:
    """Those of `names` that `is_alive` denies in the directory: a thousand in two milliseconds, for whoever looks often."""
    bare = os.stat(directory).st_dev
    out = []
    for name in names:
        try:
            alive = os.stat(f"{directory}/{name}").st_dev != bare
        except OSError:
            alive = False
        if not alive:
            out.append(name)
    return out
