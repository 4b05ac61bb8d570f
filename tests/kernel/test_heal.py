"""Somebody took something away; the difference between what is wanted and what is there mends it, and packets flow again."""

from __future__ import annotations

import os

import pytest

from netengine.kernel import rules
from netengine.kernel.resources import Table
from tests.hosts import Namespace
from tests.kernel.machine import RUN_DIR, STRANGERS_STAY_OUT, Lan, Machine, port
from tests.kernel.packets import tcp


class Site:
    """A network with a server and a client, a published port, and a second network."""

    def __init__(self, machine: Machine, outside: Machine) -> None:
        self.machine = machine
        self.outside = outside
        self.lan = Lan(machine).build()
        Lan(machine, "br1", "10.2.0.0/24", internal=True).build()
        machine.build({STRANGERS_STAY_OUT})
        self.web = self.lan.sandbox("web", 2, port(8080, 80))
        self.client = self.lan.sandbox("client", 3)

    def must_work(self) -> None:
        tcp(self.client, "10.1.0.2", 80, self.web)
        tcp(self.outside, "192.0.2.1", 8080, self.web, 80)
        tcp(self.machine, "127.0.0.1", 8080, self.web, 80)
        assert tcp(self.client, "192.0.2.2", 80, self.outside) == "192.0.2.1"

    def heal(self) -> None:
        self.machine.heal()
        self.must_work()


@pytest.fixture
def site(machine: Machine, outside: Machine) -> Site:
    made = Site(machine, outside)
    made.must_work()
    return made


@pytest.mark.parametrize(
    "command",
    [
        "nft flush ruleset",
        "nft delete table ip netengine",
        "nft flush chain ip netengine filter-forward",
        "nft flush chain ip netengine nat-prerouting",
        "nft flush map ip netengine ports",
        "nft flush set ip netengine bridges",
        "nft delete element ip netengine ports { tcp . 8080 }",
        "ip link del br0",
        "ip link set br0 down",
        "ip link set br0 mtu 1300",
        "ip link set br0 address 02:00:00:00:00:99",
        "ip link property del dev br0 altname netengine-br-br0000000000",
        "ip address flush dev br0",
        "ip link del vwebbr0",
        "ip link set vwebbr0 down",
        "ip link set vwebbr0 nomaster",
        "ip link set vwebbr0 master br1",
        "bridge link set dev vwebbr0 isolated on",
        "sysctl -w net.ipv4.ip_forward=0",
        "sysctl -w net.ipv4.conf.br0.route_localnet=0",
        "ip -n web link del eth0",
        "ip -n web link set eth0 down",
        "ip -n web link set eth0 mtu 1300",
        "ip -n web link set eth0 address 02:00:00:00:00:98",
        "ip -n web address flush dev eth0",
        "ip -n web route del default",
        "ip -n web route replace default via 10.1.0.9 proto 110",
    ],
)
def test_healed(site: Site, command: str) -> None:
    site.machine.run(*_words(command))
    site.heal()


def _words(command: str) -> list[str]:
    """The command for `Machine.run`; sandboxes of this test have no name under /run/netns, where `ip -n` looks."""
    words = command.split()
    if words[:3] == ["ip", "-n", "web"]:
        return ["nsenter", f"--net={RUN_DIR / 'web'}", "ip", *words[3:]]
    return ["nft", command.removeprefix("nft ")] if words[0] == "nft" else words


def test_two_losses_at_once(site: Site) -> None:
    site.machine.run("nft", "flush ruleset")
    site.machine.run("ip", "link", "del", "br0")
    site.machine.run("ip", "link", "del", "vwebbr0")
    site.heal()


def test_what_was_not_damaged_is_not_touched(site: Site) -> None:
    """A connection that is open goes on while the rules are mended."""
    index = site.machine.json("ip", "-j", "link", "show", "vwebbr0")[0]["ifindex"]
    with site.web.listen(80) as listener, site.client.connect("10.1.0.2", 80) as here:
        there, _ = listener.accept()
        site.machine.run("nft", "flush ruleset")
        site.machine.heal()
        here.sendall(b"still here")
        assert there.recv(16) == b"still here"
        there.close()
    assert site.machine.json("ip", "-j", "link", "show", "vwebbr0")[0]["ifindex"] == index


