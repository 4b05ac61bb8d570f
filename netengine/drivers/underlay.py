"""The network of a host that overlay networks lie on, as far as what they render depends on it: what differs from host to host,
and so is in no record that the hosts share. Pure values and the arithmetic of MTUs.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address

DATA_PATH_PORT = 4789
"""The UDP port of VXLAN, RFC 7348."""

_OUTER_IP = {4: 20, 6: 40}
_VXLAN = 8 + 8 + 14
"""UDP, the VXLAN header (RFC 7348, section 5), and the Ethernet header of the frame inside."""


@dataclass(frozen=True, slots=True)
class Tunnel:
    """The host's WireGuard link, which encrypted networks go through: its name, the host's address in it, and what it takes in
    one piece, in bytes."""

    link: str
    address: str
    mtu: int


@dataclass(frozen=True, slots=True)
class Underlay:
    """One host. `vtep` is its address, of either family, that the others send VXLAN to; `mtu` that of the link with this
    address, in bytes; `port` the cluster's data path port (UDP)."""

    vtep: str
    mtu: int
    port: int = DATA_PATH_PORT
    tunnel: Tunnel | None = None
    """None while the host has no encrypted network."""


@dataclass(frozen=True, slots=True)
class Peer:
    """An endpoint on another host: its MAC, its addresses of either family without prefix length, and the address of its host:
    of an encrypted network the one inside WireGuard."""

    mac: str
    addresses: tuple[str, ...]
    vtep: str


def outer_mtu(mtu: int, vtep: str) -> int:
    """What a packet outside must be able to have so that one inside may have `mtu` bytes."""
    return mtu + _OUTER_IP[ip_address(vtep).version] + _VXLAN


def inner_mtu(mtu: int, vtep: str) -> int:
    """What a packet inside may have when one outside may have `mtu` bytes: 50 less over IPv4, 70 less over IPv6."""
    return mtu - _OUTER_IP[ip_address(vtep).version] - _VXLAN
