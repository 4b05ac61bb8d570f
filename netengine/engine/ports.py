"""Published ports: from what a user writes to wishes, and from wishes to ports of the host that are really held."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address

from netengine.engine.core import Operation
from netengine.errors import Invalid, KernelRefused
from netengine.kernel.hostports import PortTaken
from netengine.kernel.resources import Protocol
from netengine.model import Container, PortBinding, PublishedPort

PROTOCOLS = ("tcp", "udp", "sctp")
_EPHEMERAL_TRIES = 10
_PORT = re.compile(r"[0-9]{1,5}")


@dataclass(frozen=True, slots=True)
class PortWish:
    """`container_port` reached from the host at `host_ip` ("" for the default), at one of `low` to `high` (0: any free)."""

    container_port: int
    protocol: Protocol
    host_ip: str
    low: int
    high: int


def _number(text: str, what: str) -> int:
    if not _PORT.fullmatch(text) or not 0 <= int(text) <= 65535:
        raise Invalid(f"invalid {what} {text[:40]!r}: a port is a number from 1 to 65535")
    return int(text)


def parse_port(spec: str) -> tuple[int, Protocol]:
    """`80/tcp` or `80` as (port, protocol). Raises Invalid."""
    number, _, protocol = spec.partition("/")
    protocol = (protocol or "tcp").lower()
    if protocol not in PROTOCOLS:
        raise Invalid(f"invalid protocol {protocol[:40]!r} of port {spec[:40]!r}: it must be tcp, udp or sctp")
    port = _number(number, "container port")
    if port == 0:
        raise Invalid(f"invalid container port {spec[:40]!r}: a port is a number from 1 to 65535")
    return port, protocol  # type: ignore[return-value]  # narrowed by the test above


def _range(text: str) -> tuple[int, int]:
    if not text:
        return 0, 0
    low, dash, high = text.partition("-")
    first = _number(low, "published port")
    last = _number(high, "published port") if dash else first
    if last < first:
        raise Invalid(f"invalid range of published ports {text[:40]!r}: it ends before it begins")
    return first, last


def _host_address(text: str) -> str:
    if not text:
        return ""
    try:
        address = ip_address(text)
    except ValueError:
        raise Invalid(
            f"invalid host address {text[:60]!r} of a published port: give one of the host's IP addresses"
        ) from None
    if address.version == 6:
        raise Invalid(
            f"cannot publish on {text}: IPv6 is not supported by this version of netengine; use an IPv4 address"
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
            low, high = _range(entry.host_port)
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


async def reserve(operation: Operation, asked: list[PortWish], default_address: str) -> list[PublishedPort]:
    """Take a port of the host for each wish. Raises KernelRefused with Docker's text when one is taken."""
    out = []
    for wish in asked:
        address = wish.host_ip or default_address
        host_port = await _take(operation, wish, address)
        out.append(
            PublishedPort(
                host_ip=address, host_port=host_port, container_port=wish.container_port, protocol=wish.protocol
            )
        )
    return out


async def _take(operation: Operation, wish: PortWish, address: str) -> int:
    if wish.low == 0:
        for attempt in range(_EPHEMERAL_TRIES):
            try:
                return (await operation.reserve(address, wish.protocol, 0)).port
            except PortTaken:
                if attempt == _EPHEMERAL_TRIES - 1:
                    raise
    for port in range(wish.low, wish.high + 1):
        try:
            return (await operation.reserve(address, wish.protocol, port)).port
        except PortTaken as e:
            if wish.low == wish.high:
                raise KernelRefused(e.message) from e
    raise KernelRefused(
        f"Bind for {address}:{wish.low}-{wish.high} failed: "
        f"all {wish.high - wish.low + 1} ports of the range are already allocated"
    )
