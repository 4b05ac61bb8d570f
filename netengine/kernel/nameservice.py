"""The way to the name server inside a sandbox: 127.0.0.11, port 53.

The name server's sockets are opened inside the sandbox on free ports of 127.0.0.11, so that the sandbox's own port 53 stays
free; rules in the sandbox change the port on the way there and back. They are stateless: a query costs no connection tracking
entry, and a sandbox without other rules does not track at all.

Runs on the kernel thread, inside the namespace concerned.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from itertools import cycle, islice
from typing import Any

from nftables import Nftables

from netengine.errors import KernelRefused
from netengine.kernel import namerules
from netengine.kernel.descriptors import move_up
from netengine.kernel.namerules import ADDRESS as ADDRESS
from netengine.kernel.namerules import CHAIN
from netengine.kernel.namerules import TABLE as TABLE

_BACKLOG = 128
_UPSTREAM_DATAGRAMS, _UPSTREAM_STREAMS = 3, 2
"""Sockets to ask a sandbox's own servers from: in all, and of each family."""


def rules(udp: int, tcp: int) -> str:
    """What leads port 53 to these ports, as nft reads it."""
    lines = []
    for protocol, port in (("udp", udp), ("tcp", tcp)):
        lines.append(f"ip daddr {ADDRESS} {protocol} dport 53 notrack {protocol} dport set {port}")
        lines.append(f"ip saddr {ADDRESS} {protocol} sport {port} notrack {protocol} sport set 53")
    body = "\n        ".join(lines)
    return f"""create table ip {TABLE}
table ip {TABLE} {{
    chain {CHAIN} {{
        type filter hook output priority raw; policy accept;
        {body}
    }}
}}
"""


def open_sockets(own_servers: Sequence[int]) -> list[socket.socket]:
    """A UDP and a listening TCP socket for the name server and, if the sandbox has servers of its own (4, 6: their families),
    sockets to ask them from. Loads the rules. The calling thread is in the sandbox."""
    out: list[socket.socket] = []
    try:
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            out.append(_socket(kind))
            out[-1].bind((ADDRESS, 0))
        out[1].listen(_BACKLOG)
        families = [socket.AF_INET if version == 4 else socket.AF_INET6 for version in sorted(own_servers)]
        for family in islice(cycle(families), _UPSTREAM_DATAGRAMS if families else 0):
            out.append(_socket(socket.SOCK_DGRAM, family))
        for family in families:
            out += [_socket(socket.SOCK_STREAM, family) for _ in range(_UPSTREAM_STREAMS)]
        _load(out[0].getsockname()[1], out[1].getsockname()[1])
    except BaseException:
        for opened in out:
            opened.close()
        raise
    return out


def _load(udp: int, tcp: int) -> None:
    try:
        namerules.load(udp, tcp)
    except OSError:
        # Rules of an earlier life, as a rule. Removing them costs the kernel some 12 ms, so it is not done on every start.
        code, _, error = Nftables().cmd(f"add table ip {TABLE}\ndelete table ip {TABLE}\n{rules(udp, tcp)}")
        if code != 0:
            raise KernelRefused(f"nftables refused the rules for {ADDRESS}: {' '.join(error.split())}") from None


def _socket(kind: int, family: int = socket.AF_INET) -> socket.socket:
    with socket.socket(family, kind | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as low:
        return socket.socket(fileno=move_up(low.detach()))


def remove_rules() -> object:
    """Take the rules away. The calling thread is in the sandbox.

    Answers the handle that did it: letting go of that waits some 12 ms for the kernel to free them, which can be done later.
    """
    handle = Nftables()
    handle.cmd(f"add table ip {TABLE}\ndelete table ip {TABLE}")
    return handle


def ports() -> tuple[int, int] | None:
    """The (UDP, TCP) ports that the rules of the sandbox lead to; None without complete rules."""
    handle: Any = Nftables()
    code, output, _ = handle.cmd(f"list table ip {TABLE}")
    if code != 0:
        return None
    found = dict(re.findall(r"(udp|tcp) dport set (\d+)", output))
    back = dict(re.findall(r"(udp|tcp) sport (\d+) notrack", output))
    if set(found) != {"udp", "tcp"} or found != back:
        return None
    return int(found["udp"]), int(found["tcp"])
