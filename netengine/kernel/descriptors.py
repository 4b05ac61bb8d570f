"""Where long-lived descriptors live: from 2,048 up.

libnftables 1.0.6 aborts the whole process when the socket it opens gets a descriptor of 1,024 or above (it uses select(2)).
So whatever the daemon keeps open for long is moved up, and the low numbers stay free.
"""

from __future__ import annotations

import fcntl
import os
import resource
import socket

FLOOR = 2048


def move_up(fd: int) -> int:
    """Close `fd` and answer a duplicate at 2,048 or above, close-on-exec; where the limit is lower, `fd` itself."""
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] <= FLOOR:
        return fd
    high = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, FLOOR)
    os.close(fd)
    return high


def moved_up(low: socket.socket) -> socket.socket:
    """The same for a socket, of which nothing but its descriptor is kept."""
    with low:
        return socket.socket(fileno=move_up(low.detach()))
