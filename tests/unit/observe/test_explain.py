"""Explain: resources as commands that a person can paste."""

from __future__ import annotations

import shlex

import pytest

from netengine.kernel import ruleset
from netengine.kernel.plan import plan
from netengine.kernel.resources import (
    CREATION_ORDER,
    HOST,
    Address,
    Bridge,
    Element,
    Fdb,
    HostPort,
    Ipvlan,
    LinkUp,
    Macvlan,
    NameService,
    Namespace,
    NamespaceAlias,
    Neighbour,
    Relay,
    Resource,
    Route,
    Sysctl,
    Table,
    TokenBucket,
    Veth,
    Vlan,
    Vxlan,
    WireGuard,
    WireGuardPeer,
)
from netengine.observe.explain import explain

SANDBOX = "0123456789abcdef" * 4
VETH = Veth("veth0", "br0", SANDBOX, "eth0", "02:00:00:00:00:02", 1400)
EVERYTHING: tuple[Resource, ...] = (
    HostPort("0.0.0.0", "tcp", 8080),
    Namespace(SANDBOX),
    Table("ip"),
    Bridge("br0", "02:00:00:00:00:01", 1400, "netengine-br-1"),
    VETH,
    Vlan("eth0.50", "eth0", 50),
    Macvlan(SANDBOX, "eth1", "eth0", "bridge", "02:00:00:00:00:02"),
    Ipvlan(SANDBOX, "eth2", "eth3", "l3", "private", 1400),
    WireGuard("wg0", "fe80::1/64", 51840, "PUBLIC", 1440, "/keys/wireguard.key"),
    WireGuardPeer("wg0", "THEIRS", "192.0.2.2:51840", ("fe80::2/128",)),
    Vxlan("vx0", 4096, "192.0.2.1", 4789, "br0", 1450),
    Fdb("vx0", "02:42:0a:00:00:02", "192.0.2.2"),
    Neighbour("vx0", "10.0.0.2", "02:42:0a:00:00:02"),
    Sysctl(HOST, "net/ipv4/conf/br0/route_localnet", "1"),
    TokenBucket(HOST, "veth0", 10_000_000),
    Address(SANDBOX, "eth0", "10.0.0.2/24"),
    LinkUp(SANDBOX, "eth0"),
    NameService(SANDBOX),
    Route(SANDBOX, "default", "eth0", "10.0.0.1"),
    Element("ip", "ports", ("tcp", "8080"), ("10.0.0.2", "80")),
    Relay("::", "tcp", 8080, "10.0.0.2", 80),
    NamespaceAlias("web", SANDBOX),
)


def commands(*resources: Resource) -> list[str]:
    return [step.command for step in explain(resources)]


@pytest.mark.parametrize(
    ("resource", "command"),
    [
        (Address(HOST, "br0", "10.0.0.1/24"), "ip address add 10.0.0.1/24 broadcast + dev br0"),
        (Address(SANDBOX, "eth0", "10.0.0.2/24"), "ip -n 0123456789ab address add 10.0.0.2/24 broadcast + dev eth0"),
        (LinkUp(SANDBOX, "lo"), "ip -n 0123456789ab link set lo up"),
        (
            Route(SANDBOX, "default", "eth0", "10.0.0.1"),
            "ip -n 0123456789ab route add default via 10.0.0.1 dev eth0 proto 110",
        ),
        (Route(SANDBOX, "10.1.0.0/16", "eth0"), "ip -n 0123456789ab route add 10.1.0.0/16 dev eth0 proto 110"),
        (Sysctl(HOST, "net/ipv4/ip_forward", "1"), "sysctl -w 'net.ipv4.ip_forward=1'"),
        (
            Sysctl(SANDBOX, "net/ipv4/conf/eth0.100/forwarding", "1"),
            "ip netns exec 0123456789ab sysctl -w 'net.ipv4.conf.eth0/100.forwarding=1'",
        ),
        (
            Element("ip", "pairs", ("br0", "br0"), ("accept",)),
            """nft 'add element ip netengine pairs { "br0" . "br0" : accept }'""",
        ),
        (
            TokenBucket(SANDBOX, "eth0", 10_000_000),
            "tc -n 0123456789ab qdisc replace dev eth0 root handle 6e65: tbf rate 10000000bit burst 65536 limit 315536",
        ),
        (Vlan("eth0.50", "eth0", 50), "ip link add link eth0 name eth0.50 group 28261 type vlan id 50"),
        (
            Macvlan(SANDBOX, "eth1", "eth0.50", "bridge", "02:00:00:00:00:02"),
            "ip link add link eth0.50 name eth1 address 02:00:00:00:00:02 group 28261 netns 0123456789ab "
            "type macvlan mode bridge",
        ),
        (
            Ipvlan(SANDBOX, "eth1", "eth0", "l3", "private", 1400),
            "ip link add link eth0 name eth1 mtu 1400 group 28261 netns 0123456789ab type ipvlan mode l3 private",
        ),
        (
            Macvlan(HOST, "shim", "eth0", "bridge"),
            "ip link add link eth0 name shim group 28261 type macvlan mode bridge",
        ),
        (NamespaceAlias("web", SANDBOX), "ln -s /run/netns/0123456789ab /run/netns/web"),
        (
            Fdb("vx0", "02:42:0a:00:00:02", "192.0.2.2"),
            "bridge fdb replace 02:42:0a:00:00:02 dev vx0 dst 192.0.2.2 self permanent",
        ),
        (
            Fdb("vx0", "02:42:0a:00:00:02", "fe80::2", "wg0"),
            "bridge fdb replace 02:42:0a:00:00:02 dev vx0 dst fe80::2 via wg0 self permanent",
        ),
        (
            Neighbour("vx0", "fd00::2", "02:42:0a:00:00:02"),
            "ip neighbour replace fd00::2 lladdr 02:42:0a:00:00:02 dev vx0 nud permanent proto 110",
        ),
        (HostPort("0.0.0.0", "tcp", 8080), ": # netengined holds tcp 0.0.0.0:8080 with a bound socket"),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str) else "",
)
def test_a_resource_as_a_command(resource: Resource, command: str) -> None:
    assert commands(resource) == [command]


