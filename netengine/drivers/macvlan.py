"""The macvlan driver: endpoints with a MAC of their own on the wire of one of the host's links.

A network is little more than the name of its parent; an endpoint is a macvlan link that is born inside the sandbox. Frames go
between it and the wire without bridge and without the host's rules, and the host itself is not reached: docs/macvlan.md.
"""

from __future__ import annotations

from collections.abc import Iterable

from netengine.drivers import parents
from netengine.drivers.addresses import MTU, checked_mtu
from netengine.drivers.base import EndpointContext
from netengine.kernel.resources import Resource
from netengine.model import Endpoint, Network, ParentSettings

MODE = "macvlan_mode"
MODES = ("bridge", "private", "vepa", "passthru")
_KNOWN = (parents.PARENT, MODE, MTU, parents.HOST_ACCESS)


class MacvlanDriver:
    name = "macvlan"
    has_addresses = True
    shares_subnets = True
    publishes_ports = False

    def settle(self, network: Network, others: Iterable[Network], default_mtu: int) -> None:
        options = parents.options_of(network, _KNOWN)
        mode = parents.choice(MODE, options.get(MODE, ""), MODES)
        link, own = parents.parent_of(network, options)
        for other in parents.check_clash(network, link, others):
            theirs = parents.settings_of(other).mode
            if "passthru" in (mode, theirs):
                why = "in mode passthru a parent has one network"
                raise parents.clash(network, link, other, f"{why} ({other.name} is in mode {theirs})")
        network.internal = network.internal or own
        refusal = (
            ""
            if mode == "bridge"
            else f"in {MODE} {mode} nothing on the host reaches a container; it needs mode bridge"
        )
        network.parent = ParentSettings(
            link=link,
            mode=mode,
            mtu=checked_mtu(network, options),
            own=own,
            host_link=parents.host_link_of(network, options, refusal),
        )

    def has_next_hop(self, network: Network) -> bool:
        return True

    def has_own_mac(self, network: Network) -> bool:
        return parents.settings_of(network).mode != "passthru"

    def render_network(self, network: Network) -> frozenset[Resource]:
        return parents.render_parent(network)

    def render_endpoint(self, network: Network, endpoint: Endpoint, context: EndpointContext) -> frozenset[Resource]:
        return parents.render_endpoint(network, endpoint, context)
