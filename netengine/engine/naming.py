"""What containers are called, and what else the name server is told of them, from the model. Pure but for services(5)."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from contextlib import suppress

from netengine.cluster.records import EndpointRecord
from netengine.dns.client import Entry
from netengine.engine.files import hostname_of
from netengine.engine.ports import parse_port
from netengine.model import Container, Network


def entry_elsewhere(record: EndpointRecord) -> Entry:
    names = tuple(dict.fromkeys([record.name, *record.names]))
    ipv4, ipv6 = (tuple(filter(None, [a.partition("/")[0]])) for a in (record.address, record.address6))
    return Entry(names, ipv4, ipv6, {})


def links_of(container: Container, networks: Iterable[Network]) -> dict[str, str]:
    """The aliases that this container alone sees on these networks, with what they stand for."""
    links = (link.partition(":") for n in networks for link in container.attachments[n.id].links)
    return {alias or target: target for target, _, alias in links}


def names_of(container: Container, network: Network) -> list[str]:
    """What a container is called on a network; the first is what a reverse look-up answers."""
    aliases = container.attachments[network.id].aliases if network.id in container.attachments else []
    return list(dict.fromkeys([container.name, *aliases, container.id[:12], hostname_of(container)]))


def services_of(container: Container) -> dict[str, int]:
    """Exposed ports that have a name in the host's list of services (services(5)): `_http._tcp` is port 80."""
    out = {}
    for port, protocol in sorted(map(parse_port, container.config.exposed_ports or {})):
        with suppress(OSError):
            out[f"_{socket.getservbyport(port, protocol)}._{protocol}"] = port
    return out


def ndots(options: Iterable[str]) -> int | None:
    """The value of an explicit `ndots:N`."""
    for option in options:
        name, _, value = option.partition(":")
        if name == "ndots" and value.isascii() and value.isdigit():
            return int(value)
    return None
