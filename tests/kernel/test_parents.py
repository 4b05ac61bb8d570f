"""Networks on a parent, macvlan and ipvlan, on a real kernel: who reaches whom and who does not, mode by mode.

`alpha` has the parent up0 (192.0.2.1); `beta` is on its wire (192.0.2.2). web and db are on one network, app on another
one on the same parent. What is seen are connections that are made or not.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest

from netengine.drivers import DRIVERS, EndpointContext
from netengine.drivers.parents import HOST_AUX
from netengine.kernel.resources import Resource
from netengine.model import Endpoint, Network, Subnet
from tests.hosts import Namespace
from tests.kernel.machine import Machine, box, cable
from tests.kernels import require

ALPHA, BETA = "192.0.2.1", "192.0.2.2"
COLUMNS = ("web>db", "web>app", "web>beta", "beta>web", "web>alpha", "alpha>web")


@dataclass(frozen=True)
class Row:
    """A way to make a network, and what the table says of it: `y` or `-` for each column, ` ` for what there is not."""

    driver: str
    options: dict[str, str]
    expected: str
    parent: str = "up0"
    subnets: tuple[str, str] = ("192.0.2.0/24", "192.0.2.0/24")
    needs: tuple[str, ...] = ()

    def __str__(self) -> str:
        words = [self.driver, *(value if value != "true" else name for name, value in self.options.items())]
        return " ".join([*words, *([] if self.parent == "up0" else [self.parent or "alone"])])


def macvlan(expected: str, mode: str = "bridge", **more: Any) -> Row:
    return Row("macvlan", {"macvlan_mode": mode, **more.pop("options", {})}, expected, **more)


def ipvlan(expected: str, mode: str, flag: str = "bridge", **more: Any) -> Row:
    options = {"ipvlan_mode": mode, "ipvlan_flag": flag, **more.pop("options", {})}
    routed = {} if mode == "l2" else {"subnets": ("10.9.0.0/24", "10.8.0.0/24")}
    return Row("ipvlan", options, expected, needs=("ipvlan",), **(routed | more))


ACCESS = {"options": {"host_access": "true"}}
ALONE = {"parent": "", "subnets": ("10.9.0.0/24", "10.8.0.0/24")}
ROWS = [
    macvlan("yyyy--"),
    macvlan("--yy--", "private"),
    macvlan("--yy--", "vepa"),
    macvlan("  yy--", "passthru"),
    macvlan("yyyyyy", **ACCESS),
    macvlan("y-----", **ALONE),
    macvlan("y---yy", **ALONE, **ACCESS),
    macvlan("yyyy--", parent="up0.50", subnets=("10.50.0.0/24", "10.50.0.0/24"), needs=("vlan",)),
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
        base = subnet.rpartition(".")[0]
        made.subnets = [Subnet(subnet=subnet, aux={HOST_AUX: f"{base}.{number}"} if made.parent.host_link else {})]
        self.networks.append(made)
        self.alpha.build(DRIVERS[row.driver].render_network(made))
        return made

    def plug(self, ns: str, network: Network, number: int) -> frozenset[Resource]:
        base, _, length = network.subnets[0].subnet.rpartition(".")[0], "", 24
        routed = not DRIVERS[network.driver].has_next_hop(network)
        endpoint = Endpoint(
            id="e" * 64,
            network_id=network.id,
            container_id=ns,
            sandbox_id=ns,
            address=f"{base}.{number}/{length}",
            mac=f"02:00:00:00:00:{number:02x}",
            link="eth0",
        )
        return DRIVERS[network.driver].render_endpoint(network, endpoint, EndpointContext(is_gateway=routed))

    def sandbox(self, ns: str, network: Network, number: int) -> tuple[Namespace, str]:
        self.alpha.build(box(ns) | self.plug(ns, network, number))
        return self.alpha.namespace(ns), f"{network.subnets[0].subnet.rpartition('.')[0]}.{number}"

    def look(self) -> str:
        """A row of the table: what is reached, column by column."""
        one = self.network("one", self.row.subnets[0])
        places: dict[str, tuple[Namespace, str]] = {"web": self.sandbox("web", one, 11)}
        if self.row.options.get("macvlan_mode") != "passthru":
            places["db"] = self.sandbox("db", one, 12)
            places["app"] = self.sandbox("app", self.network("two", self.row.subnets[1]), 13)
        places["alpha"] = (self.alpha, one.subnets[0].aux.get(HOST_AUX, ALPHA))
        places["beta"] = (self.beta, BETA if self.row.parent != "up0.50" else "10.50.0.2")
        if self.row.subnets[0].startswith("10.") and self.row.parent == "up0":
            for subnet in self.row.subnets:
                self.beta.run("ip", "route", "add", subnet, "via", ALPHA)
        servers = [place.listen(80) for place, _ in places.values()]
        try:
            with ThreadPoolExecutor(len(COLUMNS)) as pool:
                return "".join(pool.map(lambda column: _reached(places, column), COLUMNS))
        finally:
            for server in servers:
                server.close()
            for name in places.keys() - {"alpha", "beta"}:
                places[name][0].close()


def _reached(places: dict[str, tuple[Namespace, str]], column: str) -> str:
    client, _, server = column.partition(">")
    if client not in places or server not in places:
        return " "
    return "y" if places[client][0].reaches(places[server][1], 80, timeout=1.0) else "-"


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_who_reaches_whom(make_machine: Callable[[str], Machine], row: Row) -> None:
    alpha, beta = make_machine("alpha"), make_machine("beta")
    require(alpha, *row.needs)
    cable(alpha, beta)
    if row.parent == "up0.50":
        beta.run("ip", "link", "add", "link", "up0", "name", "up0.50", "type", "vlan", "id", "50")
        beta.run("ip", "address", "add", "10.50.0.2/24", "dev", "up0.50")
        beta.run("ip", "link", "set", "up0.50", "up")
    try:
        seen = Site(alpha, beta, row).look()
    finally:
        beta.run("ip", "link", "delete", "up0.50", check=False)
        for subnet in row.subnets:
            beta.run("ip", "route", "delete", subnet, "via", ALPHA, check=False)
    table = [" " * 32 + " ".join(f"{c:>9}" for c in COLUMNS)]
    table += [f"{row!s:32}" + " ".join(f"{c:>9}" for c in cells) for cells in (seen,)]
    print("\n" + "\n".join(table))
    assert seen == row.expected, f"seen {seen!r}, expected {row.expected!r} of {' '.join(COLUMNS)}"
