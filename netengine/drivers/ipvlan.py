"""The ipvlan driver: endpoints that share the MAC of one of the host's links and are told apart by their addresses.

In mode l2 an endpoint is on the parent's wire as a macvlan is; in l3 and l3s the parent routes for it: no ARP, no broadcast,
and the default route has no next hop. docs/ipvlan.md.
"""

from __future__ import annotations

from collections.abc import Iterable

from netengine.drivers import parents
from netengine.drivers.addresses import MTU, checked_mtu
from netengine.drivers.base import EndpointContext
from netengine.kernel.resources import Resource
from netengine.model import Endpoint, Network, ParentSettings

MODE, FLAG = "ipvlan_mode", "ipvlan_flag"
MODES, FLAGS = ("l2", "l3", "l3s"), ("bridge", "private", "vepa")
_KNOWN = (parents.PARENT, MODE, FLAG, MTU, parents.HOST_ACCESS)


class IpvlanDriver:
    name = "ipvlan"
    has_addresses = True
    shares_subnets = True
    publishes_ports = False

    def settle(self, network: Network, others: Iterable[Network], default_mtu: int) -> None:
        options = parents.options_of(network, _KNOWN)
        mode = parents.choice(MODE, options.get(MODE, ""), MODES)
        flag = parents.choice(FLAG, options.get(FLAG, ""), FLAGS)
        link, own = parents.parent_of(network, options)
        for other in parents.check_clash(network, link, others):
            theirs = parents.settings_of(other)
            if (theirs.mode, theirs.flag) != (mode, flag):
                why = f"its mode is {theirs.mode} {theirs.flag}, and a parent has one mode for all; {mode} {flag} was asked for"
                raise parents.clash(network, link, other, why)
        network.internal = network.internal or own
        refusal = (
            "" if flag == "bridge" else f"with {FLAG} {flag} nothing on the host reaches a container; it needs bridge"
        )
        network.parent = ParentSettings(
            link=link,
            mode=mode,
            flag=flag,
            mtu=checked_mtu(network, options),
            own=own,
            host_link=parents.host_link_of(network, options, refusal),
        )

    def has_next_hop(self, network: Network) -> bool:
        return parents.settings_of(network).mode == "l2"

    def has_own_mac(self, network: Network) -> bool:
        return False

    def render_network(self, network: Network) -> frozenset[Resource]:
        return parents.render_parent(network)

    def render_endpoint(self, network: Network, endpoint: Endpoint, context: EndpointContext) -> frozenset[Resource]:
        return parents.render_endpoint(network, endpoint, context, next_hop=self.has_next_hop(network))