def test_an_isolated_port_is_isolated_before_it_comes_up() -> None:
    isolated = Veth("veth0", "br0", SANDBOX, "eth0", "02:00:00:00:00:02", 1400, isolated=True)
    lines = commands(isolated)
    assert lines.index("bridge link set dev veth0 isolated on") < lines.index("ip link set veth0 addrgenmode none up")
    assert "bridge link set dev veth0 isolated on" not in commands(VETH)


def test_a_bridge_is_made_and_marked_and_its_mtu_set_by_itself() -> None:
    """An MTU that a bridge is made with gives way to 1,500 when the last port leaves."""
    assert commands(Bridge("br0", "02:00:00:00:00:01", 1400, "netengine-br-1")) == [
        "ip link add br0 address 02:00:00:00:00:01 group 28261 type bridge stp_state 0 forward_delay 0",
        "ip link property add dev br0 altname netengine-br-1",
        "ip link set br0 mtu 1400 up",
    ]


def test_a_vxlan_link_learns_nothing_and_is_a_port() -> None:
    link = Vxlan("vx0", 4096, "fe80::1", 4789, "br0", 1370, parent="wg0")
    assert commands(link) == [
        "ip link add vx0 mtu 1370 group 28261 type vxlan id 4096 local fe80::1 dev wg0 dstport 4789 nolearning proxy",
        "ip link set vx0 mtu 1370 master br0 addrgenmode none up",
    ]


def test_the_cable_is_laid_in_one_command() -> None:
    assert commands(VETH)[0] == (
        "ip link add veth0 mtu 1400 group 28261 master br0 type veth "
        "peer name eth0 address 02:00:00:00:00:02 mtu 1400 netns 0123456789ab"
    )


def test_the_table_is_the_text_that_is_loaded() -> None:
    (command,) = commands(Table("ip"))
    assert ruleset.text("ip") in command


def test_every_kind_of_resource_can_be_explained() -> None:
    assert {type(r) for r in EVERYTHING} == set(CREATION_ORDER)
    assert len(explain(EVERYTHING)) >= len(EVERYTHING)


def test_every_command_says_why() -> None:
    assert all(step.why and "\n" not in step.why for step in explain(EVERYTHING))


def test_commands_come_in_the_order_of_the_plan() -> None:
    expected = [line for r in plan(EVERYTHING, ()).create for line in commands(r)]
    assert commands(*reversed(EVERYTHING)) == expected


def test_a_shell_reads_each_command_as_words() -> None:
    for step in explain(EVERYTHING):
        if "<<" not in step.command:
            assert shlex.split(step.command, comments=True)


def test_a_value_with_a_quote_stays_one_word() -> None:
    (command,) = commands(Sysctl(SANDBOX, "net/ipv4/ip_local_port_range", "1'; reboot; '"))
    assert shlex.split(command)[-1] == "net.ipv4.ip_local_port_range=1'; reboot; '"
