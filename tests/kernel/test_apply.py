"""Each kind of resource on a real kernel: made, seen with the system's own tools, changed, removed."""

from __future__ import annotations

import errno
import logging
import os
import socket
from typing import Any

import pytest

from netengine.errors import KernelRefused
from netengine.kernel import elements as packing
from netengine.kernel import messages, namerules, nameservice, namespaces, nfbatch
from netengine.kernel.insides import Change, Insides
from netengine.kernel.nftables import commands
from netengine.kernel.resources import (
    HOST,
    Address,
    Bridge,
    Element,
    Family,
    HostPort,
    LinkUp,
    NameService,
    Namespace,
    NamespaceAlias,
    Resource,
    Route,
    Sysctl,
    Table,
    Veth,
)
from tests.kernel.machine import ALIAS_DIR, RUN_DIR, Machine, box

BRIDGE = Bridge("br0", "02:00:00:00:00:01", 1400, "netengine-br-0")
OTHER_BRIDGE = Bridge("br1", "02:00:00:00:00:02", 1400, "netengine-br-1")
VETH = Veth("veth0", "br0", "s0", "eth0", "02:00:00:00:00:0a", 1400)
GROUND: frozenset[Resource] = frozenset({BRIDGE, *box("s0")})
ADDRESS = Address("s0", "eth0", "10.0.0.2/24")
UP = LinkUp("s0", "eth0")


def link(machine: Machine, name: str, ns: str = "") -> Any:
    enter = ["nsenter", f"--net={RUN_DIR / ns}"] if ns else []
    (found,) = machine.json(*enter, "ip", "-d", "-j", "link", "show", "dev", name)
    return found


def test_a_namespace_is_kept_by_a_file_of_its_name(machine: Machine) -> None:
    machine.build({Namespace("s0")})
    assert machine.path(RUN_DIR / "s0").stat().st_ino != os.stat("/proc/self/ns/net").st_ino
    assert str(RUN_DIR / "s0") in machine.snapshot()["mounts"]


def test_links_of_a_namespace_have_no_ipv6_and_announce_themselves(machine: Machine) -> None:
    machine.build({Namespace("s0")})
    sandbox = machine.namespace("s0")
    assert sandbox.sysctl("net.ipv6.conf.default.disable_ipv6") == "1"
    assert sandbox.sysctl("net.ipv4.conf.default.arp_notify") == "1"
    sandbox.close()


def test_the_thread_is_back_home_after_a_namespace_was_made(machine: Machine) -> None:
    home = machine.on_kernel(os.readlink, "/proc/thread-self/ns/net")
    machine.build(box("s0"))
    assert machine.on_kernel(os.readlink, "/proc/thread-self/ns/net") == home


