"""The laws of all pools together, whatever the order of operations: never two owners, never a leak. Checked by hypothesis."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from netengine.engine.addresses import Addresses
from netengine.errors import Forbidden, Invalid, Unavailable
from netengine.model import Network, Subnet

LAYOUTS: dict[str, tuple[str, list[str]]] = {
    "app": ("bridge", ["10.0.0.0/29", "fd00::/125"]),
    "routed": ("ipvlan", ["10.1.0.0/30", "10.1.0.8/29", "fd01::/126"]),
    "wire": ("macvlan", ["10.2.0.0/29"]),
    "half": ("macvlan", ["10.2.0.0/30"]),  # on the same wire: what one gives away, the other does not
}


def network(name: str) -> Network:
    driver, subnets = LAYOUTS[name]
    made = Network(id=name, name=name, driver=driver, created="", enable_ipv6=any(":" in s for s in subnets))
    made.subnets = [Subnet(subnet=s) for s in subnets]
    return made


class AddressLaws(RuleBasedStateMachine):
    """`held` is the model: owner -> (network, address) of every lease that must exist."""

    @initialize()
    def begin(self) -> None:
        self.addresses = Addresses()
        self.networks: dict[str, Network] = {}
        self.held: dict[str, tuple[str, str]] = {}
        self.counter = 0
        for name in LAYOUTS:
            self.make(name)
        self.empty = self.figures()

    def make(self, name: str) -> None:
        self.networks[name] = network(name)
        self.addresses.add(self.networks[name])

    def figures(self) -> dict[str, list[tuple[str, int, int]]]:
        return {name: list(self.addresses.figures(name)) for name in self.networks}

    def wire_of(self, name: str) -> set[str]:
        return {"wire", "half"} if name in ("wire", "half") else {name}

    def others(self, name: str) -> set[str]:
        """Addresses that are taken on the wire of a network."""
        return {address for held, address in self.held.values() if held in self.wire_of(name)}

    @rule(name=st.sampled_from(sorted(LAYOUTS)), version=st.sampled_from([4, 6]))
    def lease_next(self, name: str, version: Any) -> None:
        self.counter += 1
        owner = str(self.counter)
        try:
            address = self.addresses.lease(self.networks[name], owner, version, None)
        except Invalid:
            assert not any(ip_network(s.subnet).version == version for s in self.networks[name].subnets)
            return
        except Unavailable:
            free = [left for subnet, _, left in self.addresses.figures(name) if (":" in subnet) == (version == 6)]
            # What is left there is held by another network of the same wire.
            assert sum(free) <= len(self.others(name)) if len(self.wire_of(name)) > 1 else sum(free) == 0
            return
        assert address not in self.others(name), "an address with two owners"
        self.held[owner] = (name, address)

    @rule(name=st.sampled_from(sorted(LAYOUTS)), data=st.data())
    def lease_one(self, name: str, data: st.DataObject) -> None:
        subnet = ip_network(data.draw(st.sampled_from(LAYOUTS[name][1])))
        wanted = subnet[data.draw(st.integers(0, subnet.num_addresses - 1))]
        self.counter += 1
        try:
            given = self.addresses.lease(self.networks[name], str(self.counter), wanted.version, wanted)
        except Forbidden:
            return
        assert given == str(wanted) and given not in self.others(name)
        self.held[str(self.counter)] = (name, given)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        owner = data.draw(st.sampled_from(sorted(self.held)))
        name, address = self.held.pop(owner)
        self.addresses.release(name, address)

    @rule()
    def start_again(self) -> None:
        """The daemon dies, and takes over what the store has."""
        gateways = {name: [s.gateway for s in n.subnets] for name, n in self.networks.items()}
        self.addresses = Addresses()
        for made in self.networks.values():
            self.addresses.add(made)
        for owner, (name, address) in self.held.items():
            self.addresses.restore(name, address, owner)
        assert {name: [s.gateway for s in n.subnets] for name, n in self.networks.items()} == gateways

    @rule(name=st.sampled_from(sorted(LAYOUTS)))
    def make_a_network_anew(self, name: str) -> None:
        self.addresses.remove(name)
        self.held = {owner: lease for owner, lease in self.held.items() if lease[0] != name}
        self.make(name)

    @invariant()
    def nothing_is_lost_and_nothing_is_kept(self) -> None:
        if not hasattr(self, "addresses"):
            return
        for name, before in self.empty.items():
            mine = [ip_address(address) for held, address in self.held.values() if held == name]
            for (subnet, used, _), (_, at_first, _) in zip(self.addresses.figures(name), before, strict=True):
                assert used == at_first + sum(
                    a in ip_network(subnet) for a in mine if a.version == ip_network(subnet).version
                )


AddressLaws.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestAddressLaws = AddressLaws.TestCase
