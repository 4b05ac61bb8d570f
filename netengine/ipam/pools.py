"""The subnets that networks are made of: the default pools, the choice of a free one, and what may not overlap.

Nothing here knows networks by more than their subnet (and, for a message, their name). Which routes of the host count
is the caller's decision; a default route never does, or no subnet would be left.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import Protocol

from netengine.errors import Forbidden, Invalid

Network = IPv4Network | IPv6Network


class PoolLike(Protocol):
    """A block of addresses that is cut into subnets of one size."""

    @property
    def base(self) -> Network:
        """The block."""
        ...

    @property
    def size(self) -> int:
        """The prefix length of the subnets."""
        ...


@dataclass(frozen=True, slots=True)
class AddressPool:
    """`base` cut into subnets of prefix length `size`."""

    base: Network
    size: int


# Docker's local defaults: 31 subnets in all (moby, daemon/libnetwork/ipamutils).
DEFAULT_POOLS: tuple[AddressPool, ...] = (
    AddressPool(IPv4Network("172.17.0.0/16"), 16),
    AddressPool(IPv4Network("172.18.0.0/16"), 16),
    AddressPool(IPv4Network("172.19.0.0/16"), 16),
    AddressPool(IPv4Network("172.20.0.0/14"), 16),
    AddressPool(IPv4Network("172.24.0.0/14"), 16),
    AddressPool(IPv4Network("172.28.0.0/14"), 16),
    AddressPool(IPv4Network("192.168.0.0/16"), 20),
)


def ula_pool(host_id: str) -> AddressPool:
    """The unique local addresses (RFC 4193) of a host: a /48, cut into /64s, that stays the same for as long as its id does.

    The 40 bits of the global id are the fourth to eighth octet of the id's SHA-256, as in the Docker Engine.
    """
    digest = hashlib.sha256(host_id.encode()).digest()
    return AddressPool(IPv6Network((bytes([0xFD]) + digest[3:8] + bytes(10), 48)), 64)


def choose_subnet(
    pools: Sequence[PoolLike], *, in_use: Iterable[Network], routes: Iterable[Network], version: int = 4
) -> Network:
    """The first subnet of the pools that overlaps neither a network in use nor a route of the host.

    `version` is 4 or 6: pools of the other family are passed over. Raises `Invalid` when there is none.
    """
    wanted = [
        (pool.base, pool.size)
        for pool in pools
        if pool.base.version == version and pool.base.prefixlen <= pool.size <= pool.base.max_prefixlen
    ]
    networks, host_routes = _relevant(in_use, version), _relevant(routes, version)
    found = _first_free(wanted, networks + host_routes)
    if found is None:
        raise _exhausted(wanted, networks, host_routes)
    return found


def any_subnet(
    prefixlen: int,
    *,
    pools: Sequence[PoolLike] = DEFAULT_POOLS,
    in_use: Iterable[Network],
    routes: Iterable[Network],
    version: int = 4,
) -> Network:
    """The first free subnet of length `prefixlen` in the pools: what `--subnet 0.0.0.0/24` (or `::/64`) asks for.

    Raises `Invalid` when no pool is that large, or none has such a subnet left.
    """
    bases = [pool.base for pool in pools if pool.base.version == version]
    wanted = [(base, prefixlen) for base in bases if base.prefixlen <= prefixlen <= base.max_prefixlen]
    if not wanted:
        held = ", ".join(str(base) for base in bases) or f"none for IPv{version}"
        raise Invalid(
            f"invalid subnet {'0.0.0.0' if version == 4 else '::'}/{prefixlen}: no address pool is that large "
            f"(pools: {held}); ask for a smaller subnet or give a certain one"
        )
    networks, host_routes = _relevant(in_use, version), _relevant(routes, version)
    found = _first_free(wanted, networks + host_routes)
    if found is None:
        raise _exhausted(wanted, networks, host_routes)
    return found


def check_overlap(subnet: Network, others: Mapping[str, Iterable[Network]] | Iterable[tuple[str, Network]]) -> None:
    """Raise `Forbidden` when `subnet` overlaps the subnet of another network.

    `others` gives the subnets of each network by its name, either as a mapping or as (name, subnet) pairs.
    """
    if isinstance(others, Mapping):
        pairs: Iterable[tuple[str, Network]] = ((name, other) for name, subnets in others.items() for other in subnets)
    else:
        pairs = others
    for name, other in pairs:
        if other.version == subnet.version and subnet.overlaps(other):
            raise Forbidden(
                f"Pool overlaps with other one on this address space "
                f"({subnet} overlaps {other} of network {name}; choose another --subnet)"
            )


def _relevant(networks: Iterable[Network], version: int) -> list[Network]:
    return [network for network in networks if network.version == version and network.prefixlen > 0]


def _bounds(network: Network) -> tuple[int, int]:
    return int(network.network_address), int(network.broadcast_address)


def _merged(blocked: Iterable[Network]) -> list[tuple[int, int]]:
    """The blocked addresses as sorted intervals that do not overlap."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(_bounds(network) for network in blocked):
        if merged and first <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], last))
        else:
            merged.append((first, last))
    return merged


def _first_free(wanted: Iterable[tuple[Network, int]], blocked: Sequence[Network]) -> Network | None:
    """Walk from obstacle to obstacle, not from candidate to candidate: a /8 holds 65,536 candidates of /24."""
    obstacles = _merged(blocked)
    starts = [first for first, _ in obstacles]
    for base, size in wanted:
        step = 1 << (base.max_prefixlen - size)
        candidate, end = _bounds(base)
        while candidate + step - 1 <= end:
            index = bisect_right(starts, candidate + step - 1) - 1
            if index < 0 or obstacles[index][1] < candidate:
                return type(base)((candidate, size))
            candidate += ((obstacles[index][1] - candidate) // step + 1) * step
    return None


def _subnets(wanted: Iterable[tuple[Network, int]]) -> int:
    return sum(1 << (size - base.prefixlen) for base, size in wanted)


def _hit(wanted: Iterable[tuple[Network, int]], obstacles: Iterable[Network]) -> int:
    """How many of the pools' subnets overlap an obstacle."""

    def indexes() -> Iterator[tuple[int, int]]:
        for base, size in wanted:
            shift = base.max_prefixlen - size
            low, high = _bounds(base)
            for first, last in merged:
                if first <= high and last >= low:
                    yield max(first, low) >> shift, min(last, high) >> shift

    merged = _merged(obstacles)
    total, counted_to = 0, -1
    for first, last in sorted(indexes()):
        total += max(0, last - max(first, counted_to + 1) + 1)
        counted_to = max(counted_to, last)
    return total


def _exhausted(wanted: list[tuple[Network, int]], networks: list[Network], host_routes: list[Network]) -> Invalid:
    figures = f"{_subnets(wanted)} subnets in the pools, {_hit(wanted, networks)} used by other networks"
    guilty = [route for route in host_routes if any(route.overlaps(base) for base, _ in wanted)]
    if guilty:
        shown = ", ".join(str(route) for route in guilty[:5]) + (", ..." if len(guilty) > 5 else "")
        figures += f", {_hit(wanted, guilty)} skipped because of the host's routes {shown}"
    return Invalid(
        f"all predefined address pools have been fully subnetted ({figures}; "
        f"give a subnet with --subnet, or more pools with default-address-pools)"
    )
