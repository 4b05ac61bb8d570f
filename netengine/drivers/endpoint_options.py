"""What a user may ask of an endpoint whatever the driver of its network is: `--driver-opt`, link-local addresses, and the
options of a network that say how its endpoints are named and announced.

Parsing and rendering, both pure. What a driver makes of an endpoint is the driver's business; this comes on top of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address

from netengine.errors import Invalid
from netengine.kernel.resources import HOST, Address, Resource, Sysctl, TokenBucket
from netengine.model import Endpoint, Network

SYSCTLS = "com.docker.network.endpoint.sysctls"
IFNAME = "com.docker.network.endpoint.ifname"
RATE, RATE_IN, RATE_OUT = "rate", "rate_in", "rate_out"
_KNOWN = (SYSCTLS, IFNAME, RATE, RATE_IN, RATE_OUT)

PREFIX = "com.docker.network.container_iface_prefix"
ANNOUNCEMENTS = "com.docker.network.advertise_addr_nmsgs"
INTERVAL = "com.docker.network.advertise_addr_ms"
NETWORK_OPTIONS = (PREFIX, ANNOUNCEMENTS, INTERVAL)
"""Options of `network create` that every driver with links knows; `check_network` looks at their values."""

DEFAULT_PREFIX = "eth"
_PLACEHOLDER = "IFNAME"
_LINK_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}")
_LINK_PREFIX = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,11}")
_SYSCTL_PART = re.compile(r"[A-Za-z0-9_]{1,40}")
_RATE = re.compile(r"(?P<number>[0-9]{1,15}(\.[0-9]{1,6})?)((?P<prefix>[kmgt])(?P<binary>i)?)?(?P<unit>bit|bps)?")
_RATES = (8_000, 10**12)
_RANGES = {ANNOUNCEMENTS: (0, 3, 3), INTERVAL: (100, 2000, 1000)}
"""Least, most, default: how often an address is announced, and the milliseconds in between."""

_LINK_LOCAL_LENGTH = {4: 16, 6: 64}  # RFC 3927, RFC 4291 section 2.5.6


@dataclass(frozen=True, slots=True)
class EndpointOptions:
    """`--driver-opt`, understood. `sysctls` are values by path, with IFNAME where the link's name goes; `link` is "" when
    netengine chooses the name."""

    sysctls: Mapping[str, str] = field(default_factory=dict)
    link: str = ""
    rate_in: int = 0
    rate_out: int = 0
    """Bits per second to and from the container; 0 for no limit."""


def parse(options: Mapping[str, str]) -> EndpointOptions:
    """Raises Invalid for an option that is not known and for a value that cannot be."""
    for key in options:
        if key not in _KNOWN:
            raise Invalid(f"unknown endpoint option {key[:60]!r}; known are {', '.join(_KNOWN)}")
    link = options.get(IFNAME, "")
    if IFNAME in options and (not _LINK_NAME.fullmatch(link) or link in ("lo", "all", "default")):
        raise Invalid(
            f"invalid value {link[:40]!r} for {IFNAME}: an interface name has 1 to 15 letters, digits, '-', '_' or '.', "
            "and is not lo, all or default"
        )
    both = _rate(options, RATE)
    rate_in, rate_out = _rate(options, RATE_IN) or both, _rate(options, RATE_OUT) or both
    return EndpointOptions(dict(_sysctls(options.get(SYSCTLS, ""))), link, rate_in, rate_out)


def _rate(options: Mapping[str, str], key: str) -> int:
    """A rate with tc's units, as bits per second: bit, kbit, mbit, gbit, tbit; the same with bps for bytes; ki, mi, ... for
    powers of 1,024; a bare number is bits."""
    if key not in options:
        return 0
    text = options[key]
    match = _RATE.fullmatch(text.strip().lower())
    if match is None:
        raise Invalid(
            f"invalid value {text[:40]!r} for {key}: write a rate as tc does: 10mbit, 1.5gbit, or 500kbps for bytes"
        )
    exponent = " kmgt".index(match["prefix"] or " ")
    bits = (
        float(match["number"]) * (1024 if match["binary"] else 1000) ** exponent * (8 if match["unit"] == "bps" else 1)
    )
    low, high = _RATES
    if not low <= bits <= high:
        raise Invalid(f"invalid value {text[:40]!r} for {key}: it must be from 8kbit to 1tbit")
    return int(bits) // 8 * 8


def _sysctls(text: str) -> Iterable[tuple[str, str]]:
    for entry in text.split(",") if text else ():
        name, equals, value = entry.strip().partition("=")
        parts = name.split(".")
        # The docker CLI writes values of --network in lower case.
        named = all(map(_SYSCTL_PART.fullmatch, parts))
        if not equals or not named or len(parts) != 5 or parts[0] != "net" or parts[3].upper() != _PLACEHOLDER:
            raise Invalid(
                f"invalid value {entry[:60]!r} in {SYSCTLS}: write net.X.Y.IFNAME.Z=V, as in "
                "net.ipv4.conf.IFNAME.log_martians=1"
            )
        if not value or not value.isprintable():
            raise Invalid(f"invalid value {value[:40]!r} of sysctl {name} in {SYSCTLS}")
        yield "/".join([*parts[:3], _PLACEHOLDER, parts[4]]), value


def check_network(options: Mapping[str, str]) -> None:
    """Check the values of NETWORK_OPTIONS. Raises Invalid."""
    prefix = options.get(PREFIX, DEFAULT_PREFIX)
    if not _LINK_PREFIX.fullmatch(prefix) or prefix == "lo":
        raise Invalid(
            f"invalid value {prefix[:40]!r} for {PREFIX}: it has 1 to 12 letters, digits, '-' or '_', begins with a letter, "
            "and is not lo"
        )
    for name, (low, high, _) in _RANGES.items():
        value = options.get(name, str(low))
        if not re.fullmatch(r"[0-9]{1,4}", value) or not low <= int(value) <= high:
            raise Invalid(f"invalid value {value[:40]!r} for {name}: it must be a number from {low} to {high}")


def link_prefix(network: Network) -> str:
    return network.options.get(PREFIX, DEFAULT_PREFIX)


def announcements(network: Network) -> tuple[int, int]:
    """How often the address of a new endpoint is announced, and the milliseconds in between."""
    times, interval = (int(network.options.get(name, default)) for name, (_, _, default) in _RANGES.items())
    return times, interval


def link_local(text: str) -> str:
    """A link-local address as CIDR, with the prefix length of its range. Raises Invalid for any other address."""
    try:
        address = ip_address(text)
    except ValueError:
        raise Invalid(f"invalid link-local IP address: {text[:60]!r}") from None
    if not address.is_link_local or "%" in text:
        raise Invalid(
            f"invalid link-local IP address {text[:60]!r}: it must be within 169.254.0.0/16 or fe80::/10, without a zone"
        )
    return f"{address}/{_LINK_LOCAL_LENGTH[address.version]}"


def render(network: Network, endpoint: Endpoint) -> frozenset[Resource]:
    """What the options and link-local addresses of an endpoint make in its sandbox. Where a driver sets the same sysctl, this
    one counts: a user has asked for it."""
    if not endpoint.link:
        return frozenset()
    ns, link = endpoint.sandbox_id, endpoint.link
    out: set[Resource] = {Address(ns, link, interface) for interface in endpoint.link_local}
    if announcements(network)[0] == 0:
        out.add(Sysctl(ns, f"net/ipv4/conf/{link}/arp_notify", "0"))
        if endpoint.address6:
            out.add(Sysctl(ns, f"net/ipv6/conf/{link}/ndisc_notify", "0"))
    if endpoint.rate_in and endpoint.host_link:
        out.add(TokenBucket(HOST, endpoint.host_link, endpoint.rate_in))
    if endpoint.rate_out:
        out.add(TokenBucket(ns, link, endpoint.rate_out))
    return over(out, {Sysctl(ns, path, value) for path, value in sysctls(endpoint).items()})


def sysctls(endpoint: Endpoint) -> dict[str, str]:
    """The sysctls that were asked for of an endpoint's link, by path."""
    return {_path(endpoint.link, path): value for path, value in endpoint.sysctls.items()}


def _path(link: str, path: str) -> str:
    return path.replace(f"/{_PLACEHOLDER}/", f"/{link}/")


def over(below: Iterable[Resource], above: Iterable[Resource]) -> frozenset[Resource]:
    """Both sets, and of two resources with one key the one that is above."""
    above = frozenset(above)
    if not above:
        return frozenset(below)
    keys = {r.key for r in above}
    return above | {r for r in below if r.key not in keys}