def test_a_namespace_whose_file_was_unmounted_gets_it_back(site: Site) -> None:
    """It lives on, held by a process or by our own socket in it, and must not be made a second time."""
    before = os.stat(site.machine.path(RUN_DIR / "web")).st_ino
    site.machine.run("umount", "--lazy", str(RUN_DIR / "web"))
    assert site.machine.on_kernel(site.machine.kernel.keep_namespace, "web")
    assert os.stat(site.machine.path(RUN_DIR / "web")).st_ino == before
    site.heal()


def test_leftovers_of_an_earlier_life_are_swept_away(machine: Machine) -> None:
    """A daemon with an empty database finds by their marks the things that are not in it."""
    lan = Lan(machine).build()
    lan.sandbox("web", 2).close()
    machine.built = frozenset()
    machine.heal()
    machine.undo_everything()


@pytest.fixture
def user_rules(machine: Machine) -> list[str]:
    """Rules of the machine's owner in the chain that is theirs, of all sorts."""
    machine.build({Table("ip")})
    rules = [
        'iifname "eth9" ip saddr 203.0.113.0/24 tcp dport { 22, 80-90 } drop comment "mine, with { } and # in it"',
        "ct state vmap { invalid : drop }",
        'limit rate 10/second log prefix "odd: " level debug',
    ]
    for rule in rules:
        machine.run("nft", f"add rule ip netengine user-forward {rule}")
    return [line.strip() for line in listed(machine)]


def listed(machine: Machine) -> list[str]:
    return machine.run("nft", "--stateless", "list chain ip netengine user-forward").splitlines()


def test_the_user_s_chain_survives_a_reload_of_the_rules(machine: Machine, user_rules: list[str]) -> None:
    machine.run("nft", "flush chain ip netengine filter-forward")
    machine.heal()
    assert [line.strip() for line in listed(machine)] == user_rules


def test_sets_that_the_user_s_rules_need_survive_a_reload(machine: Machine) -> None:
    """Rules can only use sets of their own table."""
    machine.build({Table("ip")})
    machine.run("nft", "add set ip netengine blocklist { type ipv4_addr; elements = { 203.0.113.1 }; }")
    machine.run("nft", "add rule ip netengine user-forward ip saddr @blocklist drop")
    machine.run("nft", "flush chain ip netengine filter-forward")
    machine.heal()
    assert "203.0.113.1" in machine.run("nft", "list set ip netengine blocklist")
    assert any("@blocklist drop" in line for line in listed(machine))


@pytest.fixture
def old_version(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A table that an older netengine loaded, with a chain that the rules of today do not have."""
    extra = "    chain of-old { type filter hook input priority 99; policy accept; counter; }\n"
    with monkeypatch.context() as older:
        older.setattr(rules, "ROUTED", rules.ROUTED + extra)
        machine.apply({Table("ip")})
    machine.built = frozenset({Table("ip")})
    return machine


def test_rules_of_another_version_are_replaced(old_version: Machine) -> None:
    old_version.run("nft", "add rule ip netengine user-forward ip saddr 203.0.113.7 drop")
    old_version.heal()
    assert "of-old" not in old_version.rules() and old_version.rules().count("chain version-") == 1
    assert any("203.0.113.7 drop" in line for line in listed(old_version))


def test_rules_of_another_version_are_replaced_around_sets_of_the_user(old_version: Machine) -> None:
    old_version.run("nft", "add set ip netengine blocklist { type ipv4_addr; }")
    old_version.run("nft", "add rule ip netengine user-forward ip saddr @blocklist drop")
    old_version.heal()
    assert old_version.rules().count("chain version-") == 1
    assert any("@blocklist drop" in line for line in listed(old_version))


def test_the_user_s_chain_is_left_alone_by_everyday_work(machine: Machine, user_rules: list[str]) -> None:
    lan = Lan(machine).build()
    lan.sandbox("web", 2, port(8080, 80)).close()
    machine.make({Table("ip")})
    assert [line.strip() for line in listed(machine)] == user_rules


def test_the_user_s_rules_come_before_ours(machine: Machine) -> None:
    lan = Lan(machine).build()
    web, client = lan.sandbox("web", 2, port(8080, 80)), Lan(machine, "br1", "10.2.0.0/24").build().sandbox("client", 2)
    tcp(client, "10.2.0.1", 8080, web, 80)
    machine.run("nft", 'add rule ip netengine user-forward iifname "br1" tcp dport 80 drop')
    assert not reaches(client, "10.2.0.1", 8080)


def reaches(client: Namespace, address: str, number: int) -> bool:
    return client.reaches(address, number, 0.2)
