"""The driver of the network `none`: a sandbox with a loopback device and nothing else."""

from __future__ import annotations

from collections.abc import Iterable

from netengine.drivers.base import EndpointContext
from netengine.kernel.resources import Resource
from netengine.model import Endpoint, Network


class NullDriver:
    name = "null"
    has_addresses = False
    shares_subnets = False
    publishes_ports = False

    def settle(self, network: Network, others: Iterable[Network], default_mtu: int) -> None:
        """Nothing to decide."""

    def has_next_hop(self, network: Network) -> bool:
        return True

    def has_own_mac(self, network: Network) -> bool:
        return True

    def render_network(self, network: Network) -> frozenset[Resource]:
        return frozenset()

    def render_endpoint(self, network: Network, endpoint: Endpoint, context: EndpointContext) -> frozenset[Resource]:
        return frozenset()
