"""Giving up root: what the name server and the relay do once, before they read the first packet, and cannot take back; and
whom they listen to afterwards."""

from __future__ import annotations

import ctypes
import os
import resource
import socket
import struct
import sys

_PR_SET_NO_NEW_PRIVS = 38
_PR_SET_DUMPABLE = 4
_PR_CAPBSET_DROP = 24
_DESCRIPTORS = 1 << 19
_UCRED = struct.Struct("3i")


def raise_descriptor_limit() -> None:
    """As many descriptors as the kernel lets us have: sandboxes bring up to ten each, forwarding takes more."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(hard, _DESCRIPTORS) if hard != resource.RLIM_INFINITY else _DESCRIPTORS
    for limit in (wanted, hard):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, max(limit, hard)))
            return
        except (OSError, ValueError):
            continue  # not root, or above fs.nr_open: keep the hard limit


def drop(uid: int | None, gid: int | None) -> None:
    """Become `uid` and `gid` without capabilities or a way to new ones (if root; else only the latter)."""
    libc = ctypes.CDLL(None, use_errno=True)
    if os.geteuid() == 0 and uid:
        capability = 0
        while libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) == 0:  # fails behind the last one
            capability += 1
        os.setgroups([])
        group = gid if gid is not None else uid
        os.setresgid(group, group, group)
        os.setresuid(uid, uid, uid)  # from root to another: the kernel empties the capability sets
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_NO_NEW_PRIVS)")
    libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)  # others of this uid may not trace it: it holds sockets of every sandbox
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def may_control(sock: socket.socket) -> bool:
    """Whether who has connected to the control socket is root, or the user of this process; says so and closes it if not."""
    _, uid, _ = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    if uid in (0, os.geteuid()):
        return True
    print(f"refused: a control connection of uid {uid}", file=sys.stderr, flush=True)
    sock.close()
    return False
