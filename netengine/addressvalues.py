"""The values of daemon.json that are addresses, ranges of them, and pools: the checks of each alone.

Of both families. What two values mean together is `config.py`'s business.
"""

from __future__ import annotations

import itertools
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
)
from typing import TypeVar

import msgspec

from netengine.errors import Invalid
from netengine.values import expect, integer, quote, string, texts

IPV6_MTU = 1280  # RFC 8200, section 5: the least that every link of IPv6 carries

SMALLEST_POOL_NETWORK = 30  # a /31 has no room for a gateway beside a container
SMALLEST_POOL_NETWORK_V6 = 126
LINK_LOCAL = IPv6Network("fe80::/64")
POOL_NETWORKS_LOG2 = (
    24  # an IPv4 pool may not be cut into more than 2**24 networks: beyond that a size is a typing error
)


_N = TypeVar("_N", IPv4Network, IPv6Network)


class AddressPool(msgspec.Struct, frozen=True):
    """A range for networks without a subnet of their own: `base` is cut into networks of prefix length `size`."""

    base: IPv4Network | IPv6Network
    size: int


def address_v4(value: object) -> IPv4Address:
    wanted = "an IPv4 address such as 192.0.2.1"
    text = string(value, wanted)
    try:
        return IPv4Address(text)
    except ValueError as error:
        raise Invalid(f"{quote(value)} is not {wanted} ({error})") from error


def address_v6(value: object) -> IPv6Address:
    wanted = "an IPv6 address such as 2001:db8::1"
    text = string(value, wanted)
    try:
        address = IPv6Address(text)
    except ValueError as error:
        raise Invalid(f"{quote(value)} is not {wanted} ({error})") from error
    if address.scope_id:
        raise Invalid(f"{quote(value)} is not {wanted}: leave the zone out")
    return address


def _network(value: object, wanted: str) -> IPv4Network:
    """Host bits are cut off, as Docker does in daemon.json."""
    return _parsed(value, wanted, IPv4Network)


def _network_v6(value: object, wanted: str) -> IPv6Network:
    network = _parsed(value, wanted, IPv6Network)
    if network != LINK_LOCAL and network.overlaps(LINK_LOCAL):
        raise Invalid(f"{quote(value)} clashes with the Link-Local prefix '{LINK_LOCAL}'; choose a range of fd00::/8")
    if reason := _unusable(network):
        raise Invalid(f"{quote(value)} {reason}; choose a range of fd00::/8, RFC 4193")
    return network


def _parsed(value: object, wanted: str, kind: type[_N]) -> _N:
    text = string(value, wanted)
    if "/" not in text:
        raise Invalid(f"{quote(value)} has no prefix length; it must be {wanted}")
    try:
        return kind(text, strict=False)
    except ValueError as error:
        raise Invalid(f"{quote(value)} is not {wanted} ({error})") from error


def _unusable(network: IPv4Network | IPv6Network) -> str | None:
    """Why containers can never live in this range, or None."""
    for name, taken in (
        ("multicast", IPv4Network("224.0.0.0/4")),
        ("loopback", IPv4Network("127.0.0.0/8")),
        ('"this network", RFC 791', IPv4Network("0.0.0.0/8")),
        ("reserved, RFC 1112", IPv4Network("240.0.0.0/4")),
        ("multicast", IPv6Network("ff00::/8")),
        ("loopback and addresses that stand for IPv4 ones", IPv6Network("::/64")),
    ):
        if network.version == taken.version and network.overlaps(taken):
            return f"overlaps {taken} ({name})"
    return None


def bip(value: object) -> IPv4Interface:
    wanted = "the bridge's address with its prefix length, such as 172.17.0.1/16"
    network = _network(value, wanted)
    interface = IPv4Interface(str(value))
    if network.prefixlen > SMALLEST_POOL_NETWORK:
        raise Invalid(f"{quote(value)} leaves no room for containers; the prefix length must be /30 or shorter")
    if interface.ip in (network.network_address, network.broadcast_address):
        which = "network" if interface.ip == network.network_address else "broadcast"
        raise Invalid(
            f"{quote(value)} is the {which} address of {network}, not a host's; "
            f"use {network.network_address + 1}/{network.prefixlen}"
        )
    if reason := _unusable(network):
        raise Invalid(f"{quote(value)} {reason}; choose a private range, RFC 1918")
    return interface


