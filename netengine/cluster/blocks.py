"""Which node gives away which addresses of an overlay network: no address twice, whoever is cut off from whom.

A node gives away what lies in its own blocks without asking. Blocks are got, addresses in another's block lent, and both given
back, by transactions of etcd, which managers make: for themselves, and for workers that ask them (`handler`). An address is
really had only by the transaction that publishes its endpoint, which demands that the block is as its node last saw it: so of
a node that publishes and a manager that lends the same address meanwhile, one fails and looks again.

    block free -> owned          acquire: nobody has the block
    address of another's lent    acquire: the owner has no endpoint with it, and the block is as it was
    endpoint published           publish: the block is as it was
    owned -> free                give_back: the node has no endpoint on the network, and the block is as it was
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import Any, Literal, Protocol

import msgspec

from netengine.cluster import keys, ranges, shares
from netengine.cluster.mirror import Held
from netengine.cluster.networks import said_by
from netengine.cluster.records import BlockRecord, EndpointRecord, NetworkRecord
from netengine.errors import Forbidden, Invalid, NotFound, Unavailable
from netengine.model import Network
from netengine.store.etcd import Compare, Delete, Entry, Etcd, Get, Put, Step

CALL = "blocks"
"""The name of `handler` among the calls of the control service."""

_TRIES = 20
IDLE_PATIENCE = 2.0
"""Seconds in which a node is expected to use a block that it has got."""

Blocks = Mapping[str, Held[BlockRecord]]
"""By CIDR."""


@dataclass(frozen=True, slots=True)
class View:
    """A network and its blocks as they were at one moment."""

    network: Network
    revision: int
    """In which the network's record was written."""
    blocks: Blocks

    def block_of(self, address: str) -> str:
        """The CIDR of the block that an address lies in. Raises Invalid."""
        wanted = ip_address(address)
        prefix = ip_network(ranges.subnet_of(self.network, wanted).subnet)
        return str(ranges.block_of(prefix, wanted))

    def may_give(self, node: str, address: str) -> Held[BlockRecord] | None:
        """The block by which a node may give an address away, or None."""
        held = self.blocks.get(self.block_of(address))
        if held is None:
            return None
        return held if held.record.lent.get(address, held.record.node) == node else None

    def unchanged(self) -> Compare:
        """The condition that the network still exists."""
        return Compare(keys.network(self.network.id), "MOD", self.revision)


async def read(etcd: Etcd, network_id: str) -> View:
    """Raises NotFound, Unavailable."""
    found = await etcd.transact((), [Get(keys.network(network_id)), Get(keys.blocks(network_id), prefix=True)])
    (networks, blocks) = found.read
    if not networks:
        raise NotFound(f"network {network_id} not found")
    record = msgspec.json.decode(networks[0].value, type=NetworkRecord)
    return View(record.network, networks[0].modified, dict(_block(entry) for entry in blocks))


def _block(entry: Entry) -> tuple[str, Held[BlockRecord]]:
    cidr = keys.block_cidr(entry.key.rpartition("/")[2])
    return cidr, Held(msgspec.json.decode(entry.value, type=BlockRecord), entry.modified)


# -- taken and lent ---------------------------------------------------------------------------------------------------


async def acquire(etcd: Etcd, network_id: str, node: str, version: Literal[4, 6], wanted: str = "") -> None:
    """See to it that a node may give away the wanted address, or another one of that family that is free.

    Raises Forbidden when the wanted one is taken, Unavailable when none is left or etcd does not answer, Invalid, NotFound.
    """
    for _ in range(_TRIES):
        view = await read(etcd, network_id)
        done = await (_certain(etcd, view, node, wanted) if wanted else _any(etcd, view, node, version))
        if done:
            return
    raise Unavailable(f"too many nodes ask for addresses of network {view.network.name} at this moment: try again")


async def _certain(etcd: Etcd, view: View, node: str, address: str) -> bool:
    if ip_address(address) in ranges.reserved(ranges.subnet_of(view.network, ip_address(address))):
        raise Forbidden(f"Address already in use ({address} is reserved on network {view.network.name})")
    cidr = view.block_of(address)
    held = view.blocks.get(cidr)
    if held is None or (not held.record.node and address not in held.record.lent):
        await _check_share(etcd, view, node, 6 if ":" in address else 4, kept=True)
        return await _own(etcd, view, node, cidr)
    holder = held.record.lent.get(address, held.record.node)
    if holder == node:
        return True
    if address in held.record.lent:
        raise Forbidden(f"Address already in use ({address} of network {view.network.name} is node {holder}'s)")
    if not shares.may_lend(cidr, held.record):
        raise Unavailable(
            f"{address} of network {view.network.name} lies in a block of node {held.record.node}, of which half is lent "
            "already: choose another address, or start the container there"
        )
    return await _lend(etcd, view, node, cidr, address)


