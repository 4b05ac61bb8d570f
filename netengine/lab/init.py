"""Process 1 of a host of the lab: `python -m netengine.lab.init NAME DIRECTORY`, started inside the new namespaces.

Makes what has to be the host's own (/run, /sys, the host name, a loopback interface that is up), says `ready`, and then only
holds the namespaces until it is killed, and with it all that runs in the host. DIRECTORY, the lab's, stays what it is outside.

Source: mount(2), pid_namespaces(7), netdevice(7).
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import socket
import struct
import sys
from pathlib import Path

_NOSUID, _NODEV, _NOEXEC, _BIND, _REC = 2, 4, 8, 4096, 16384
_SIOCSIFFLAGS, _IFF_UP, _IFF_RUNNING = 0x8914, 1, 64
_libc = ctypes.CDLL(None, use_errno=True)


def _mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    if _libc.mount(source.encode(), target.encode(), kind.encode(), flags, data.encode()) != 0:
        sys.exit(f"cannot mount {kind or source} on {target}: {os.strerror(ctypes.get_errno())}")


def main() -> None:
    name, directory = sys.argv[1:]
    # The kernel reaps what is orphaned to process 1: conmon, and the containers of a daemon that was killed.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    lab = os.open(directory, os.O_PATH | os.O_DIRECTORY)
    _mount("tmpfs", "/run", "tmpfs", _NOSUID | _NODEV, "mode=755")
    os.makedirs(directory, exist_ok=True)
    _mount(f"/proc/self/fd/{lab}", directory, "", _BIND)
    os.close(lab)
    # /sys shows the links of the network namespace that it was mounted in; the control groups below it are carried over.
    os.mkdir("/run/cgroup")
    _mount("/sys/fs/cgroup", "/run/cgroup", "", _BIND | _REC)
    _mount("sysfs", "/sys", "sysfs", _NOSUID | _NODEV | _NOEXEC)
    _mount("/run/cgroup", "/sys/fs/cgroup", "", _BIND | _REC)
    _libc.umount2(b"/run/cgroup", 2)  # MNT_DETACH
    os.rmdir("/run/cgroup")
    socket.sethostname(name)
    for setting in ("conf/all/rp_filter", "conf/default/rp_filter"):
        Path("/proc/sys/net/ipv4", setting).write_text("0")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _IFF_UP | _IFF_RUNNING))
    os.write(1, b"ready\n")
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    while True:
        signal.pause()


main()
