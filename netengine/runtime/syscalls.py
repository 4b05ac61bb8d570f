"""The system calls that Python 3.11 lacks: mount, openat2, inotify, syncfs; and where descriptors are kept.

Thin: arguments in, OSError out. No policy, and nothing of netengine is imported.
"""

from __future__ import annotations

import ctypes
import fcntl
import os

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_REC, MS_PRIVATE = 0x1, 0x2, 0x4, 0x4000, 0x40000
MNT_DETACH = 2

RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

IN_MODIFY, IN_CLOSE_WRITE, IN_MOVED_TO, IN_CREATE = 0x2, 0x8, 0x80, 0x100

_SYS_OPENAT2 = 437  # one number on every architecture
_LOW_DESCRIPTORS = 2048  # libnftables aborts the process when it cannot get a descriptor below 1,024: leave those free

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def _checked(result: int, *subject: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), *subject)
    return result


def mount(source: str, target: str, kind: str, flags: int, options: str) -> None:
    """mount(2)."""
    arguments = [os.fsencode(text) for text in (source, target, kind)]
    _checked(_libc.mount(*arguments, ctypes.c_ulong(flags), os.fsencode(options)), target)


def unmount(target: str) -> None:
    """Detach a mount at once; what still uses it lets go later (umount2(2) with MNT_DETACH)."""
    _checked(_libc.umount2(os.fsencode(target), MNT_DETACH), target)


def syncfs(descriptor: int) -> None:
    """Write out the file system that `descriptor` is on (syncfs(2))."""
    _checked(_libc.syncfs(descriptor))


class _OpenHow(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def openat2(directory: int, path: str, flags: int, resolve: int, mode: int = 0) -> int:
    """Open `path` below `directory` under the rules of `resolve` (openat2(2), Linux 5.6); the descriptor is close-on-exec."""
    how = _OpenHow(flags | os.O_CLOEXEC, mode, resolve | RESOLVE_NO_MAGICLINKS)
    result = _libc.syscall(
        ctypes.c_long(_SYS_OPENAT2),
        ctypes.c_int(directory),
        os.fsencode(path),
        ctypes.byref(how),
        ctypes.c_size_t(ctypes.sizeof(how)),
    )
    return _checked(int(result), path)


def inotify_init() -> int:
    """A new inotify instance, non-blocking and close-on-exec."""
    return _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))


def inotify_add_watch(instance: int, path: str, mask: int) -> int:
    """Watch a file or directory."""
    return _checked(_libc.inotify_add_watch(instance, os.fsencode(path), ctypes.c_uint32(mask)), path)


def keep_high(descriptor: int) -> int:
    """Move a long-lived descriptor out of the low numbers; where the limit on open files is too low, leave it."""
    try:
        moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _LOW_DESCRIPTORS)
    except OSError:
        return descriptor
    os.close(descriptor)
    return moved
