"""What a driver is. The engine knows drivers by this protocol alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from netengine.kernel.resources import Resource
from netengine.model import Endpoint, Network, PublishedPort


@dataclass(frozen=True, slots=True)
class EndpointContext:
    """What an endpoint's resources depend on besides the endpoint: its place in the sandbox."""

    is_gateway: bool
    """Whether the sandbox's IPv4 default route goes through this endpoint."""
    ports: tuple[PublishedPort, ...] = ()
    """Ports published through this endpoint."""
    is_gateway6: bool = False
    """Whether the sandbox's IPv6 default route goes through this endpoint."""


class Driver(Protocol):
    """A pure renderer of networks and endpoints."""

    name: str
    has_addresses: bool
    """Whether its endpoints get addresses from IPAM."""

    def settle(self, network: Network, others: Iterable[Network], default_mtu: int) -> None:
        """Check the network's options and decide what follows from them (a link's name, its MAC), once, at creation.

        Raises Invalid or Forbidden; the network is complete afterwards but for its subnets.
        """
        ...

    def render_network(self, network: Network) -> frozenset[Resource]:
        """What exists while the network does."""
        ...

    def render_endpoint(self, network: Network, endpoint: Endpoint, context: EndpointContext) -> frozenset[Resource]:
        """What exists while the endpoint does, its sandbox's namespace aside."""
        ...