async def _any(etcd: Etcd, view: View, node: str, version: Literal[4, 6]) -> bool:
    subnets = [s for s in view.network.subnets if s.version == version]
    for subnet in subnets:
        for cidr in map(str, ranges.blocks(subnet)):
            there = view.blocks.get(cidr)
            if there is None or not there.record.node:
                if not await _check_share(etcd, view, node, version):
                    break
                return await _own(etcd, view, node, cidr)
    for subnet in subnets:
        for cidr, held in view.blocks.items():
            block = ip_network(cidr)
            if held.record.node == node or block.network_address not in ip_network(subnet.subnet):
                continue
            if not shares.may_lend(cidr, held.record):
                continue
            used = {e.key.rpartition("/")[2] for e in await _endpoints(etcd, held.record.node, view.network.id)}
            for address in map(str, ranges.addresses(subnet, block)):
                if address not in used and address not in held.record.lent:
                    return await _lend(etcd, view, node, cidr, address)
    raise Unavailable(
        f"no available IPv{version} addresses on this network's address pools: {view.network.name} ({view.network.id}): "
        "all are in use in the cluster or kept for other nodes; remove a container, or make a network with a larger subnet"
    )


async def _check_share(etcd: Etcd, view: View, node: str, version: Literal[4, 6], *, kept: bool = False) -> bool:
    """Whether a node may have another block; False when those that are left are for others, or with `kept` Unavailable.

    Raises Unavailable when it has blocks that it does not use: after a while, since it may be about to.
    """
    subnets = [s for s in view.network.subnets if s.version == version]
    own = {cidr: held for cidr, held in view.blocks.items() if (":" in cidr) is (version == 6)}
    nodes = [e.key.rpartition("/")[2] for e in (await etcd.read(keys.node("")))[0]]
    if shares.is_kept(subnets, own, node, nodes):
        if kept:
            raise Unavailable(
                f"the blocks of network {view.network.name} that are left are for nodes that have none: choose another "
                "address, or make a network with a larger subnet"
            )
        return False
    limit, deadline = shares.idle_limit(subnets), asyncio.get_running_loop().time() + IDLE_PATIENCE
    while True:
        used = [e.key.rpartition("/")[2] for e in await _endpoints(etcd, node, view.network.id)]
        idle = shares.idle(own, node, used)
        if idle < limit:
            return True
        if asyncio.get_running_loop().time() >= deadline:
            raise Unavailable(
                f"node {node} has {idle} blocks of addresses of network {view.network.name} and no container in any of them: "
                f"it gets no more until it uses them ({limit} at most)"
            )
        await asyncio.sleep(0.1)


async def _own(etcd: Etcd, view: View, node: str, cidr: str) -> bool:
    held, key = view.blocks.get(cidr), keys.block(view.network.id, cidr)
    record = BlockRecord(node=node, lent=dict(held.record.lent) if held else {})
    free = Compare(key, "MOD", held.revision) if held else Compare(key, "VERSION", 0)
    return (await etcd.transact([free, view.unchanged()], [_put(key, record)])).succeeded


async def _lend(etcd: Etcd, view: View, node: str, cidr: str, address: str) -> bool:
    """False when somebody was faster. Raises Forbidden when the owner of the block has given the address away."""
    held, key = view.blocks[cidr], keys.block(view.network.id, cidr)
    owners = keys.endpoint(held.record.node, view.network.id, address)
    record = BlockRecord(node=held.record.node, lent={**held.record.lent, address: node})
    outcome = await etcd.transact(
        [Compare(key, "MOD", held.revision), Compare(owners, "VERSION", 0), view.unchanged()],
        [_put(key, record)],
        [Get(owners)],
    )
    if not outcome.succeeded and outcome.read[0]:
        said = said_by(outcome.read[0][0])
        raise Forbidden(f"Address already in use ({address} is container {said.name}'s on node {held.record.node})")
    return outcome.succeeded


