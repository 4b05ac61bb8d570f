"""The numbers of interfaces by their names, asked by ioctl (netdevice(7)).

Python's if_nametoindex says "no interface" whatever went wrong, want of descriptors too, and opens a socket for each question.

Source: include/uapi/linux/sockios.h, include/uapi/linux/if.h.
"""

from __future__ import annotations

import errno
import fcntl
import socket
import struct

_SIOCGIFINDEX = 0x8933
_IFREQ = struct.Struct("16si20x")  # struct ifreq: ifr_name, ifr_ifindex


def control_socket() -> socket.socket:
    """What `of` asks: a socket of the calling thread's network namespace, in which it stays."""
    return socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)


def of(control: socket.socket, link: str, ns: str = "") -> int:
    """The index of a link in the namespace of `control`, which is called `ns` ("": the host's). Raises OSError, with ENODEV
    when there is none of that name."""
    try:
        return int(_IFREQ.unpack(fcntl.ioctl(control, _SIOCGIFINDEX, _IFREQ.pack(link.encode(), 0)))[1])
    except OSError as e:
        if e.errno != errno.ENODEV:
            raise
        where = f"namespace {ns[:12]}" if ns else "the host"
        raise OSError(errno.ENODEV, f"there is no link {link} in {where}") from e
