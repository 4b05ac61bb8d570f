"""The laws of a pool, whatever the order of operations: checked by hypothesis against a plain model."""

from ipaddress import IPv4Network, IPv6Network

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from netengine.errors import Forbidden, Invalid, Unavailable
from netengine.ipam import Pool
from netengine.ipam.intervals import Intervals

SUBNETS = [
    IPv4Network("10.0.0.0/27"),
    IPv4Network("10.0.0.8/29"),
    IPv4Network("10.0.0.0/30"),
    IPv4Network("10.0.0.2/31"),
    IPv4Network("10.0.0.9/32"),
    IPv4Network("0.0.0.0/30"),
    IPv4Network("255.255.255.248/29"),
    IPv6Network("fd00::/124"),
    IPv6Network("::/126"),
    IPv6Network("fd00::2/127"),
    IPv6Network("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128"),
]


class PoolLaws(RuleBasedStateMachine):
    """`held` is the model: a dict of the leases that must exist, and nothing cleverer."""

    @initialize(subnet=st.sampled_from(SUBNETS), data=st.data(), serial=st.booleans(), gateway=st.booleans())
    def make(self, subnet, data, serial, gateway):
        self.subnet = subnet
        self.addresses = [subnet[i] for i in range(subnet.num_addresses)]
        halves = list(subnet.subnets()) if subnet.num_addresses > 8 else [None]
        self.ip_range = data.draw(st.sampled_from([None, *halves]))
        self.serial = serial
        self.options = {"ip_range": self.ip_range, "serial": serial, "reserve_gateway": gateway}
        self.pool = Pool(subnet, **self.options)
        self.reserved = {a for a in self.addresses if self.pool.owner(a) is not None}
        self.held = {}
        self.counter = 0

    def dynamic(self):
        span = self.ip_range or self.subnet
        return [a for a in self.addresses if a in span and a not in self.reserved and a not in self.held]

    @rule()
    def lease_next(self):
        self.counter += 1
        free = self.dynamic()
        if not free:
            with pytest.raises(Unavailable):
                self.pool.lease(owner=str(self.counter))
            return
        address = self.pool.lease(owner=str(self.counter))
        assert address in free, "an address with an owner, or none of this pool, was handed out"
        if not self.serial:
            assert address == free[0], "not the lowest free address"
        self.held[address] = str(self.counter)

    @rule(data=st.data())
    def lease_static(self, data):
        address = data.draw(st.sampled_from(self.addresses))
        self.counter += 1
        if address in self.held or address in self.reserved:
            with pytest.raises(Forbidden):
                self.pool.lease(address, owner=str(self.counter))
            return
        assert self.pool.lease(address, owner=str(self.counter)) == address
        self.held[address] = str(self.counter)

    @rule(data=st.data())
    def release(self, data):
        address = data.draw(st.sampled_from(self.addresses))
        self.pool.release(address)
        self.held.pop(address, None)

    @rule()
    def lease_and_release_is_as_if_nothing_happened(self):
        before = (dict(self.pool.leases()), self.pool.in_use, self.pool.available)
        if self.dynamic() and not self.serial:
            self.pool.release(self.pool.lease())
        assert (dict(self.pool.leases()), self.pool.in_use, self.pool.available) == before

    @rule()
    def restart(self):
        new = Pool(self.subnet, **self.options)
        new.restore(dict(self.pool.leases()))
        self.pool = new

    @rule(offset=st.sampled_from([-1, 1]))
    def outside_is_never_leased(self, offset):
        edge = int(self.subnet.broadcast_address if offset == 1 else self.subnet.network_address) + offset
        if not 0 <= edge < 2**self.subnet.max_prefixlen:
            return
        with pytest.raises(Invalid):
            self.pool.lease(type(self.subnet.network_address)(edge))

    @invariant()
    def the_pool_and_the_model_agree(self):
        if not hasattr(self, "pool"):
            return
        assert dict(self.pool.leases()) == self.held
        assert self.pool.in_use == len(self.held) + len(self.reserved)
        assert self.pool.available == len(self.dynamic())


PoolLaws.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestPoolLaws = PoolLaws.TestCase


class IntervalLaws(RuleBasedStateMachine):
    """Intervals are a set of integers."""

    def __init__(self):
        super().__init__()
        self.intervals = Intervals(0, 31)
        self.model = set(range(32))

    @rule(number=st.integers(-2, 34))
    def add(self, number):
        self.intervals.add(number)
        self.model.add(number)

    @rule(number=st.integers(-2, 34))
    def discard(self, number):
        self.intervals.discard(number)
        self.model.discard(number)

    @rule(first=st.integers(-3, 35), last=st.integers(-3, 35))
    def ask(self, first, last):
        inside = [n for n in self.model if first <= n <= last]
        assert self.intervals.lowest(first, last) == (min(inside) if inside else None)
        assert self.intervals.count(first, last) == len(inside)
        assert (first in self.intervals) == (first in self.model)


IntervalLaws.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestIntervalLaws = IntervalLaws.TestCase
