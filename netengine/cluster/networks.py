"""Overlay networks in the cluster's store: made and removed by managers, in one transaction each.

That a name, a subnet or a VNI is free is checked with what was read, and the transaction demands that no network was made
since. Which options a network has and where its subnets come from is the engine's business: it fills a draft.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import msgspec

from netengine.cluster import keys
from netengine.cluster.records import FIRST_VNI, LAST_VNI, EndpointRecord, NetworkRecord
from netengine.errors import Conflict, Forbidden, NotFound, Unavailable
from netengine.model import Network
from netengine.store.etcd import Compare, Delete, Entry, Etcd, Get, Put

_NETWORKS, _VNIS, _ENDPOINTS = keys.SHARED + "networks/", keys.SHARED + "vnis/", keys.SHARED + "endpoints/"
_TRIES = 20

Fill = Callable[[list[Network]], Network]
"""Answers the network to be made, complete but for its VNI, when it knows all that there are. Raises what forbids it."""


@dataclass(frozen=True, slots=True)
class User:
    """An endpoint that keeps a network from being removed."""

    node: str
    record: EndpointRecord


async def create(etcd: Etcd, fill: Fill, vnis: tuple[int, int] = (FIRST_VNI, LAST_VNI)) -> tuple[Network, int]:
    """The network as it was made, and the revision in which. Raises Conflict when the name or the VNI is taken, Unavailable."""
    for _ in range(_TRIES):
        read = await etcd.transact((), [Get(_NETWORKS, prefix=True), Get(_VNIS, prefix=True)])
        others = [msgspec.json.decode(e.value, type=NetworkRecord).network for e in read.read[0]]
        network = fill(others)
        if any(other.name == network.name for other in others):
            raise Conflict(f"network with name {network.name} already exists")
        if network.overlay is None:
            raise TypeError(f"network {network.name} was not settled by the overlay driver")
        wished = network.overlay.vni
        used = {int(e.key.rpartition("/")[2]) for e in read.read[1]}
        if wished in used:
            holder = next((n.name for n in others if n.overlay and n.overlay.vni == wished), "another network")
            raise Conflict(f"VXLAN network identifier {wished} is in use by network {holder}: choose another")
        vni = network.overlay.vni = wished or next_vni(used, *vnis)
        record = NetworkRecord(network=network, vni=vni)
        outcome = await etcd.transact(
            [
                Compare(_NETWORKS, "MOD", read.revision + 1, prefix=True, result="LESS"),
                Compare(keys.vni(vni), "VERSION", 0),
            ],
            [
                Put(keys.network(network.id), msgspec.json.encode(record)),
                Put(keys.vni(vni), msgspec.json.encode(network.id)),
            ],
        )
        if outcome.succeeded:
            return network, outcome.revision
        network.overlay.vni = wished
    raise Unavailable("too many networks are made in the cluster at this moment: try again")


def next_vni(used: Iterable[int], first: int = FIRST_VNI, last: int = LAST_VNI) -> int:
    """The one after the highest, so that a host that has missed a removal is not taken for one of the new network; the lowest
    free one when that was the last. Raises Unavailable when there is none."""
    taken = {n for n in used if first <= n <= last}
    following = max(taken, default=first - 1) + 1
    if following <= last:
        return following
    if len(taken) > last - first:
        raise Unavailable(
            f"all VXLAN network identifiers from {first} to {last} are in use: remove an overlay network, or name a free "
            "one with -o com.docker.network.driver.overlay.vxlanid_list=NUMBER"
        )
    return next(n for n in range(first, last + 1) if n not in taken)


async def remove(etcd: Etcd, network_id: str) -> tuple[list[User], int]:
    """Remove a network that no node has an endpoint on; the endpoints that forbid it, and the revision. Raises NotFound,
    Unavailable."""
    for _ in range(_TRIES):
        read = await etcd.transact((), [Get(keys.network(network_id)), Get(_ENDPOINTS, prefix=True)])
        found, endpoints = read.read
        if not found:
            raise NotFound(f"network {network_id} not found")
        record = msgspec.json.decode(found[0].value, type=NetworkRecord)
        users: dict[str, User] = {}
        for entry in endpoints:
            _, parts = keys.split(entry.key)
            if parts[1:2] == (network_id,):
                said = said_by(entry)
                users[said.id] = User(parts[0], said)
        if users:
            return list(users.values()), read.revision
        outcome = await etcd.transact(
            [
                Compare(keys.network(network_id), "MOD", found[0].modified),
                # Of whichever network: the keys of endpoints begin with their nodes.
                Compare(_ENDPOINTS, "MOD", read.revision + 1, prefix=True, result="LESS"),
            ],
            [
                Delete(keys.network(network_id)),
                Delete(keys.vni(record.vni)),
                Delete(keys.blocks(network_id), prefix=True),
            ],
        )
        if outcome.succeeded:
            return [], outcome.revision
    raise Unavailable("containers come to this network at this moment: try again")


def said_by(entry: Entry) -> EndpointRecord:
    """The record of an endpoint. A node may write what it likes below its name: of what cannot be read the key is shown."""
    try:
        return msgspec.json.decode(entry.value, type=EndpointRecord)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return EndpointRecord(id=entry.key, container_id="", name=entry.key.rpartition("/")[2][:80], mac="")


def in_use(network: Network, users: Iterable[User], name_of: Callable[[str], str]) -> Forbidden:
    """Docker's refusal, with who it is and where. `name_of` says what a node is called."""
    named = ", ".join(f'name:"{u.record.name}" id:"{u.record.id[:12]}" node:"{name_of(u.node)}"' for u in users)
    return Forbidden(
        f"error while removing network: network {network.name} has active endpoints ({named}); "
        "disconnect them first, with network disconnect -f, each on its node"
    )
