"""Published ports: from what a user writes to wishes, and from wishes to ports of the host that are really held."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address

from netengine.drivers.bridge_options import ROUTED
from netengine.engine.core import Operation
from netengine.errors import Invalid
from netengine.kernel.hostports import PortAsk
from netengine.kernel.resources import Protocol
from netengine.model import Container, PortBinding, PublishedPort

log = logging.getLogger(__name__)

PROTOCOLS = ("tcp", "udp", "sctp")
_PORT = re.compile(r"[0-9]{1,5}")


@dataclass(frozen=True, slots=True)
class PortWish:
    """`container_port` reached from the host at `host_ip` ("" for the default), at one of `low` to `high` (0: any free)."""

    container_port: int
    protocol: Protocol
    host_ip: str
    low: int
    high: int


def _quoted(text: str) -> str:
    """Quoted, in part: what cannot be printed is ten characters each in quotes."""
    return repr(text) if len(repr(text)) <= 60 else repr(text)[:57] + "..."


def _number(text: str, what: str) -> int:
    if not _PORT.fullmatch(text) or not 0 <= int(text) <= 65535:
        raise Invalid(f"invalid {what} {_quoted(text)}: a port is a number from 1 to 65535")
    return int(text)


def parse_port(spec: str) -> tuple[int, Protocol]:
    """`80/tcp` or `80` as (port, protocol). Raises Invalid."""
    number, _, protocol = spec.partition("/")
    protocol = (protocol or "tcp").lower()
    if protocol not in PROTOCOLS:
        raise Invalid(f"invalid protocol {_quoted(protocol)} of port {_quoted(spec)}: it must be tcp, udp or sctp")
    port = _number(number, "container port")
    if port == 0:
        raise Invalid(f"invalid container port {_quoted(spec)}: a port is a number from 1 to 65535")
    return port, protocol  # type: ignore[return-value]  # narrowed by the test above


def port_range(text: str, what: str = "port") -> tuple[int, int]:
    """`80` or `80-90` as (first, last); (0, 0) for "". Raises Invalid."""
    if not text:
        return 0, 0
    low, dash, high = text.partition("-")
    first = _number(low, what)
    last = _number(high, what) if dash else first
    if last < first:
        raise Invalid(f"invalid range of {what}s {_quoted(text)}: it ends before it begins")
    return first, last


def _host_address(text: str) -> str:
    if not text:
        return ""
    try:
        if "%" in text:  # a zone may hold anything, and an address of the host that is not link-local has none
            raise ValueError(text)
        address = ip_address(text)
    except ValueError:
        raise Invalid(
            f"invalid host address {text[:60]!r} of a published port: give one of the host's IP addresses"
        ) from None
    if address.is_multicast or (address.version == 6 and (address.is_link_local or address.ipv4_mapped)):
        raise Invalid(
            f"cannot publish on {text[:60]}: give an address of the host that is neither multicast nor link-local"
        )
    return str(address)


def wishes(
    bindings: Mapping[str, list[PortBinding] | None], exposed: Mapping[str, object], publish_all: bool
) -> list[PortWish]:
    """All ports that are to be published. Raises Invalid for anything malformed: checked when a container is created."""
    out: list[PortWish] = []
    for spec, entries in bindings.items():
        port, protocol = parse_port(spec)
        for entry in entries or []:
            low, high = port_range(entry.host_port, "published port")
            out.append(PortWish(port, protocol, _host_address(entry.host_ip), low, high))
    if publish_all:
        bound = {(w.container_port, w.protocol) for w in out}
        for spec in exposed:
            port, protocol = parse_port(spec)
            if (port, protocol) not in bound:
                out.append(PortWish(port, protocol, "", 0, 0))
    # Certain ports first, so that a chosen one does not take what another asks for by number.
    return sorted(out, key=lambda w: (w.low == 0, w.low != w.high, w.container_port, w.protocol, w.host_ip))


def wishes_of(container: Container) -> list[PortWish]:
    return wishes(
        container.host_config.port_bindings or {},
        container.config.exposed_ports or {},
        container.host_config.publish_all_ports,
    )


@dataclass(frozen=True, slots=True)
class Ways:
    """How a sandbox is reached from the host: the gateway mode of the network that is its way out, by family; "" without one.

    `default` is where ports are published that name no address, 0.0.0.0 standing for everywhere. `listens6`: the host has
    IPv6, so that everywhere is [::] too.
    """

    ip: str = ""
    ip6: str = ""
    default: str = "0.0.0.0"
    listens6: bool = False

    def __bool__(self) -> bool:
        return bool(self.ip or self.ip6)

    def addresses(self, wish: PortWish) -> tuple[list[str], list[str]]:
        """Where a port is published: (addresses of the host whose port is taken, addresses of which none is, because the
        network of their family is routed). Docker's rules: what the container has no way in for is left out."""
        asked = [wish.host_ip or self.default]
        if asked == ["0.0.0.0"] and not wish.host_ip and (self.listens6 or self.ip6 == ROUTED):
            asked.append("::")
        taken: list[str] = []
        untaken: list[str] = []
        for address in asked:
            way = self._way(address, wish)
            if way:
                (untaken if way == ROUTED else taken).append(address)
        return taken, untaken

    def _way(self, address: str, wish: PortWish) -> str:
        if ":" not in address:
            return self.ip
        if self.ip6:
            return self.ip6
        # To a container without IPv6 the relay leads, which speaks no SCTP.
        return "" if self.ip == ROUTED or wish.protocol == "sctp" else self.ip


