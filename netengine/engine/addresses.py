"""The addresses of each network: IPAM pools by network id, rebuilt from the store at start."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Literal

from netengine.drivers import DRIVERS
from netengine.drivers.base import boolean
from netengine.drivers.bridge_options import reserves_gateway
from netengine.drivers.bridge_rules import family_of
from netengine.drivers.parents import host_aux
from netengine.errors import Forbidden, Invalid, Unavailable
from netengine.ipam import Pool
from netengine.model import Network

Address = IPv4Address | IPv6Address

SERIAL = "com.docker.network.ipam.serial"
"""The option of IPAM: the next address after the last that was given away, not the lowest that is free."""


class Addresses:
    """Pools of leases. In memory; the operation that takes a lease writes it to the store."""

    def __init__(self) -> None:
        self._pools: dict[str, list[Pool]] = {}
        self._sharing: set[str] = set()
        """Networks whose subnets may overlap: what one of them has given away, no other gives."""
        self._former: dict[tuple[str, str], list[str]] = {}
        """By network and container: what a container had when the machine went down under it."""

    def add(self, network: Network) -> None:
        """Open the pools of a network, and write the gateway that each chose into it. Raises Invalid, Forbidden."""
        pools = []
        shares = DRIVERS[network.driver].shares_subnets
        for subnet in network.subnets:
            pool = Pool(
                ip_network(subnet.subnet),
                ip_range=ip_network(subnet.ip_range) if subnet.ip_range else None,
                gateway=ip_address(subnet.gateway) if subnet.gateway else None,
                aux={name: ip_address(a) for name, a in subnet.aux.items()},
                reserve_gateway=not shares and reserves_gateway(network, family_of(subnet.subnet)),
                serial=boolean(SERIAL, network.ipam_options.get(SERIAL), default=False),
                label=f"{network.name} ({network.id})",
            )
            subnet.gateway = str(pool.gateway) if pool.gateway else ""
            pools.append(pool)
        self._pools[network.id] = pools
        if shares:
            self._sharing.add(network.id)
            self._reserve_host(network)

    def _reserve_host(self, network: Network) -> None:
        """The host's own addresses on a network that it has a link on: auxiliary ones by their names, or the next."""
        if network.parent is None or not network.parent.host_link:
            return
        done: set[str] = set()
        for subnet, pool in zip(network.subnets, self._pools[network.id], strict=True):
            name = host_aux(subnet.subnet)
            if name not in subnet.aux and name not in done:
                taken = pool.reserve(
                    f"auxiliary address {name}", taken=lambda address: self._holder(network.id, address) is not None
                )
                subnet.aux[name] = str(taken)
            done.add(name)

    def remove(self, network_id: str) -> None:
        self._sharing.discard(network_id)
        self._pools.pop(network_id, None)

    def lease(self, network: Network, owner: str, version: Literal[4, 6], wanted: Address | None) -> str:
        """The address that is wanted, or the next free one of that family, of the first subnet that has one.

        Raises Invalid when no subnet has the address, Forbidden when it is taken, Unavailable when none is left.
        """
        if wanted is not None:
            holder = self._holder(network.id, wanted)
            if holder is not None:
                raise Forbidden(
                    f"Address already in use ({wanted} is held by {holder} on another network of this subnet)"
                )
            return str(self._home(network, wanted).lease(wanted, owner=owner))
        pools = [p for p in self._pools.get(network.id, []) if p.subnet.version == version]
        if not pools:
            raise Invalid(f"network {network.name} has no IPv{version} subnet")
        for pool in pools[:-1]:
            with suppress(Unavailable):
                return self._next(network, pool, owner)
        return self._next(network, pools[-1], owner)

    def _next(self, network: Network, pool: Pool, owner: str) -> str:
        return str(pool.lease(owner=owner, taken=lambda address: self._holder(network.id, address) is not None))

    def remember(self, network_id: str, container_id: str, addresses: list[str]) -> None:
        """Note what a container had that is about to be started again: others know it by these addresses."""
        self._former[network_id, container_id] = addresses

    def recall(self, network_id: str, container_id: str, version: Literal[4, 6]) -> str:
        """The address that a container had, if it was noted and nobody has it now, else ""."""
        for text in self._former.get((network_id, container_id), ()):
            address = ip_address(text)
            if address.version == version:
                owners = [p.owner(address) for p in self._pools.get(network_id, []) if address in p.subnet]
                return text if owners == [None] and self._holder(network_id, address) is None else ""
        return ""

    def forget(self) -> None:
        """From here on everybody takes the next free address, as Docker's do."""
        self._former.clear()

    def owner(self, network_id: str, address: str) -> str | None:
        """Who holds an address of a network on this host, or what it is reserved for; None when it is free."""
        wanted = ip_address(address)
        return next((p.owner(wanted) for p in self._pools.get(network_id, []) if wanted in p.subnet), None)

    def _holder(self, network_id: str, address: Address) -> str | None:
        """Who has an address on the other networks that may overlap this one."""
        if network_id not in self._sharing:
            return None
        held = (pool.owner(address) for n in self._sharing - {network_id} for pool in self._pools[n])
        return next((owner for owner in held if owner is not None), None)

    def check(self, network: Network, wanted: str, version: Literal[4, 6]) -> str:
        """The address in its usual form. Raise Invalid when it is none, or no subnet of the network has it: known before the
        container starts."""
        address = _parse(wanted, version)
        self._home(network, address)
        return str(address)

    def _home(self, network: Network, wanted: Address) -> Pool:
        pools = self._pools.get(network.id, [])
        for pool in pools:
            if wanted in pool.subnet:
                return pool
        subnets = ", ".join(str(p.subnet) for p in pools)
        raise Invalid(f"no configured subnet contains IP address {wanted} (network {network.name} has {subnets})")

    def release(self, network_id: str, address: str) -> None:
        for pool in self._pools.get(network_id, []):
            if ip_address(address) in pool.subnet:
                pool.release(ip_address(address))

    def restore(self, network_id: str, address: str, owner: str) -> None:
        for pool in self._pools.get(network_id, []):
            if ip_address(address) in pool.subnet:
                pool.restore({ip_address(address): owner})

    def figures(self, network_id: str) -> Iterable[tuple[str, int, int]]:
        """(subnet, addresses in use, addresses left) of each pool."""
        return [(str(p.subnet), p.in_use, p.available) for p in self._pools.get(network_id, [])]

    def subnet_of(self, network_id: str, address: str) -> tuple[int, str]:
        """The prefix length of the subnet that the address is in, and its gateway or ""."""
        pools = self._pools[network_id]
        if len(pools) > 1:
            wanted = ip_address(address)
            pools = [p for p in pools if wanted in p.subnet]
        return pools[0].subnet.prefixlen, str(pools[0].gateway or "")


def _parse(text: str, version: Literal[4, 6]) -> Address:
    try:
        address = IPv4Address(text) if version == 4 else IPv6Address(text)
    except ValueError:
        raise Invalid(f"invalid IPv{version} address: {text[:60]!r}") from None
    if getattr(address, "scope_id", None):
        raise Invalid(f"invalid IPv6 address: {text[:60]!r}: leave the zone (%...) out")
    return address
