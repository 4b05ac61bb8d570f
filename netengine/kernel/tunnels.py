"""Kernel resources of networks that span hosts: VXLAN links and what leads through them. Values only, a part of the union in
`resources`.

All of it lives in the host's network namespace.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Vxlan:
    """A VXLAN link (RFC 7348), a port of bridge `master`, up. It neither learns nor floods: frames go where an `Fdb` says, and
    ARP and neighbour solicitations are answered on the spot from its `Neighbour`s, or not at all.

    `vni` is the network's number on the wire, 1 to 2^24-1; `local` the host's own address, of either family, that frames are
    sent from (the VTEP); `port` the UDP port, here and on all other hosts.
    """

    name: str
    vni: int
    local: str
    port: int
    master: str
    mtu: int
    parent: str = ""
    """The one link by which frames come and go, where `local` is link-local; "": as the host routes. When it goes, the kernel
    deletes the VXLAN link too."""
    up: bool = True
    """False only in what is found."""

    @property
    def key(self) -> tuple[str, ...]:
        return ("vxlan", self.name)


@dataclass(frozen=True, slots=True)
class Fdb:
    """Frames to `mac` that leave by a VXLAN link go to the host with address `remote`. Permanent."""

    link: str
    mac: str
    remote: str
    via: str = ""
    """The link by which that host is reached, for a link-local `remote`."""

    @property
    def key(self) -> tuple[str, ...]:
        return ("fdb", self.link, self.mac)


@dataclass(frozen=True, slots=True)
class Neighbour:
    """Who has `address`, of either family, on a link: `mac`. Permanent."""

    link: str
    address: str
    mac: str

    @property
    def key(self) -> tuple[str, ...]:
        return ("neighbour", self.link, self.address)


@dataclass(frozen=True, slots=True)
class WireGuard:
    """A WireGuard link of the host's, up: the kernel's own, or a TUN link that a process of wireguard-go serves.

    `address` is the host's in it, link-local, in CIDR; `port` the UDP port that it listens at, on all addresses; `public_key`
    in base64, as `wg` shows it; `mtu` what goes in in one piece, in bytes. The private key is in `key_file` and nowhere else.
    """

    name: str
    address: str
    port: int
    public_key: str
    mtu: int
    key_file: str = field(default="", compare=False)
    """Where the private key is read when it is set: in base64, as `wg genkey` writes it. The kernel does not know it."""
    up: bool = True
    """False only in what is found."""

    @property
    def key(self) -> tuple[str, ...]:
        return ("wireguard", self.name)


@dataclass(frozen=True, slots=True)
class WireGuardPeer:
    """Another host, at `endpoint` (address:port), may send from, and is sent what is for, the addresses `allowed` (CIDR).
    It is who has the private key to `public_key`."""

    link: str
    public_key: str
    endpoint: str
    allowed: tuple[str, ...]

    @property
    def key(self) -> tuple[str, ...]:
        return ("wireguard-peer", self.link, self.public_key)
