"""The way to the name server inside a sandbox: 127.0.0.11, port 53.

The name server's sockets are opened inside the sandbox on free ports of 127.0.0.11, so that the sandbox's own port 53 stays
free; rules in the sandbox change the port on the way there and back. They are stateless: a query costs no connection tracking
entry, and a sandbox without other rules does not track at all.

To open a socket there, to take rules away and to read them, a thread must be inside. To bind a socket and to load rules by
one that is open already it need not: so what every sandbox may come to need is opened along with it (`prepare`), and its first
network with names costs no way in.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any

from nftables import Nftables

from netengine.errors import KernelRefused
from netengine.kernel import namerules, nfbatch
from netengine.kernel.descriptors import moved_up
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


@dataclass(frozen=True, slots=True)
class Prepared:
    """Sockets of a sandbox that are of no use yet: for datagrams, for streams, and to load rules by."""

    udp: socket.socket
    tcp: socket.socket
    rules: socket.socket

    def close(self) -> None:
        for opened in (self.udp, self.tcp, self.rules):
            opened.close()


def prepare() -> Prepared:
    """Open what a name service is made from. The calling thread is in the sandbox."""
    with ExitStack() as opened:
        udp, tcp = (opened.enter_context(_socket(kind)) for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM))
        prepared = Prepared(udp, tcp, opened.enter_context(nfbatch.open_socket()))
        opened.pop_all()
    return prepared


def upstream_sockets(own_servers: Sequence[int]) -> list[socket.socket]:
    """Sockets to ask a sandbox's own servers from, if it has any (4, 6: their families). The calling thread is inside."""
    families = [socket.AF_INET if version == 4 else socket.AF_INET6 for version in sorted(own_servers)]
    with ExitStack() as opened:
        out = [
            opened.enter_context(_socket(socket.SOCK_DGRAM, family))
            for family in islice(cycle(families), _UPSTREAM_DATAGRAMS if families else 0)
        ]
        for family in families:
            out += [opened.enter_context(_socket(socket.SOCK_STREAM, family)) for _ in range(_UPSTREAM_STREAMS)]
        opened.pop_all()
    return out


def serve(prepared: Prepared) -> list[socket.socket]:
    """Let the name server be reached by these: a UDP and a listening TCP socket for it, and the rules that lead there. From any
    thread; the sandbox's `lo` is up. What is not handed out is closed."""
    try:
        for opened in (prepared.udp, prepared.tcp):
            opened.bind((ADDRESS, 0))
        prepared.tcp.listen(_BACKLOG)
        _load(prepared.rules, prepared.udp.getsockname()[1], prepared.tcp.getsockname()[1])
    except BaseException:
        prepared.close()
        raise
    prepared.rules.close()
    return [prepared.udp, prepared.tcp]


def _load(sock: socket.socket, udp: int, tcp: int) -> None:
    try:
        namerules.load(sock, udp, tcp)
    except OSError:
        # Rules of an earlier life, as a rule. Removing them costs the kernel some 12 ms, so it is not done on every start.
        try:
            namerules.load(sock, udp, tcp, afresh=True)
        except OSError as e:
            raise KernelRefused(f"nftables refused the rules for {ADDRESS}: {e.strerror or e}") from None


def _socket(kind: int, family: int = socket.AF_INET) -> socket.socket:
    return moved_up(socket.socket(family, kind | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK))


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
