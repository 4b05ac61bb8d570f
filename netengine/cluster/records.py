"""What a cluster keeps in etcd: plain data, as JSON. What each is and who writes it stands in keys.py.

A record never says its own version: that is the revision of etcd in which its key was last written (`Held.revision` of the
mirror), which is also the Version.Index of Docker's API. Fields are added with a default and never change their meaning, so
that daemons of two versions can share a cluster.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import field

from netengine.model import Network

JsonDict = dict[str, Any]

DATA_PATH_PORT = 4789
"""Of VXLAN, registered with IANA (RFC 7348)."""

CONTROL_PORT = 2377
FIRST_VNI, LAST_VNI = 4096, 2**24 - 1
LEASE_SECONDS = 15
"""A node is down when it has not been heard of for this long, unless the cluster's specification says otherwise."""

_LEASE_LEAST, _LEASE_MOST = 3, 3600

MANAGER, WORKER = "manager", "worker"


NO_MEMBER = "-"
"""Of one that manages a cluster whose etcd is not its managers'."""


class ClusterRecord(msgspec.Struct, kw_only=True):
    """The cluster as a whole. Times are RFC 3339 in UTC."""

    id: str
    created: str
    updated: str = ""
    spec: JsonDict = field(default_factory=dict)
    """SwarmSpec of the Docker Engine API, as its user gave it."""
    trust: str = ""
    """The certificates of the authorities whose word counts, PEM: one, two while the authority is being changed."""
    rotating: bool = False
    data_path_port: int = DATA_PATH_PORT
    pools: list[str] = field(default_factory=lambda: ["10.0.0.0/8"])
    """Where subnets of overlay networks are taken from, in CIDR."""
    subnet_size: int = 24
    """The prefix length of such a subnet."""
    vnis: tuple[int, int] = (FIRST_VNI, LAST_VNI)
    """The first and the last identifier that a network gets when its user names none."""
    store: list[str] = field(default_factory=list)
    """The URLs of an etcd that the cluster does not run itself; none when its managers do."""
    store_roots: str = ""
    """Of that one: by which its certificates are judged, PEM; "" for those that a host trusts anyway."""
    store_users: bool = True
    """Whether it asks for users: without, every node may read and write everything."""


def lease_seconds(cluster: ClusterRecord | None) -> int:
    """After how long without a sign of life a node is down: three heartbeats (Spec.Dispatcher.HeartbeatPeriod, nanoseconds)."""
    spec = cluster.spec if cluster else {}
    period = spec.get("Dispatcher", {}).get("HeartbeatPeriod") or 0
    return min(max(_LEASE_LEAST, 3 * period // 1_000_000_000), _LEASE_MOST) if period else LEASE_SECONDS


class NodeRecord(msgspec.Struct, kw_only=True):
    """What the managers say of a node. `address` is where other nodes reach its control plane."""

    id: str
    name: str
    """The host name."""
    role: str = WORKER
    availability: str = "active"
    """active, pause or drain."""
    labels: dict[str, str] = field(default_factory=dict)
    address: str = ""
    member: str = ""
    """A manager's number among the members of etcd, in hexadecimal, or NO_MEMBER; "" for none (yet)."""
    serial: str = ""
    """Of the certificate that it has, in hexadecimal."""
    issuer: str = ""
    """The SHA-256 digest of the authority's certificate that signed it, in hexadecimal."""
    created: str = ""
    updated: str = ""


class StatusRecord(msgspec.Struct, kw_only=True):
    """What a node says of itself. `data_path` is the address of its tunnels' ends (VTEP)."""

    data_path: str
    engine: str = ""
    """netengine's version."""
    architecture: str = "x86_64"
    nano_cpus: int = 0
    memory: int = 0
    """Bytes."""
    wireguard_key: str = ""
    """Its public key, in base64."""
    wireguard_port: int = 0


class NetworkRecord(msgspec.Struct, kw_only=True):
    """An overlay network: what is the same on all hosts."""

    network: Network
    vni: int


class BlockRecord(msgspec.Struct, kw_only=True):
    """Addresses that one node gives away without asking. With `node` "" each is claimed singly, and all are in `lent`."""

    node: str = ""
    lent: dict[str, str] = field(default_factory=dict)
    """Addresses that another node has, by address: the id of that node."""


class EndpointRecord(msgspec.Struct, kw_only=True):
    """A container on an overlay network, as the other hosts need to know it. The addresses are in CIDR, "" for none."""

    id: str
    container_id: str
    name: str
    mac: str
    address: str = ""
    address6: str = ""
    names: list[str] = field(default_factory=list)
    """Under which it is known on the network: its aliases, the short id, its host name."""