def bip6(value: object) -> IPv6Interface:
    wanted = "the bridge's IPv6 address with its prefix length, such as fd00:17::1/64"
    network = _network_v6(value, wanted)
    interface = IPv6Interface(str(value))
    if network.prefixlen > SMALLEST_POOL_NETWORK_V6:
        raise Invalid(f"{quote(value)} leaves no room for containers; the prefix length must be /126 or shorter")
    if interface.ip == network.network_address:
        raise Invalid(
            f"{quote(value)} is the subnet-router anycast address of {network}, RFC 4291; "
            f"use {network.network_address + 1}/{network.prefixlen}"
        )
    return interface


def fixed_cidr_v6(value: object) -> IPv6Network:
    return _network_v6(value, "a range for the default network's containers, such as fd00:17::/64")


def fixed_cidr(value: object) -> IPv4Network:
    return _network(value, "a range inside the bridge's network, such as 172.17.8.0/24")


def _pool(value: object) -> AddressPool:
    wanted = 'an object such as {"base": "172.30.0.0/16", "size": 24}'
    if not isinstance(value, dict):
        raise expect(value, wanted)
    if missing := {"base", "size"} - value.keys():
        raise Invalid(f"{quote(value)} lacks {' and '.join(sorted(missing))}; it must be {wanted}")
    if unknown := value.keys() - {"base", "size"}:
        raise Invalid(f"{quote(value)} has the unknown {', '.join(sorted(unknown))}; it must be {wanted}")
    wanted, base = "a base range such as 172.30.0.0/16", value["base"]
    base = _network_v6(base, wanted) if ":" in str(base) else _network(base, wanted)
    size = integer(value["size"], "a prefix length such as 24")
    smallest = SMALLEST_POOL_NETWORK if base.version == 4 else SMALLEST_POOL_NETWORK_V6
    if base.prefixlen > smallest:
        raise Invalid(f"base {base} is too small; its prefix length must be {smallest} or shorter")
    if not base.prefixlen <= size <= smallest:
        raise Invalid(
            f"size {size} does not fit base {base}; it must be a prefix length from {base.prefixlen} to {smallest}"
        )
    if base.version == 4 and size - base.prefixlen > POOL_NETWORKS_LOG2:
        raise Invalid(
            f"size {size} cuts base {base} into more than 2**{POOL_NETWORKS_LOG2} networks; use a shorter one"
        )
    if reason := _unusable(base):
        raise Invalid(f"base {base} {reason}; choose a private range, RFC 1918")
    return AddressPool(base, size)


def pools(value: object) -> tuple[AddressPool, ...]:
    if not isinstance(value, list):
        raise expect(value, 'a list of objects such as {"base": "172.30.0.0/16", "size": 24}')
    found = tuple(_pool(item) for item in value)
    ordered = sorted(found, key=lambda pool: (pool.base.version, int(pool.base.network_address), pool.base.prefixlen))
    for low, high in itertools.pairwise(ordered):
        if low.base.version == high.base.version and low.base.overlaps(high.base):
            raise Invalid(f"the bases {low.base} and {high.base} overlap; an address may belong to one pool only")
    return found


def binding(value: object) -> IPv4Address | IPv6Address:
    wanted = "an IP address of the host, such as 192.0.2.1 or 2001:db8::1"
    text = string(value, wanted)
    try:
        address = ip_address(text)
    except ValueError as error:
        raise Invalid(f"{quote(value)} is not {wanted} ({error})") from error
    unusable = address.is_multicast or address == IPv4Address("255.255.255.255")
    if unusable or (isinstance(address, IPv6Address) and (address.is_link_local or address.ipv4_mapped)):
        raise Invalid(
            f"{quote(value)} is not an address that a port can be published on; 0.0.0.0 means all of the host's"
        )
    return address


def host_gateways(value: object) -> tuple[str, ...]:
    addresses = texts(_gateway_address)(value)
    if len({":" in address for address in addresses}) < len(addresses):
        raise Invalid(f"{quote(value)} has two addresses of one family; give one of each at most")
    return addresses


def _gateway_address(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError as error:
        raise Invalid(f"{quote(text)} is not an IP address that containers reach the host at") from error