async def reserve(operation: Operation, asked: list[PortWish], ways: Ways) -> list[PublishedPort]:
    """Take a port of the host for each wish, of the same number on each of its addresses. Raises KernelRefused with Docker's
    text when one is taken."""
    return await settle(operation, [], asked, ways)


async def settle(
    operation: Operation, before: list[PublishedPort], asked: list[PortWish], ways: Ways
) -> list[PublishedPort]:
    """As `reserve`, for a container that has ports already, perhaps by another way than it has now: what fits is kept, and the
    same number is taken where one more address comes to it."""
    left: dict[tuple[int, str], list[PublishedPort]] = {}
    for port in before:
        left.setdefault((port.container_port, port.protocol), []).append(port)
    settled: list[tuple[PortWish, list[str], list[str], int]] = []
    asks: dict[int, PortAsk] = {}
    for wish in asked:
        some = left.get((wish.container_port, wish.protocol), [])
        own = _of(wish, some)
        for port in own:
            some.remove(port)
        taken, untaken = ways.addresses(wish)
        if not taken and not untaken:
            log.warning(
                "port %d/%s is not published on %s: the container has no address that packets could be sent on to",
                wish.container_port,
                wish.protocol,
                wish.host_ip or ways.default,
            )
        kept = [p for p in own if p.host_port and p.host_ip in taken]
        missing = tuple(a for a in taken if all(p.host_ip != a for p in kept))
        number = kept[0].host_port if kept else 0
        if missing:
            low, high = (number, number) if number else (wish.low, wish.high)
            asks[len(settled)] = PortAsk(missing, wish.protocol, low, high)
        settled.append((wish, taken, untaken, number))
    numbers = dict(zip(asks, await operation.reserve(list(asks.values())) if asks else [], strict=True))
    out = list[PublishedPort]()
    for at, (wish, taken, untaken, kept_number) in enumerate(settled):
        number = numbers.get(at, kept_number)
        out += [_published(wish, address, number) for address in taken]
        out += [_published(wish, address, 0) for address in untaken]
    return out


def _of(wish: PortWish, ports: list[PublishedPort]) -> list[PublishedPort]:
    """What was made of a wish, of the ports that lead to the same one of the container."""
    some = [
        p
        for p in ports
        if wish.host_ip in ("", p.host_ip) and (not p.host_port or not wish.low or wish.low <= p.host_port <= wish.high)
    ]
    number = next((p.host_port for p in some if p.host_port), 0)
    return [p for p in some if p.host_port in (0, number)]


def _published(wish: PortWish, address: str, number: int) -> PublishedPort:
    return PublishedPort(host_ip=address, host_port=number, container_port=wish.container_port, protocol=wish.protocol)
