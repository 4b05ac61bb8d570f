"""What a user's IPAM configuration must satisfy: text in, parsed addresses out, every mistake named at once.

The wordings are those of the Docker Engine, because scripts match on them. Nothing here knows the other networks:
overlaps with those are `pools.check_overlap`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_interface

from netengine.errors import Invalid
from netengine.ipam.pools import Network

Address = IPv4Address | IPv6Address

_LINK_LOCAL = IPv6Network("fe80::/64")  # RFC 4291, section 2.5.6
_MAPPED = IPv6Network("::ffff:0:0/96")  # RFC 4291, section 2.5.5.2


@dataclass(frozen=True, slots=True)
class IpamEntry:
    """One element of `IPAM.Config` as a client sent it: `""` for what it left out."""

    subnet: str = ""
    ip_range: str = ""
    gateway: str = ""
    aux: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class IpamConfig:
    """The same, checked. `wildcard`: any free subnet of that length is wanted (`0.0.0.0/24`, `::/64`)."""

    subnet: Network
    ip_range: Network | None = None
    gateway: Address | None = None
    aux: Mapping[str, Address] = field(default_factory=dict)

    @property
    def wildcard(self) -> bool:
        """Whether the subnet stands for any free one of its length."""
        return int(self.subnet.network_address) == 0


def check_ipam_config(entries: Iterable[IpamEntry]) -> tuple[IpamConfig, ...]:
    """Parse and check all entries; an entry without any value is left out.

    Raises `Invalid` that names every mistake in every entry, one a line, under `invalid network config:`.
    """
    problems: list[str] = []
    checked: list[IpamConfig] = []
    for entry in entries:
        config = _check(entry, problems)
        if config is None:
            continue
        for other in checked:
            if other.wildcard or config.wildcard:
                continue
            if other.subnet.version == config.subnet.version and other.subnet.overlaps(config.subnet):
                problems.append(
                    f"invalid subnet {config.subnet}: it overlaps {other.subnet} of the same network: "
                    f"multiple overlapping subnet configuration is not supported"
                )
        checked.append(config)
    if problems:
        raise Invalid("\n".join(["invalid network config:", *problems]))
    return tuple(checked)


def _check(entry: IpamEntry, problems: list[str]) -> IpamConfig | None:
    if not entry.subnet:
        if entry.ip_range or entry.gateway or entry.aux:
            given = entry.ip_range or entry.gateway or ", ".join(entry.aux.values())
            problems.append(
                f"invalid subnet: none given for {_shown(given)}: every ip-range or gateway must have a corresponding subnet"
            )
        return None
    subnet = _network(entry.subnet)
    if subnet is None:
        problems.append(f"invalid subnet {_shown(entry.subnet)}: invalid CIDR block notation")
        return None
    network, host_bits = subnet
    if host_bits:
        problems.append(f"invalid subnet {_shown(entry.subnet)}: it should be {network}")
    if reason := _unusable(network):
        problems.append(f"invalid subnet {_shown(entry.subnet)}: {reason}")
    return IpamConfig(
        subnet=network,
        ip_range=_check_range(entry.ip_range, network, problems),
        gateway=_check_address(entry.gateway, f"gateway {_shown(entry.gateway)}", network, problems),
        aux=dict(_check_aux(entry.aux, network, problems)),
    )


def _unusable(subnet: Network) -> str:
    """Why the addresses of a subnet cannot be given to endpoints, or ""."""
    if subnet.is_multicast or subnet.is_loopback:
        return f"{'multicast' if subnet.is_multicast else 'loopback'} addresses cannot be given to endpoints"
    if isinstance(subnet, IPv6Network):
        if subnet.overlaps(_LINK_LOCAL) and subnet != _LINK_LOCAL:
            return f"'{subnet}' clashes with the Link-Local prefix '{_LINK_LOCAL}', of which every link has an address"
        if int(subnet.network_address) and subnet.overlaps(_MAPPED):
            return f"'{subnet}' is not a valid IPv6 subnet: {_MAPPED} stands for IPv4 addresses"
    return ""


def _check_aux(aux: Mapping[str, str], subnet: Network, problems: list[str]) -> Iterator[tuple[str, Address]]:
    for name, text in aux.items():
        address = _check_address(text, f"auxiliary address {_shown(name)}", subnet, problems, required=True)
        if address is not None:
            yield name, address


def _check_range(text: str, subnet: Network, problems: list[str]) -> Network | None:
    if not text:
        return None
    parsed = _network(text)
    if parsed is None:
        problems.append(f"invalid ip-range {_shown(text)}: invalid CIDR block notation")
        return None
    ip_range, host_bits = parsed
    if ip_range.version != subnet.version:
        problems.append(f"invalid ip-range {text}: parent subnet is an IPv{subnet.version} block")
        return None
    if ip_range.prefixlen < subnet.prefixlen:
        problems.append(f"invalid ip-range {text}: CIDR block is bigger than its parent subnet {subnet}")
    if host_bits:
        problems.append(f"invalid ip-range {text}: it should be {ip_range}")
    if not subnet.overlaps(ip_range):
        problems.append(f"invalid ip-range {text}: parent subnet {subnet} doesn't contain ip-range")
    return ip_range


def _check_address(
    text: str, what: str, subnet: Network, problems: list[str], *, required: bool = False
) -> Address | None:
    if not text and not required:
        return None
    try:
        address = ip_address(text)
    except ValueError:
        problems.append(f"invalid {what}: invalid address")
        return None
    if address.version != subnet.version:
        problems.append(f"invalid {what}: parent subnet is an IPv{subnet.version} block")
        return None
    if address not in subnet:
        problems.append(f"invalid {what}: parent subnet {subnet} doesn't contain this address")
        return None
    return address


def _network(text: str) -> tuple[Network, bool] | None:
    """The network that `text` names and whether host bits were set; None when it is not `address/length`."""
    address, slash, length = text.partition("/")
    # The standard library also takes a netmask, a scope and `010`; Docker's netip takes the plain form only.
    if not slash or not length.isascii() or not length.isdigit() or (len(length) > 1 and length[0] == "0"):
        return None
    if "%" in address:
        return None
    try:
        interface = ip_interface(text)
    except ValueError:
        return None
    return interface.network, interface.ip != interface.network.network_address


def _shown(text: str) -> str:
    """What a message quotes of a user's text: enough to recognise it, not all 5,000 characters of garbage."""
    return text if len(text) <= 64 else f"{text[:61]}..."
