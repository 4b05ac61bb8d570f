"""The address flags of `network create` put together as the API's IPAM configuration. Pure."""

from __future__ import annotations

import ipaddress

from netengine.errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from netengine.cli.engine import Json

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def assemble(
    subnets: Sequence[str], ranges: Sequence[str], gateways: Sequence[str], auxiliary: Mapping[str, str]
) -> list[Json]:
    """One entry per subnet, with the range, gateway and auxiliary addresses that lie inside it.

    Only what the daemon cannot see any more is judged here: which subnet a value belongs to. The rest is the daemon's.
    """
    known: list[tuple[Network, Json]] = []
    for text in subnets:
        subnet = _network(text, "subnet")
        for other, _ in known:
            if other.version == subnet.version and other.overlaps(subnet):
                raise Invalid(f"multiple overlapping subnet configuration is not supported: {other} and {subnet}")
        known.append((subnet, {"Subnet": text}))
    for text in ranges:
        part = _network(text, "ip-range")
        _set(_home(known, part[0], text, "ip-range"), "IPRange", text)
    for text in gateways:
        _set(_home(known, _address(text, "gateway"), text, "gateway"), "Gateway", text)
    for name, text in auxiliary.items():
        entry = _home(known, _address(text, "aux-address"), text, "aux-address")
        entry.setdefault("AuxiliaryAddresses", {})[name] = text
    return [entry for _, entry in known]


def _set(entry: Json, key: str, text: str) -> None:
    if key in entry:
        raise Invalid(f"cannot configure {text} beside {entry[key]} on the same subnet {entry['Subnet']}: give one")
    entry[key] = text


def _home(
    known: Sequence[tuple[Network, Json]], address: ipaddress.IPv4Address | ipaddress.IPv6Address, text: str, flag: str
) -> Json:
    for subnet, entry in known:
        if address.version == subnet.version and address in subnet:
            return entry
    given = ", ".join(str(subnet) for subnet, _ in known) or "none is given"
    if flag == "aux-address":
        raise Invalid(f"no matching subnet for aux-address {text}: subnets: {given}")
    raise Invalid(f"every ip-range or gateway must have a corresponding subnet: {text} has none (subnets: {given})")


def _network(text: str, flag: str) -> Network:
    try:
        return ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise Invalid(f"invalid {flag} {text!r}: write it as an address and a prefix, such as 10.1.0.0/24") from None


def _address(text: str, flag: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        raise Invalid(f"invalid {flag} {text!r}: it is an IPv4 or IPv6 address, such as 10.1.0.1") from None
