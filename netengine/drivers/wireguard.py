"""What encrypted overlay networks go through: one WireGuard link for each host and cluster, with every other host as its peer.

A host's address in it is link-local and follows from who the host is: nobody has to give it away, and on another link it is
another's. VXLAN that uses such an address is bound to the WireGuard link: a frame that comes by any other is not taken. Pure.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

from netengine.drivers.addresses import IPV6_MTU
from netengine.drivers.underlay import Tunnel
from netengine.kernel.resources import Resource, WireGuard, WireGuardPeer

PORT = 51840
"""UDP. Not WireGuard's usual 51820: a host may have a link of its own there."""

_OUTER_IP = {4: 20, 6: 40}
_WIREGUARD = 8 + 16 + 16
"""UDP, the header of a data message, and its authentication tag."""


@dataclass(frozen=True, slots=True)
class Key:
    """The host's key pair: the public half in base64, and the file that holds the private one."""

    public: str
    file: str


@dataclass(frozen=True, slots=True)
class TunnelPeer:
    """Another host: its id, its public key, where it is reached (VTEP), and the port that it listens at."""

    node: str
    public_key: str
    vtep: str
    port: int = PORT


def tunnel_of(cluster: str, node: str, vtep: str, mtu: int) -> Tunnel:
    """A host's end. `mtu` is that of its underlay."""
    return Tunnel(f"wg-{cluster[:12]}", tunnel_address(cluster, node), tunnel_mtu(vtep, mtu))


def tunnel_mtu(vtep: str, mtu: int) -> int:
    """What a tunnel takes in one piece over an underlay of `mtu` bytes: 60 less over IPv4, 80 less over IPv6.

    Its ends have IPv6 addresses, and so it is not less than IPv6 needs: over a smaller underlay its packets go in fragments
    (ignore_df in drivers/net/wireguard/send.c).
    """
    return max(mtu - _OUTER_IP[ip_address(vtep).version] - _WIREGUARD, IPV6_MTU)


def underlay_mtu(vtep: str, mtu: int) -> int:
    """What the underlay must take in one piece so that the tunnel takes `mtu` bytes, more than it takes in any case."""
    return mtu + _OUTER_IP[ip_address(vtep).version] + _WIREGUARD


def tunnel_address(cluster: str, node: str) -> str:
    """The address inside WireGuard of any host of the cluster, by its id: what an encrypted network's `Peer.vtep` is."""
    digest = hashlib.sha256(f"{cluster}/{node}".encode()).digest()
    return str(IPv6Address(b"\xfe\x80" + bytes(6) + digest[:8]))


def render_wireguard(
    cluster: str, tunnel: Tunnel, key: Key, peers: Iterable[TunnelPeer], port: int = PORT
) -> frozenset[Resource]:
    """What exists on a host while it has endpoints on encrypted networks."""
    link = WireGuard(tunnel.link, f"{tunnel.address}/64", port, key.public, tunnel.mtu, key.file)
    return frozenset({link, *(_peer(cluster, tunnel.link, peer) for peer in peers)})


def _peer(cluster: str, link: str, peer: TunnelPeer) -> WireGuardPeer:
    shown = f"[{peer.vtep}]" if ":" in peer.vtep else peer.vtep
    allowed = (f"{tunnel_address(cluster, peer.node)}/128",)
    return WireGuardPeer(link, peer.public_key, f"{shown}:{peer.port}", allowed)
