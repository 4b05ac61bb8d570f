"""The addresses of one subnet: who holds which, and which is handed out next.

A pool is the account of one subnet of one network; it neither stores nor announces anything. The engine writes a lease
to the store before it is used and gives all of them back with `restore` after a restart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from ipaddress import IPv4Address, IPv6Address

from netengine.errors import Forbidden, Invalid, Unavailable
from netengine.ipam.intervals import Intervals
from netengine.ipam.pools import Network

Address = IPv4Address | IPv6Address


class Pool:
    """The leases of one subnet.

    Dynamic leases come from `ip_range` where given, else from the whole subnet: the lowest free address, or with
    `serial` the next free one after the last that was handed out (the option com.docker.network.ipam.serial). Static
    ones may lie anywhere in the subnet. Never handed out: the network and the broadcast address of IPv4 (a /31 and a
    /32 have none: RFC 3021), the subnet-router anycast address of IPv6 (not for a /127 and a /128: RFC 6164), the
    gateway, the auxiliary addresses. The gateway is the first free address of that range unless one is given.

    `label` names the network in messages, as `NAME (ID)`. Raises `Invalid` for an address or range outside the subnet
    and `Forbidden` for a gateway or auxiliary address that is taken.
    """

    def __init__(
        self,
        subnet: Network,
        *,
        ip_range: Network | None = None,
        gateway: Address | None = None,
        aux: Mapping[str, Address] | None = None,
        serial: bool = False,
        reserve_gateway: bool = True,
        label: str = "",
    ) -> None:
        self.subnet = subnet
        self.ip_range = ip_range
        self.serial = serial
        self.label = label or str(subnet)
        self._version = subnet.version
        self._first, self._last = int(subnet.network_address), int(subnet.broadcast_address)
        self._low, self._high = self._first, self._last
        if ip_range is not None:
            if ip_range.version != subnet.version or not subnet.overlaps(ip_range):
                raise Invalid(f"invalid ip-range {ip_range}: parent subnet {subnet} doesn't contain ip-range")
            self._low = max(self._first, int(ip_range.network_address))
            self._high = min(self._last, int(ip_range.broadcast_address))
        self._free = Intervals(self._first, self._last)
        self._owners: dict[int, str] = {}
        self._fixed: set[int] = set()
        self._cursor = self._low
        self._reserve_edges()
        for name, address in (aux or {}).items():
            self._fix(address, f"auxiliary address {name}")
        self.gateway: Address | None = None
        if gateway is not None:
            self.gateway = self._fix(gateway, "the gateway")
        elif reserve_gateway:
            self.gateway = self._fix(None, "the gateway")

    def lease(
        self, address: Address | None = None, *, owner: str = "", taken: Callable[[Address], bool] | None = None
    ) -> Address:
        """Hand out `address`, or the next free one. `owner` is who holds it: an endpoint's id, say. `taken` says of an address
        whether somebody has it who is not in this account: it is passed over.

        Raises `Invalid` when the address is outside the subnet, `Forbidden` when it is taken, `Unavailable` when none
        is left.
        """
        number = self._next(taken) if address is None else self._requested(address)
        self._take(number, owner)
        if address is None:
            self._cursor = number + 1
        return self._address(number)

    def reserve(self, purpose: str, *, taken: Callable[[Address], bool] | None = None) -> Address:
        """Keep the next free address for `purpose`: it is never handed out. Raises `Unavailable` when none is left."""
        number = self._next(taken)
        self._take(number, purpose)
        self._fixed.add(number)
        return self._address(number)

    def release(self, address: Address) -> None:
        """Take a lease back. No effect on an address that is not leased, or that is reserved."""
        number = int(address)
        if address.version != self._version or number in self._fixed or number not in self._owners:
            return
        del self._owners[number]
        self._free.add(number)

    def restore(self, leases: Mapping[Address, str]) -> None:
        """Take over the leases of an earlier life, by owner. Giving the same ones twice changes nothing.

        Raises `Forbidden` when one is held by somebody else and `Invalid` when one is outside the subnet; then none of
        `leases` has been taken.
        """
        new: dict[int, str] = {}
        for address, owner in leases.items():
            number = int(address)
            if address.version == self._version and number not in self._fixed and self._owners.get(number) == owner:
                continue
            new[self._requested(address)] = owner
        for number, owner in new.items():
            self._take(number, owner)

    def owner(self, address: Address) -> str | None:
        """Who holds `address`: the owner of the lease, or what it is reserved for; None when it is free."""
        return self._owners.get(int(address)) if address.version == self._version else None

    def leases(self) -> Iterator[tuple[Address, str]]:
        """All leases with their owners, reserved addresses left out, lowest first."""
        for number in sorted(self._owners.keys() - self._fixed):
            yield self._address(number), self._owners[number]

    @property
    def in_use(self) -> int:
        """How many addresses of the subnet are leased or reserved (Docker's `IPsInUse`)."""
        return len(self._owners)

    @property
    def available(self) -> int:
        """How many addresses are left for dynamic leases (Docker's `DynamicIPsAvailable`)."""
        return self._free.count(self._low, self._high)

    def _reserve_edges(self) -> None:
        if self.subnet.max_prefixlen - self.subnet.prefixlen < 2:
            return
        if self._version == 4:
            self._fix(self.subnet.network_address, "the network address")
            self._fix(self.subnet.broadcast_address, "the broadcast address")
        else:
            self._fix(self.subnet.network_address, "the subnet-router anycast address")

    def _fix(self, address: Address | None, purpose: str) -> Address:
        number = self._next() if address is None else self._requested(address)
        self._take(number, purpose)
        self._fixed.add(number)
        return self._address(number)

    def _take(self, number: int, owner: str) -> None:
        self._free.discard(number)
        self._owners[number] = owner

    def _requested(self, address: Address) -> int:
        number = int(address)
        if address.version != self._version or not self._first <= number <= self._last:
            raise Invalid(f"no configured subnet contains IP address {address} (the subnet is {self.subnet})")
        if number in self._owners:
            holder = self._owners[number]
            if number in self._fixed:
                detail = f"{address} is {holder} of {self.subnet}"
            else:
                detail = f"{address} is held by {holder}" if holder else f"{address}"
            raise Forbidden(f"Address already in use ({detail}; choose another one or leave the choice to netengine)")
        return number

    def _next(self, taken: Callable[[Address], bool] | None = None) -> int:
        number = None
        if self.serial and self._cursor <= self._high:
            number = self._lowest(self._cursor, taken)
        if number is None:
            number = self._lowest(self._low, taken)
        if number is None:
            where = f"ip-range {self.ip_range} of {self.subnet}" if self.ip_range is not None else str(self.subnet)
            raise Unavailable(
                f"no available IPv{self._version} addresses on this network's address pools: {self.label} "
                f"({where} has {_addresses(self._high - self._low + 1)}, all leased or reserved; "
                f"remove a container or create a network with a larger subnet)"
            )
        return number

    def _lowest(self, first: int, taken: Callable[[Address], bool] | None) -> int | None:
        number = self._free.lowest(first, self._high)
        while number is not None and taken is not None and taken(self._address(number)):
            number = self._free.lowest(number + 1, self._high)
        return number

    def _address(self, number: int) -> Address:
        # ip_address() would take small IPv6 numbers for IPv4 ones.
        return IPv4Address(number) if self._version == 4 else IPv6Address(number)


def _addresses(count: int) -> str:
    return "1 address" if count == 1 else f"{count} addresses"