# -- published --------------------------------------------------------------------------------------------------------


async def publish(etcd: Etcd, view: View, node: str, record: EndpointRecord) -> bool:
    """Make an endpoint known, and its addresses really this node's; False when a block is not what `view` says (any more)."""
    conditions, steps = [view.unchanged()], list[Step]()
    for address in addresses_of(record):
        held = view.may_give(node, address)
        if held is None:
            return False
        conditions.append(Compare(keys.block(view.network.id, view.block_of(address)), "MOD", held.revision))
        steps.append(_put(keys.endpoint(node, view.network.id, address), record))
    return (await etcd.transact(list(dict.fromkeys(conditions)), steps)).succeeded


def addresses_of(record: EndpointRecord) -> tuple[str, ...]:
    """The addresses of an endpoint without prefix length: each has a key of its own, and the first is the one to read."""
    return tuple(a.partition("/")[0] for a in (record.address, record.address6) if a)


async def withdraw(etcd: Etcd, node: str, places: Sequence[tuple[str, str]]) -> None:
    """Endpoints of a node are gone: (network, address) of each."""
    await etcd.transact((), [Delete(keys.endpoint(node, network_id, address)) for network_id, address in places])


# -- given back -------------------------------------------------------------------------------------------------------


async def give_back(etcd: Etcd, network_id: str, node: str) -> None:
    """Return what a node does not use: lent addresses that it has no endpoint with, and its blocks when it has none at all."""
    try:
        view = await read(etcd, network_id)
    except NotFound:
        return  # and all blocks with it
    used = {e.key.rpartition("/")[2] for e in await _endpoints(etcd, node, network_id)}
    for cidr, held in view.blocks.items():
        returned = [a for a, borrower in held.record.lent.items() if borrower == node and a not in used]
        leaves = held.record.node == node and not used
        if not returned and not leaves:
            continue
        key, whole = keys.block(network_id, cidr), keys.endpoints(node, network_id)
        conditions = [Compare(key, "MOD", held.revision)]
        conditions += [Compare(keys.endpoint(node, network_id, a), "VERSION", 0) for a in returned]
        conditions += [Compare(whole, "VERSION", 0, prefix=True)] if leaves else []
        lent = {a: n for a, n in held.record.lent.items() if a not in returned}
        left = BlockRecord(node="" if leaves else held.record.node, lent=lent)
        # Somebody who is faster has changed the block: then it is in use, and returned another time.
        await etcd.transact(conditions, [_put(key, left) if left.node or left.lent else Delete(key)])


async def forget(etcd: Etcd, node: str) -> None:
    """A node is gone for good, and can no longer write: its endpoints end, and its addresses are free."""
    await etcd.delete(keys.endpoints(node), prefix=True)
    entries, _ = await etcd.read(keys.SHARED + "networks/")
    for entry in entries:
        await give_back(etcd, entry.key.rpartition("/")[2], node)


async def _endpoints(etcd: Etcd, node: str, network_id: str) -> list[Entry]:
    return (await etcd.read(keys.endpoints(node, network_id)))[0] if node else []


def _put(key: str, record: msgspec.Struct) -> Put:
    return Put(key, msgspec.json.encode(record))


# -- asked for by workers ---------------------------------------------------------------------------------------------


class Request(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What a worker asks a manager for: an address (`acquire`), or that what it does not use is taken back."""

    do: Literal["acquire", "give back"]
    network: str
    version: Literal[4, 6] = 4
    address: str = ""


class Asker(Protocol):
    @property
    def node(self) -> str: ...


def handler(etcd: Etcd) -> Callable[[Asker, Any], Awaitable[Any]]:
    """What a manager registers with its control service as `CALL`. Who asks is what its certificate says."""

    async def answer(caller: Asker, payload: Any) -> Any:
        try:
            asked = msgspec.convert(payload, Request)
            if asked.address:
                ip_address(asked.address)
        except (msgspec.ValidationError, ValueError) as e:
            raise Invalid(f"a call of {CALL} that cannot be understood: {e}") from None
        if not asked.network.isalnum():
            raise Invalid(f"invalid network id {asked.network[:80]!r}")
        if asked.do == "acquire":
            await acquire(etcd, asked.network, caller.node, asked.version, asked.address)
        else:
            await give_back(etcd, asked.network, caller.node)
        return {}

    return answer
