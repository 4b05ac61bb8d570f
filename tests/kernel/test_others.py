"""What is not netengine's is never touched: links, addresses, tables, namespaces and routes of others."""

from __future__ import annotations

import re

import pytest

from netengine.errors import Conflict
from netengine.kernel import ruleset
from netengine.kernel.resources import Table, TableFamily
from netengine.kernel.ruleset import FAMILIES
from netengine.kernel.theirs import find_link, host_addresses, host_routes
from tests.kernel.machine import ALIAS_DIR, RUN_DIR, Lan, Machine, port
from tests.kernel.packets import tcp

THEIRS = """
table ip theirs {
    set bridges { type ifname; elements = { "br0" } }
    chain forward { type filter hook forward priority 10; policy accept; counter; }
}
table arp netengine {
    chain same-name-other-family { }
}
table bridge netengine {
    chain same-name-other-family { }
}
"""


@pytest.fixture
def crowded(machine: Machine) -> Machine:
    """A machine where others live already."""
    for words in (
        "link add docker0 type bridge",
        "link add their-br type bridge",
        "link add their-veth type veth peer name their-peer",
        "link set their-veth master docker0",
        "link set their-br up",
        "link set docker0 up",
        "address add 172.17.0.1/16 dev docker0",
        "address add 10.7.0.1/24 dev their-br",
        "route add 10.77.0.0/16 dev their-br",
        "route add 10.78.0.0/16 via 10.7.0.9 proto 109",
        "netns add their-sandbox",
    ):
        machine.run("ip", *words.split())
    machine.run("nft", "-f", "-", stdin=THEIRS)
    machine.keep_this()
    return machine


def test_building_and_removing_a_site_leaves_others_alone(crowded: Machine) -> None:
    """The fixture compares everything at the end."""
    lan = Lan(crowded).build()
    web, client = lan.sandbox("web", 2, port(8080, 80)), lan.sandbox("client", 3)
    tcp(client, "10.1.0.1", 8080, web, 80)
    crowded.make(())


def test_nothing_of_others_is_seen_as_ours(crowded: Machine) -> None:
    assert crowded.observe() == set()


def test_healing_leaves_others_alone(crowded: Machine) -> None:
    Lan(crowded).build().sandbox("web", 2).close()
    crowded.run("nft", "delete table ip netengine")
    crowded.run("ip", "link", "del", "br0")
    crowded.heal()


def test_addresses_that_others_give_our_bridge_s_sandbox_are_told_from_ours(crowded: Machine) -> None:
    """A second address on a bridge of others that is adopted is not taken for ours, and so never removed."""
    crowded.run("ip", "address", "add", "10.200.0.1/24", "dev", "docker0")
    crowded.keep_this()
    assert crowded.observe() == set()
    crowded.run("ip", "address", "show", "dev", "docker0")


def test_a_table_of_others_that_our_parser_would_not_read_is_never_listed(
    crowded: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    original = crowded.kernel.nft._nft.cmd
    monkeypatch.setattr(crowded.kernel.nft._nft, "cmd", lambda line: asked.append(line) or original(line))
    Lan(crowded).build()
    crowded.heal()
    listings = [line for text in asked for line in text.splitlines() if line.startswith("list")]
    assert listings and all(re.search(r" (ip6?|inet|bridge) netengine\b", line) for line in listings), listings


@pytest.mark.parametrize("family", FAMILIES)
def test_a_table_of_our_name_that_is_somebody_else_s_stays_as_it_is(machine: Machine, family: TableFamily) -> None:
    """Also one that has a set of a name of ours; one that is empty may be taken."""
    theirs = "set sealed { type ifname; }\nchain forward { counter; }\nchain mine { counter accept; }"
    machine.run("nft", f"add table {family} netengine")
    machine.apply({Table(family)})
    machine.apply((), {Table(family)})
    machine.run("nft", "-f", "-", stdin=f"table {family} netengine {{\n{theirs}\n}}\n")
    before = machine.run("nft", "list ruleset")
    with pytest.raises(Conflict, match=f"a table {family} netengine in nftables that is not netengine's"):
        machine.apply({Table(family)})
    machine.apply((), {Table(family)})
    assert machine.run("nft", "list ruleset") == before and not machine.observe()
    machine.run("nft", f"delete table {family} netengine")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_table_of_ours_is_known_without_its_mark(machine: Machine, family: TableFamily) -> None:
    machine.build({Table(family)})
    machine.run("nft", f"delete chain {family} netengine {ruleset.version(family)}")
    assert Table(family) not in machine.observe()
    machine.heal()


def test_a_symbolic_link_of_others_among_the_aliases_is_left_alone(machine: Machine) -> None:
    machine.on_kernel(lambda: ALIAS_DIR.mkdir())
    machine.path(ALIAS_DIR / "web").symlink_to("/run/docker/netns/abc")
    machine.keep_this()
    Lan(machine).build().sandbox("web", 2).close()
    machine.make(())
    assert str(machine.path(ALIAS_DIR / "web").readlink()) == "/run/docker/netns/abc"


def test_a_file_that_is_no_namespace_is_not_taken_for_one(machine: Machine) -> None:
    machine.path(RUN_DIR / "note").write_text("not a namespace")
    machine.keep_this()
    assert machine.observe() == set()


# ---------------------------------------------------------------------- questions about what is not ours


def test_routes_of_the_host_are_told_apart_from_ours(crowded: Machine) -> None:
    Lan(crowded).build()
    routes = {str(prefix) for prefix in crowded.on_kernel(host_routes, crowded.kernel)}
    assert {"172.17.0.0/16", "10.7.0.0/24", "10.77.0.0/16", "10.78.0.0/16"} <= routes
    assert "10.1.0.0/24" not in routes


def test_a_link_is_found_by_name_with_its_owner(crowded: Machine) -> None:
    Lan(crowded).build()
    theirs, ours = (crowded.on_kernel(find_link, crowded.kernel, name) for name in ("docker0", "br0"))
    assert theirs is not None and (theirs.kind, theirs.ours) == ("bridge", False)
    assert [str(a) for a in theirs.addresses] == ["172.17.0.1/16"]
    assert ours is not None and ours.ours
    assert crowded.on_kernel(find_link, crowded.kernel, "nowhere") is None


def test_the_host_s_addresses(crowded: Machine) -> None:
    assert {"127.0.0.1", "172.17.0.1", "10.7.0.1"} <= set(crowded.on_kernel(host_addresses, crowded.kernel))