def test_what_is_brief_enters_no_namespace(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def enter(*_: object) -> None:
        raise AssertionError("a namespace is entered")

    before = frozenset({*GROUND, Table("ip")})
    after = before | {
        VETH, UP, ADDRESS, Route("s0", "default", "eth0", "10.0.0.1"), HostPort("127.0.0.1", "tcp", 8080),
        Element("ip", "masquerading", ("br0",)),
    }  # fmt: skip
    machine.build(before)
    monkeypatch.setattr(namespaces, "entered", enter)
    for have, want in ((before, after), (after, before)):
        assert machine.kernel.is_brief(want, have)
        machine.on_kernel(machine.kernel.apply, want, have)
    served = before | {NameService("s0")}
    assert machine.kernel.is_brief(served, before), "its sockets were opened along with the sandbox"
    machine.kernel.apply(served, before)  # by a thread that has nothing to do with it
    monkeypatch.undo()
    assert not machine.kernel.is_brief(before, served)
    assert not machine.kernel.is_brief(served, before), "they are in use"
    machine.on_kernel(machine.kernel.apply, before, served)
    assert machine.kernel.is_brief(served, before), "others are ready for the next time"
    for more in (
        Namespace("s1"),
        NameService("s0", own_servers=(4,)),
        Sysctl("s0", "net/ipv4/ip_forward", "1"),
        Veth("v", "", "s0", "e", "", 1500),
    ):
        assert not machine.kernel.is_brief(before | {more}, before)
    assert not machine.kernel.is_brief(before | {LinkUp("s1", "lo")}, before), "its socket is opened in it first"


@pytest.mark.parametrize("at_once", [True, False], ids=["", "as before 6.2"])
def test_what_is_said_of_a_link_that_was_taken_out_of_use_can_be_told(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, at_once: bool
) -> None:
    monkeypatch.setattr(messages, "RENAMES_WHAT_IS_UP", at_once and messages.RENAMES_WHAT_IS_UP)
    heard = machine.on_kernel(Insides)
    machine.build(GROUND)
    connected = frozenset({VETH, UP, ADDRESS})
    machine.on_kernel(machine.kernel.apply, connected, ())
    machine.on_kernel(machine.kernel.apply, frozenset(), connected)
    (descriptor,) = heard.descriptors()
    changes = [c for c in heard.read(descriptor) if isinstance(c, Change) and c.subject == "eth0"]
    assert changes and {("s0", c.index) for c in changes} == machine.kernel.buried
    machine.on_kernel(machine.kernel.apply, connected, ())  # the names are free
    machine.on_kernel(machine.kernel.apply, frozenset(), connected)
    machine.on_kernel(machine.kernel.reap)
    assert not machine.kernel.buried
    heard.close()


def test_a_file_left_by_an_unmounted_namespace_is_in_nobody_s_way(machine: Machine) -> None:
    machine.path(RUN_DIR / "s0").touch()
    machine.build({Namespace("s0")})


def test_an_alias_is_where_ip_netns_looks(machine: Machine) -> None:
    machine.build({*box("s0"), NamespaceAlias("web", "s0")})
    assert machine.run("ip", "netns", "exec", "web", "ip", "-br", "link").split()[:2] == ["lo", "UNKNOWN"]


def test_an_alias_moves_to_another_namespace(machine: Machine) -> None:
    machine.build({*box("s0"), *box("s1"), NamespaceAlias("web", "s0")})
    machine.make({*box("s0"), *box("s1"), NamespaceAlias("web", "s1")})
    assert machine.path(ALIAS_DIR / "web").readlink() == RUN_DIR / "s1"


def test_somebody_else_s_namespace_of_that_name_is_left_alone(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    machine.run("ip", "netns", "add", "web")
    machine.keep_this()
    with caplog.at_level(logging.WARNING):
        machine.apply({*box("s0"), NamespaceAlias("web", "s0")})
    assert "exists and is not netengine's" in caplog.text
    machine.run("ip", "netns", "exec", "web", "true")


def test_a_bridge(machine: Machine) -> None:
    machine.build({BRIDGE})
    seen = link(machine, "br0")
    assert (seen["address"], seen["mtu"], seen["altnames"]) == (BRIDGE.mac, 1400, ["netengine-br-0"])
    assert "UP" in seen["flags"] and seen["group"] == "28261"
    assert seen["linkinfo"]["info_data"]["stp_state"] == seen["linkinfo"]["info_data"]["forward_delay"] == 0


def test_a_bridge_keeps_its_mac_when_ports_come_and_go(machine: Machine) -> None:
    low = Veth("veth0", "br0", "s0", "eth0", "02:00:00:00:00:00", 1400)
    machine.build(GROUND | {low})
    machine.take({low})
    assert link(machine, "br0")["address"] == BRIDGE.mac


def test_a_bridge_changes_mac_and_mtu_in_place(machine: Machine) -> None:
    machine.build({BRIDGE})
    index = link(machine, "br0")["ifindex"]
    machine.make({Bridge("br0", "02:00:00:00:00:77", 1300, "netengine-br-0")})
    seen = link(machine, "br0")
    assert (seen["ifindex"], seen["address"], seen["mtu"]) == (index, "02:00:00:00:00:77", 1300)


def test_a_veth_pair_leads_from_the_bridge_into_the_sandbox(machine: Machine) -> None:
    machine.build(GROUND | {VETH})
    outer, inner = link(machine, "veth0"), link(machine, "eth0", "s0")
    assert (outer["master"], outer["mtu"], outer["group"]) == ("br0", 1400, "28261")
    assert "UP" in outer["flags"] and outer["inet6_addr_gen_mode"] == "none"
    assert (inner["address"], inner["mtu"]) == (VETH.peer_mac, 1400)
    assert "UP" not in inner["flags"], "it comes up when it has its address"


def test_an_isolated_port(machine: Machine) -> None:
    machine.build(GROUND | {Veth("veth0", "br0", "s0", "eth0", VETH.peer_mac, 1400, isolated=True)})
    assert link(machine, "veth0")["linkinfo"]["info_slave_data"]["isolated"] is True


def test_a_veth_changes_mtu_and_isolation_in_place(machine: Machine) -> None:
    machine.build(GROUND | {VETH, UP})
    index = link(machine, "veth0")["ifindex"]
    machine.make(GROUND | {UP, Veth("veth0", "br0", "s0", "eth0", VETH.peer_mac, 1300, isolated=True)})
    assert (link(machine, "veth0")["ifindex"], link(machine, "eth0", "s0")["mtu"]) == (index, 1300)


def test_an_isolated_port_that_moves_to_another_bridge_stays_isolated(machine: Machine) -> None:
    """The flag belongs to the port, and on another bridge it is a new port."""
    ground = GROUND | {OTHER_BRIDGE, UP}
    machine.build(ground | {Veth("veth0", "br0", "s0", "eth0", VETH.peer_mac, 1400, isolated=True)})
    machine.make(ground | {Veth("veth0", "br1", "s0", "eth0", VETH.peer_mac, 1400, isolated=True)})
    assert link(machine, "veth0")["linkinfo"]["info_slave_data"]["isolated"] is True


def test_a_veth_with_another_mac_is_made_anew_with_all_that_it_carried(machine: Machine) -> None:
    carried = {ADDRESS, UP, Route("s0", "default", "eth0", "10.0.0.1")}
    machine.build(GROUND | {VETH, *carried})
    machine.make(GROUND | {Veth("veth0", "br0", "s0", "eth0", "02:00:00:00:00:0b", 1400), *carried})
    assert link(machine, "eth0", "s0")["address"] == "02:00:00:00:00:0b"


def test_an_address_has_its_broadcast_address(machine: Machine) -> None:
    machine.build({BRIDGE, Address(HOST, "br0", "10.0.0.1/24")})
    assert "10.0.0.1/24 brd 10.0.0.255" in machine.run("ip", "-o", "address", "show", "br0")


def test_a_route_carries_our_protocol_number(machine: Machine) -> None:
    machine.build(GROUND | {VETH, ADDRESS, UP, Route("s0", "default", "eth0", "10.0.0.1")})
    routes = machine.json("nsenter", f"--net={RUN_DIR}/s0", "ip", "-j", "route", "show", "proto", "110")
    assert [(r["dst"], r["gateway"], r["dev"]) for r in routes] == [("default", "10.0.0.1", "eth0")]


def test_a_route_changes_its_gateway(machine: Machine) -> None:
    ground = GROUND | {VETH, ADDRESS, UP}
    machine.build(ground | {Route("s0", "default", "eth0", "10.0.0.1")})
    machine.make(ground | {Route("s0", "default", "eth0", "10.0.0.9")})


def test_a_route_moves_to_another_link(machine: Machine) -> None:
    second = {Veth("veth1", "br0", "s0", "eth1", "02:00:00:00:00:0c", 1400), LinkUp("s0", "eth1")}
    ground = GROUND | {VETH, ADDRESS, UP, *second, Address("s0", "eth1", "10.9.0.2/24")}
    machine.build(ground | {Route("s0", "default", "eth0", "10.0.0.1")})
    machine.make(ground | {Route("s0", "default", "eth1", "10.9.0.1")})


def test_a_sysctl_is_set_in_its_namespace_alone(machine: Machine) -> None:
    machine.build({*box("s0"), Sysctl("s0", "net/ipv4/ip_unprivileged_port_start", "0")})
    sandbox = machine.namespace("s0")
    assert sandbox.sysctl("net.ipv4.ip_unprivileged_port_start") == "0"
    assert machine.sysctl("net.ipv4.ip_unprivileged_port_start") == "1024"
    sandbox.close()


def test_a_sysctl_of_a_link_with_a_dot_in_its_name(machine: Machine) -> None:
    dotted = Bridge("br.0", "02:00:00:00:00:01", 1500, "netengine-br-0")
    machine.build({dotted, Sysctl(HOST, "net/ipv4/conf/br.0/route_localnet", "1")})


def test_elements_of_every_set_and_map(machine: Machine) -> None:
    elements = {
        Element("ip", "bridges", ("br0",)),
        Element("ip", "internal", ("br0",)),
        Element("ip", "masquerading", ("br0",)),
        Element("ip", "pairs", ("br0", "br1"), ("accept",)),
        Element("ip", "hairpins", ("br0", "10.0.0.0/24")),
        Element("ip", "subnets", ("10.0.0.0/24",)),
        Element("ip", "ports", ("tcp", "80"), ("10.0.0.2", "8080")),
        Element("ip", "ports", ("sctp", "80"), ("10.0.0.2", "8080")),
        Element("ip", "address-ports", ("127.0.0.1", "udp", "53"), ("10.0.0.2", "53")),
        Element("ip", "published", ("10.0.0.2", "tcp", "8080")),
        Element("ip", "links", ("br0", "10.0.0.3", "10.0.0.2", "tcp", "8080")),
        Element("ip", "strangers", ("ip",), ("drop",)),
        Element("inet", "sealed", ("br1",)),
    }
    machine.build({Table("ip"), Table("inet"), *elements})
    machine.take(elements)


def test_neighbouring_subnets_and_host_routes_are_read_back_as_they_were_written(machine: Machine) -> None:
    """An interval set may merge or print ranges in a form of its own."""
    subnets = ("10.0.0.0/24", "10.0.1.0/24", "10.0.2.0/31", "10.0.2.2/32", "172.16.0.0/12", "0.0.0.0/8")
    machine.build({Table("ip"), *(Element("ip", "subnets", (s,)) for s in subnets)})
    machine.take({Element("ip", "subnets", ("10.0.1.0/24",))})


PLAIN = {
    "ports": (("PROTOCOL", "8080"), ("ADDRESS", "80")),
    "address-ports": (("ADDRESS", "PROTOCOL", "8080"), ("ADDRESS", "65535")),
    "published": (("ADDRESS", "PROTOCOL", "80"), ()),
    "open": (("ADDRESS", "PROTOCOL", "256"), ()),
}


@pytest.mark.parametrize("family", ["ip", "ip6"])
def test_an_element_that_we_pack_is_what_nft_makes_of_its_text(machine: Machine, family: Family) -> None:
    machine.build({Table(family)})

    def filled(name: str, parts: tuple[str, ...], value: tuple[str, ...], protocol: str) -> Element:
        words = {"PROTOCOL": protocol, "ADDRESS": {"ip": "10.1.2.3", "ip6": "fd00:1::2:3"}[family]}
        return Element(family, name, *(tuple(words.get(p, p) for p in side) for side in (parts, value)))

    wanted = [filled(name, *form, protocol) for name, form in PLAIN.items() for protocol in ("tcp", "udp", "sctp")]
    assert all(map(packing.is_plain, wanted))
    nft = machine.kernel.nft

    def listed() -> str:
        return machine.run("nft", "list", "table", family, "netengine")

    empty = listed()
    machine.on_kernel(nft.change, "add", wanted)
    ours = listed()
    machine.on_kernel(nft.change, "add", wanted)  # they are there
    machine.on_kernel(nft.change, "delete", wanted)
    assert listed() == empty
    machine.on_kernel(nft.run, commands("add", wanted))
    assert listed() == ours != empty
    other = [Element(e.family, e.container, e.parts, (e.value[0], "1")) for e in wanted if e.value]
    for _ in range(2):  # an answer that nobody read would be taken for the next one's
        with pytest.raises(KernelRefused, match=r"nftables refused: .*: add element .* and 5 more"):
            machine.on_kernel(nft.change, "add", other)
    assert listed() == ours
    machine.on_kernel(nft.change, "delete", wanted)
    for _ in range(2):
        with pytest.raises(KernelRefused, match=os.strerror(errno.ENOENT)):
            machine.on_kernel(nft.change, "delete", wanted)
    machine.on_kernel(nft.change, "add", wanted[:1])
    machine.on_kernel(nft.change, "delete", wanted[:1])
    assert listed() == empty


def test_an_element_changes_its_value_in_one_transaction(machine: Machine) -> None:
    machine.build({Table("ip"), Element("ip", "ports", ("tcp", "80"), ("10.0.0.2", "8080"))})
    machine.make({Table("ip"), Element("ip", "ports", ("tcp", "80"), ("10.0.0.3", "8080"))})


def test_thousands_of_elements_go_in_and_out(machine: Machine) -> None:
    """More than fit into one command."""
    elements = {Element("ip", "ports", ("udp", str(n)), ("10.0.0.2", str(n))) for n in range(1, 5001)}
    machine.build({Table("ip"), *elements})
    machine.take(elements)


def test_removing_what_others_have_removed_already_is_no_error(machine: Machine) -> None:
    table: set[Resource] = {Table("ip"), Element("ip", "bridges", ("br0",)), Element("ip", "internal", ("br0",))}
    everything = GROUND | {VETH, ADDRESS, UP, NamespaceAlias("web", "s0"), *table}
    machine.build(everything)
    machine.run("ip", "link", "del", "veth0")
    machine.run("ip", "link", "del", "br0")
    machine.run("nft", "delete element ip netengine bridges { br0 }")
    machine.path(ALIAS_DIR / "web").unlink()
    machine.make(())


def test_a_namespace_that_others_unmounted_is_removed_without_error(machine: Machine) -> None:
    machine.build(GROUND | {VETH, ADDRESS})
    machine.run("umount", str(RUN_DIR / "s0"))
    machine.make(())


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_a_held_port_is_bound(machine: Machine, protocol: Any) -> None:
    machine.build({HostPort("0.0.0.0", protocol, 8080)})
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with machine.socket(kind) as rival, pytest.raises(OSError, match="Address already in use"):
        rival.bind(("0.0.0.0", 8080))


def test_a_name_service_has_sockets_on_its_address_and_rules_that_lead_there(machine: Machine) -> None:
    machine.build({*box("s0"), NameService("s0")})
    udp, tcp, *rest = machine.on_kernel(machine.kernel.take_name_sockets, "s0")
    assert rest == []
    sandbox = machine.namespace("s0")
    with udp, tcp, sandbox.socket(socket.SOCK_DGRAM) as client:
        client.sendto(b"query", ("127.0.0.11", 53))
        udp.setblocking(True)
        assert udp.recvfrom(16)[0] == b"query"
        sandbox.connect("127.0.0.11", 53).close()
    sandbox.close()


def test_the_sandbox_s_own_port_53_stays_free(machine: Machine) -> None:
    machine.build({*box("s0"), NameService("s0")})
    sandbox = machine.namespace("s0")
    sandbox.listen(53).close()
    sandbox.close()


def test_a_name_service_that_was_flushed_is_missing(machine: Machine) -> None:
    machine.build({*box("s0"), NameService("s0")})
    machine.run("nsenter", f"--net={RUN_DIR}/s0", "nft", "flush ruleset")
    assert NameService("s0") not in machine.observe(machine.built)
    machine.heal()


def test_a_name_service_that_is_taken_away_leaves_the_sandbox_s_rules_alone(machine: Machine) -> None:
    machine.build({*box("s0"), NameService("s0")})
    machine.run("nsenter", f"--net={RUN_DIR}/s0", "nft", "add table ip theirs")
    machine.take({NameService("s0")})
    assert machine.run("nsenter", f"--net={RUN_DIR}/s0", "nft", "list tables").split("\n") == ["table ip theirs", ""]


def test_packed_rules_of_a_name_service_are_those_that_nft_reads(machine: Machine) -> None:
    sock = machine.on_kernel(nfbatch.open_socket)
    namerules.load(sock, 4660, 22136)
    listing = [
        "nft",
        "--debug=netlink",
        "list",
        "table",
        "ip",
        namerules.TABLE,
    ]  # with what the kernel has of each rule
    packed = machine.run(*listing)
    with pytest.raises(FileExistsError):
        namerules.load(sock, 1, 2)
    assert machine.run(*listing) == packed
    machine.run("nft", "add", "chain", "ip", namerules.TABLE, "theirs")
    namerules.load(sock, 4660, 22136, afresh=True)
    assert machine.run(*listing) == packed
    machine.run("nft", "delete", "table", "ip", namerules.TABLE)
    machine.run("nft", "-f", "-", stdin=nameservice.rules(4660, 22136))
    assert machine.run(*listing) == packed
    machine.run("nft", "delete", "table", "ip", namerules.TABLE)
