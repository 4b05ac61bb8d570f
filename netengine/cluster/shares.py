"""How much of an overlay network's addresses one node may have: bounds that managers keep, whoever asks. Pure.

A node that works asks for a block when it has no address left, and uses it at once. One that is broken, or somebody else's by
now, asks for more: it must not leave the others without.

    idle    a node has no more than so many blocks in which it has no endpoint
    kept    of the last quarter of a network's blocks each is for a node that has none
    lent    of a node's block the others get no more than half
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from ipaddress import ip_address, ip_network

from netengine.cluster import ranges
from netengine.cluster.mirror import Held
from netengine.cluster.records import BlockRecord
from netengine.model import Subnet

_MOST_IDLE = 4

Blocks = Mapping[str, Held[BlockRecord]]
"""Those of one network and family, by CIDR."""


def idle_limit(subnets: Iterable[Subnet]) -> int:
    """A quarter of the network's blocks, 1 to 4."""
    return max(1, min(_MOST_IDLE, sum(map(ranges.count, subnets)) // 4))


def idle(blocks: Blocks, node: str, used: Iterable[str]) -> int:
    """How many blocks of a node have none of its endpoints, whose addresses are `used`."""
    addresses = [ip_address(a) for a in used]
    own = [ip_network(cidr) for cidr, held in blocks.items() if held.record.node == node]
    return sum(1 for block in own if not any(a in block for a in addresses))


def is_kept(subnets: Iterable[Subnet], blocks: Blocks, node: str, nodes: Iterable[str]) -> bool:
    """Whether what is left is for others: `nodes` are those of the cluster."""
    having = {held.record.node for held in blocks.values()}
    if node not in having:
        return False
    total = sum(map(ranges.count, subnets))
    free = total - sum(1 for held in blocks.values() if held.record.node)
    return free <= min(len(set(nodes) - having), total // 4)


def may_lend(cidr: str, record: BlockRecord) -> bool:
    """Whether one more address of a block can be lent. What belongs to nobody is not held back for anybody."""
    return not record.node or len(record.lent) < max(1, ip_network(cidr).num_addresses // 2)
