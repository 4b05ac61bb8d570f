"""Addresses: which subnet a network gets, which address an endpoint gets. Pure: no I/O, no clock, no kernel, no store.

    pools.py      the subnets that networks are made of: the default pools, and what must not overlap
    rules.py      what a user's IPAM configuration must satisfy
    leases.py     the addresses of one subnet: who holds which, and which is next
    intervals.py  the free addresses as sorted intervals, so that a /8 costs no more than a /24
    mac.py        link-layer addresses

Addresses and networks are objects of the standard `ipaddress` module at every interface. Randomness enters through an
argument, so that tests can fix it.
"""

from netengine.ipam.leases import Pool
from netengine.ipam.mac import parse_mac, random_mac, steady_mac
from netengine.ipam.pools import DEFAULT_POOLS, AddressPool, Network, any_subnet, check_overlap, choose_subnet, ula_pool
from netengine.ipam.rules import IpamConfig, IpamEntry, check_ipam_config

__all__ = [
    "DEFAULT_POOLS",
    "AddressPool",
    "IpamConfig",
    "IpamEntry",
    "Network",
    "Pool",
    "any_subnet",
    "check_ipam_config",
    "check_overlap",
    "choose_subnet",
    "parse_mac",
    "random_mac",
    "steady_mac",
    "ula_pool",
]
