"""How the subnets of an overlay network are cut into blocks, and what of a block may be given away. Pure.

A block is as long as the subnet has blocks, roughly: 16 addresses of a /24, 256 of a /16. Of an IPv6 subnet the blocks are
those of its first 2^32 addresses, 65,536 each: more nobody gives away, and addresses stay short.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from netengine.errors import Invalid
from netengine.model import Network, Subnet

Address = IPv4Address | IPv6Address
Prefix = IPv4Network | IPv6Network

_BITS6, _BLOCK6 = 32, 16
"""Of an IPv6 subnet: the bits that vary from address to address, and those of them within a block."""


def length_of(subnet: Prefix) -> int:
    """The prefix length of a subnet's blocks."""
    host = subnet.max_prefixlen - subnet.prefixlen
    inner = host // 2 if subnet.version == 4 else min(_BLOCK6, host // 2)
    return subnet.max_prefixlen - inner


def block_of(subnet: Prefix, address: Address) -> Prefix:
    return ip_network((int(address), length_of(subnet)), strict=False) if subnet.version == address.version else subnet


def subnet_of(network: Network, address: Address) -> Subnet:
    """Raises Invalid, with Docker's text, when the network has no subnet with this address."""
    for subnet in network.subnets:
        if address in ip_network(subnet.subnet):
            return subnet
    subnets = ", ".join(s.subnet for s in network.subnets)
    raise Invalid(f"no configured subnet contains IP address {address} (network {network.name} has {subnets})")


def dynamic_range(subnet: Subnet) -> Prefix:
    """What addresses are taken from that nobody asked for by name."""
    return ip_network(subnet.ip_range or subnet.subnet)


def reserved(subnet: Subnet) -> frozenset[Address]:
    """What no endpoint gets: the edges of the subnet, its gateway, the auxiliary addresses."""
    prefix = ip_network(subnet.subnet)
    out = {ip_address(a) for a in (subnet.gateway, *subnet.aux.values()) if a}
    if prefix.max_prefixlen - prefix.prefixlen >= 2:
        out.add(prefix[0])
        if prefix.version == 4:
            out.add(prefix[-1])
    return frozenset(out)


def blocks(subnet: Subnet) -> Iterator[Prefix]:
    """The blocks from which addresses are given away, lowest first; those without a single one are left out."""
    prefix, wanted, taken = ip_network(subnet.subnet), dynamic_range(subnet), reserved(subnet)
    first, last = int(wanted.network_address), int(wanted.broadcast_address)
    if prefix.version == 6:
        last = min(last, first + (1 << _BITS6) - 1)
    length = length_of(prefix)
    size = 1 << (prefix.max_prefixlen - length)
    for start in range(first - first % size, last + 1, size):
        low, high = max(first, start), min(last, start + size - 1)
        if sum(low <= int(a) <= high for a in taken) < high - low + 1:
            yield type(prefix)((start, length))


def count(subnet: Subnet) -> int:
    """How many blocks a subnet has, those without an address to give away included."""
    prefix, wanted = ip_network(subnet.subnet), dynamic_range(subnet)
    first, last = int(wanted.network_address), int(wanted.broadcast_address)
    if prefix.version == 6:
        last = min(last, first + (1 << _BITS6) - 1)
    size = 1 << (prefix.max_prefixlen - length_of(prefix))
    return last // size - first // size + 1


def addresses(subnet: Subnet, block: Prefix, after: Address | None = None) -> Iterator[Address]:
    """What may be given away of a block, each once: first those after an address, then those before."""
    wanted, taken = dynamic_range(subnet), reserved(subnet)
    first = max(int(wanted.network_address), int(block.network_address))
    last = min(int(wanted.broadcast_address), int(block.broadcast_address))
    kind = IPv4Address if block.version == 4 else IPv6Address
    begin = int(after) + 1 if after is not None and first <= int(after) < last else first
    for span in (range(begin, last + 1), range(first, begin)):
        for number in span:
            address = kind(number)
            if address not in taken:
                yield address
