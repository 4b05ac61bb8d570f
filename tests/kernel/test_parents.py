"""Networks on a parent, macvlan and ipvlan, on a real kernel: who reaches whom and who does not, mode by mode.

`alpha` has the parent up0 (192.0.2.1); `beta` is on its wire (192.0.2.2). web and db are on one network, app on another
one on the same parent. What is seen are connections that are made or not.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest

from netengine.drivers import DRIVERS, EndpointContext
from netengine.drivers.parents import HOST_AUX, HOST_AUX6
from netengine.kernel.resources import Resource
from netengine.model import Endpoint, Network, Subnet
from tests.hosts import Namespace
from tests.kernel.machine import Machine, box, cable
from tests.patience import patient

WIRE, ALONE_ON, ALSO_ALONE, TAGGED = "192.0.2.0/24", "10.9.0.0/24", "10.8.0.0/24", "10.50.0.0/24"
BASES = {
    WIRE: ("192.0.2.", "2001:db8::"),
    ALONE_ON: ("10.9.0.", "2001:db8:9::"),
    ALSO_ALONE: ("10.8.0.", "2001:db8:8::"),
    TAGGED: ("10.50.0.", "2001:db8:50::"),
}
"""What an address begins with, in both families."""
COLUMNS = ("web>db", "web>app", "web>beta", "beta>web", "web>alpha", "alpha>web")

Place = tuple[Namespace, str, str]
"""Where to make sockets, and the addresses of both families that lead there."""


@dataclass(frozen=True)
class Row:
    """A way to make a network, and what the table says of it: `y` or `-` for each column, ` ` for what there is not."""

    driver: str
    options: dict[str, str]
    expected: str
    parent: str = "up0"
    subnets: tuple[str, str] = (WIRE, WIRE)
    needs: tuple[str, ...] = ()

    def __str__(self) -> str:
        words = [self.driver, *(value if value != "true" else name for name, value in self.options.items())]
        return " ".join([*words, *([] if self.parent == "up0" else [self.parent or "alone"])])


def macvlan(expected: str, mode: str = "bridge", **more: Any) -> Row:
    return Row("macvlan", {"macvlan_mode": mode, **more.pop("options", {})}, expected, **more)


def ipvlan(expected: str, mode: str, flag: str = "bridge", **more: Any) -> Row:
    options = {"ipvlan_mode": mode, "ipvlan_flag": flag, **more.pop("options", {})}
    routed = {} if mode == "l2" else {"subnets": (ALONE_ON, ALSO_ALONE)}
    return Row("ipvlan", options, expected, needs=("ipvlan",), **(routed | more))


ACCESS = {"options": {"host_access": "true"}}
ALONE = {"parent": "", "subnets": (ALONE_ON, ALSO_ALONE)}
ROWS = [
    macvlan("yyyy--"),
    macvlan("--yy--", "private"),
    macvlan("--yy--", "vepa"),
    macvlan("  yy--", "passthru"),
    macvlan("yyyyyy", **ACCESS),
    macvlan("y-----", **ALONE),
    macvlan("y---yy", **ALONE, **ACCESS),
    macvlan("yyyy--", parent="up0.50", subnets=(TAGGED, TAGGED), needs=("vlan",)),
    ipvlan("yyyy--", "l2"),
    ipvlan("--yy--", "l2", "private"),
    ipvlan("--yy--", "l2", "vepa"),
    ipvlan("yyyyyy", "l2", **ACCESS),
    ipvlan("y-----", "l2", **ALONE),
    ipvlan("yyyy--", "l3"),
    ipvlan("--yy--", "l3", "private"),
    ipvlan("--yy--", "l3", "vepa"),
    ipvlan("yyyyyy", "l3", **ACCESS),
    ipvlan("yyyy--", "l3s"),
]


@dataclass
class Site:
    """Two machines on one wire; networks on the parent that the row names."""

    alpha: Machine
    beta: Machine
    row: Row
    networks: list[Network] = field(default_factory=list)

    def network(self, name: str, subnet: str) -> Network:
        row = self.row
        options = row.options | ({"parent": row.parent} if row.parent else {})
        made = Network(id=name.ljust(64, "0"), name=name, driver=row.driver, created="", options=options)
        DRIVERS[row.driver].settle(made, self.networks, 1500)
        assert made.parent is not None
        if row.parent == "up0.50":
            made.parent.trunk, made.parent.vid = "up0", 50
        number = 200 + len(self.networks)
        base, base6 = BASES[subnet]
        own, own6 = (f"{base}{number}", f"{base6}{number}") if made.parent.host_link else ("", "")
        made.enable_ipv6 = True
        made.subnets = [
            Subnet(subnet=subnet, aux={HOST_AUX: own} if own else {}),
            Subnet(subnet=f"{base6}/64", aux={HOST_AUX6: own6} if own6 else {}),
        ]
        self.networks.append(made)
        self.alpha.build(DRIVERS[row.driver].render_network(made))
        return made

    def plug(self, ns: str, network: Network, number: int) -> frozenset[Resource]:
        base, base6 = BASES[network.subnets[0].subnet]
        routed = not DRIVERS[network.driver].has_next_hop(network)
        endpoint = Endpoint(
            id="e" * 64,
            network_id=network.id,
            container_id=ns,
            sandbox_id=ns,
            address=f"{base}{number}/24",
            address6=f"{base6}{number}/64",
            mac=f"02:00:00:00:00:{number:02x}",
            link="eth0",
        )
        context = EndpointContext(is_gateway=routed, is_gateway6=routed)
        return DRIVERS[network.driver].render_endpoint(network, endpoint, context)

    def sandbox(self, ns: str, network: Network, number: int) -> Place:
        self.alpha.build(box(ns) | self.plug(ns, network, number))
        base, base6 = BASES[network.subnets[0].subnet]
        return self.alpha.namespace(ns), f"{base}{number}", f"{base6}{number}"

    def look(self) -> tuple[str, str]:
        """A row of the table for each family: what is reached, column by column."""
        one = self.network("one", self.row.subnets[0])
        places: dict[str, Place] = {"web": self.sandbox("web", one, 11)}
        if self.row.options.get("macvlan_mode") != "passthru":
            places["db"] = self.sandbox("db", one, 12)
            places["app"] = self.sandbox("app", self.network("two", self.row.subnets[1]), 13)
        wire, wire6 = BASES[TAGGED if self.row.parent == "up0.50" else WIRE]
        own, own6 = one.subnets[0].aux.get(HOST_AUX, f"{wire}1"), one.subnets[1].aux.get(HOST_AUX6, f"{wire6}1")
        places |= {"alpha": (self.alpha, own, own6), "beta": (self.beta, f"{wire}2", f"{wire6}2")}
        servers = [place.listen(80, any_) for place, _, _ in places.values() for any_ in ("0.0.0.0", "::")]
        try:
            with ThreadPoolExecutor(2 * len(COLUMNS)) as pool:
                asked = [
                    pool.submit(_reached, places, column, family, cell == "y")
                    for family in (1, 2)
                    for column, cell in zip(COLUMNS, self.row.expected, strict=True)
                ]
                seen = "".join(answer.result() for answer in asked)
            return seen[: len(COLUMNS)], seen[len(COLUMNS) :]
        finally:
            for server in servers:
                server.close()
            for name in places.keys() - {"alpha", "beta"}:
                places[name][0].close()


def _reached(places: dict[str, Place], column: str, family: int, awaited: bool) -> str:
    """A cell of the table. What must be reached may take its time: a neighbour is asked for once a second."""
    client, _, server = column.partition(">")
    if client not in places or server not in places:
        return " "
    address = places[server][family]
    assert isinstance(address, str)
    deadline = time.monotonic() + patient(10 if awaited else 0)
    while not (reached := places[client][0].reaches(address, 80, timeout=1.0)) and time.monotonic() < deadline:
        time.sleep(0.05)  # a refusal comes at once
    return "y" if reached else "-"


def _beta_routes(beta: Machine, row: Row, verb: str) -> None:
    """In l3 the parent is a router: who is on the wire needs to know."""
    if row.parent == "up0" and row.subnets[0] == ALONE_ON:
        for subnet in row.subnets:
            beta.run("ip", "route", verb, subnet, "via", "192.0.2.1")
            beta.run("ip", "route", verb, f"{BASES[subnet][1]}/64", "via", "2001:db8::1")


@pytest.mark.parametrize(
    "row", [pytest.param(row, marks=[pytest.mark.needs(*row.needs)] if row.needs else []) for row in ROWS], ids=str
)
def test_who_reaches_whom(make_machine: Callable[[str], Machine], row: Row) -> None:
    alpha, beta = make_machine("alpha"), make_machine("beta")
    cable(alpha, beta)
    if row.parent == "up0.50":
        beta.run("ip", "link", "add", "link", "up0", "name", "up0.50", "type", "vlan", "id", "50")
        beta.run("sysctl", "-qw", "net.ipv6.conf.up0/50.disable_ipv6=0")
        beta.run("ip", "address", "add", "10.50.0.2/24", "dev", "up0.50")
        beta.run("ip", "address", "add", "2001:db8:50::2/64", "dev", "up0.50", "nodad")
        beta.run("ip", "link", "set", "up0.50", "up")
    _beta_routes(beta, row, "add")
    try:
        seen = Site(alpha, beta, row).look()
    finally:
        _beta_routes(beta, row, "delete")
        beta.run("ip", "link", "delete", "up0.50", check=False)
    print("\n" + " " * 40 + " ".join(f"{column:>9}" for column in COLUMNS))
    for family, cells in zip(("IPv4", "IPv6"), seen, strict=True):
        print(f"{row!s:34}{family:6}" + " ".join(f"{cell:>9}" for cell in cells))
    assert seen == (row.expected, row.expected), (
        f"seen {seen}, expected {row.expected!r} of {' '.join(COLUMNS)} in both"
    )
