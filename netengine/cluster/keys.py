"""Where in etcd each thing is. All keys of a cluster are made and read here.

    /netengine/v1/secret/…                          the managers' alone
    /netengine/v1/shared/cluster                    ClusterRecord
    /netengine/v1/shared/nodes/NODE                 NodeRecord: what the managers say of a node
    /netengine/v1/shared/status/NODE                StatusRecord: what a node says of itself
    /netengine/v1/shared/alive/NODE                 there while the node's lease lasts
    /netengine/v1/shared/networks/NETWORK           NetworkRecord
    /netengine/v1/shared/vnis/VNI                   the id of the network that has it
    /netengine/v1/shared/blocks/NETWORK/BLOCK       BlockRecord: a range of addresses and the node that gives them away
    /netengine/v1/shared/endpoints/NODE/NETWORK/IP  EndpointRecord

Every node reads `shared`; it writes its own status, alive and endpoints, and a manager writes everything. That is said to etcd
as roles, so that the order of the parts of a key matters: what a node may write must have a prefix of its own.

BLOCK is written ADDRESS-LENGTH (10.0.1.16-28), since a key's parts are separated by slashes.
"""

from __future__ import annotations

ROOT = "/netengine/v1/"
SECRET = ROOT + "secret/"
SHARED = ROOT + "shared/"
CLUSTER = SHARED + "cluster"


def node(node_id: str) -> str:
    return f"{SHARED}nodes/{node_id}"


def status(node_id: str) -> str:
    return f"{SHARED}status/{node_id}"


def alive(node_id: str) -> str:
    return f"{SHARED}alive/{node_id}"


def network(network_id: str) -> str:
    return f"{SHARED}networks/{network_id}"


def vni(number: int) -> str:
    return f"{SHARED}vnis/{number}"


def blocks(network_id: str) -> str:
    """The prefix of all blocks of a network."""
    return f"{SHARED}blocks/{network_id}/"


def block(network_id: str, cidr: str) -> str:
    return blocks(network_id) + cidr.replace("/", "-")


def block_cidr(part: str) -> str:
    """The CIDR of a block from the last part of its key."""
    return "/".join(part.rsplit("-", 1))


def endpoints(node_id: str, network_id: str = "") -> str:
    """The prefix of all endpoints of a node, or of those it has on one network."""
    return f"{SHARED}endpoints/{node_id}/" + (f"{network_id}/" if network_id else "")


def endpoint(node_id: str, network_id: str, address: str) -> str:
    return endpoints(node_id, network_id) + address


def split(key: str) -> tuple[str, tuple[str, ...]]:
    """The kind of a shared key and the rest of its parts: ("endpoints", (node, network, address)). ("", ()) for any other."""
    if not key.startswith(SHARED):
        return "", ()
    kind, *parts = key.removeprefix(SHARED).split("/")
    return kind, tuple(parts)
