"""What a driver is. The engine knows drivers by this protocol alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from netengine.drivers.underlay import Underlay
from netengine.errors import Invalid
from netengine.kernel.resources import Resource
from netengine.model import Endpoint, Network, PublishedPort


@dataclass(frozen=True, slots=True)
class EndpointContext:
    """What an endpoint's resources depend on besides the endpoint: its place in the sandbox."""

    is_gateway: bool
    """Whether the sandbox's IPv4 default route goes through this endpoint."""
    ports: tuple[PublishedPort, ...] = ()
    """The container's published ports: through which endpoint each is reached is the driver's to say."""
    is_gateway6: bool = False
    """Whether the sandbox's IPv6 default route goes through this endpoint."""
    relays_ipv6: bool = False
    """Whether ports on IPv6 addresses of the host lead to this endpoint's IPv4 address: the sandbox has no IPv6 way out."""
    underlay: Underlay | None = None
    """What the overlay driver needs to know of the host."""


_TRUE, _FALSE = ("1", "t", "T", "true", "TRUE", "True"), ("0", "f", "F", "false", "FALSE", "False")


def boolean(option: str, value: str | None, *, default: bool) -> bool:
    """The value of an option, in any of the forms that Docker (Go's strconv.ParseBool) takes. Raises Invalid."""
    if value is None:
        return default
    if value in _TRUE:
        return True
    if value in _FALSE:
        return False
    raise Invalid(f"invalid value {value!r} for {option}: it must be true or false")


class Driver(Protocol):
    """A pure renderer of networks and endpoints."""

    name: str
    has_addresses: bool
    """Whether its endpoints get addresses from IPAM."""
    shares_subnets: bool
    """Whether its networks stand on a wire that is there before them: their subnets may overlap one another's, and those of the
    host's routes, and an address of the wire's router is taken only when the user names it."""
    publishes_ports: bool
    """Whether ports of the host can lead to its endpoints."""

    def settle(self, network: Network, others: Iterable[Network], default_mtu: int) -> None:
        """Check the network's options and decide what follows from them (a link's name, its MAC), once, at creation.

        Raises Invalid or Forbidden; the network is complete afterwards but for its subnets.
        """
        ...

    def has_next_hop(self, network: Network) -> bool:
        """Whether endpoints leave by a router on the network; where not, the link itself is their way out."""
        ...

    def has_own_mac(self, network: Network) -> bool:
        """Whether each endpoint has a MAC of its own."""
        ...

    def render_network(self, network: Network) -> frozenset[Resource]:
        """What exists while the network does."""
        ...

    def render_endpoint(self, network: Network, endpoint: Endpoint, context: EndpointContext) -> frozenset[Resource]:
        """What exists while the endpoint does, its sandbox's namespace aside."""
        ...
