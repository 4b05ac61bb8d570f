"""Where a host listens for its cluster, and under which address the others know it: given, or found. Pure.

The rules and messages are Docker's (daemon/cluster/listen_addr.go), with one of netengine's own: where only one link leads out
of the host by a default route, and has one address, that is the address.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from netengine.cluster.records import CONTROL_PORT
from netengine.errors import Invalid
from netengine.kernel.theirs import HostAddress

Address = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """A host's place on the network below the cluster. Addresses without a port or zone."""

    listen: str
    """The address that the control service listens on; 0.0.0.0 for all."""
    advertise: str
    """By which the other hosts reach it."""
    data_path: str
    """Where the tunnels of overlay networks end."""


def settle(listen: str, advertise: str, data_path: str, there: Sequence[HostAddress], uplink: str = "") -> Whereabouts:
    """From what was asked and what is `there`. Raises Invalid.

    `uplink` is the link of the host's default route, or "".
    """
    listen_on, port = _split(listen or "0.0.0.0", _BAD_LISTEN)
    _check_port(port)
    at = _named(listen_on, there, _BAD_LISTEN)
    if advertise:
        text, given = _split(advertise, _BAD_ADVERTISE)
        known_as = _named(text, there, _BAD_ADVERTISE)
        _check_port(given)
        if known_as.is_unspecified:
            raise Invalid(_BAD_ADVERTISE)
        _check_local(known_as, there, "advertise")
    elif not at.is_unspecified:
        known_as = at
    else:
        known_as = choose(there, uplink)
    if not at.is_unspecified and not at.is_loopback:
        _check_local(at, there, "listen")
    ends = known_as
    if data_path:
        ends = _named(data_path, there, _BAD_DATA_PATH)
        if ends.is_unspecified:
            raise Invalid(_BAD_DATA_PATH)
        _check_local(ends, there, "data path")
    return Whereabouts(str(at), str(known_as), str(ends))


_BAD_LISTEN = "listen address must be an IP address or network interface (with optional port number)"
_BAD_ADVERTISE = "advertise address must be a non-zero IP address or network interface (with optional port number)"
_BAD_DATA_PATH = "data path address must be a non-zero IP address or network interface (without a port number)"


def choose(there: Sequence[HostAddress], uplink: str = "") -> Address:
    """The one address that the host can only mean. Raises Invalid, in Docker's words, when there are several or none."""
    by_link: dict[str, list[Address]] = {}
    for found in there:
        by_link.setdefault(found.link, []).append(found.address)
    if uplink in by_link:
        by_link = {uplink: by_link[uplink]}
    chosen: dict[str, Address] = {}
    for link, addresses in by_link.items():
        four = [a for a in addresses if a.version == 4]
        several = four if len(four) > 1 else [a for a in addresses if a.version == 6]
        if len(several) > 1 and len(four) != 1:
            raise Invalid(
                "could not choose an IP address to advertise since this system has multiple addresses on interface "
                f"{link} ({several[0]} and {several[1]})"
            )
        chosen[link] = (four or addresses)[0]
    if not chosen:
        raise Invalid("could not find the system's IP address")
    if len(chosen) > 1:
        (link, one), (another, other), *_ = chosen.items()
        raise Invalid(
            "could not choose an IP address to advertise since this system has multiple addresses on different interfaces "
            f"({one} on {link} and {other} on {another})"
        )
    return next(iter(chosen.values()))


def _split(text: str, wrong: str) -> tuple[str, int]:
    """The host part and the port, 0 where none is given."""
    text = text.strip()
    if text.startswith("["):
        host, closed, rest = text[1:].partition("]")
        if not closed or (rest and not rest.startswith(":")):
            raise Invalid(wrong)
        port = rest[1:]
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    else:
        host, port = text, ""
    if port and not (port.isascii() and port.isdigit() and int(port[:6]) < 65536):
        raise Invalid(wrong)
    return host, int(port or 0)


def _check_port(port: int) -> None:
    if port not in (0, CONTROL_PORT):
        raise Invalid(f"invalid port {port}: managers of netengine listen on port {CONTROL_PORT}; leave the port out")


def with_port(address: str, port: int) -> str:
    """ADDRESS:PORT, IPv6 in brackets."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _named(text: str, there: Sequence[HostAddress], wrong: str) -> Address:
    """An address by itself or by the link that has it."""
    try:
        return ip_address(text)
    except ValueError:
        pass
    if not text or "/" in text:
        raise Invalid(wrong)
    found = [a.address for a in there if a.link == text]
    if not found:
        raise Invalid(f"{wrong}: there is no link {text[:40]!r} with an address that other hosts could reach")
    four = [a for a in found if a.version == 4] or found
    if len(four) > 1:
        raise Invalid(f"interface {text} has more than one IPv{four[0].version} address ({four[0]} and {four[1]})")
    return four[0]


def _check_local(address: Address, there: Sequence[HostAddress], what: str) -> None:
    if all(a.address != address for a in there):
        here = ", ".join(f"{a.address} ({a.link})" for a in there) or "none"
        raise Invalid(f"the {what} address {address} is not an address of this host, which has: {here}")
