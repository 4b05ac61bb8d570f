"""Attacks of containers on others of their bridge, tried with packets: another's MAC, IP, ARP, neighbours and routers.

On a network with `-o anti_spoof=true` none gets off the attacker's port. Without it some do, as with Docker; that they do here
shows that these tests would notice.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import UDP as UDP6
from scapy.layers.inet6 import (
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptPrefixInfo,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
)
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw

from tests.clients.lab import Lab
from tests.hosts import Namespace, wait_until

MARK = b"forged!"


@dataclass
class Place:
    """A network with three containers: one who attacks, one who is attacked, one whose name is used."""

    attacker: Namespace
    victim: Namespace
    mac: dict[str, str]
    ip: dict[str, str]
    ip6: dict[str, str]


def build(lab: Lab, network: str, *options: str) -> Place:
    flags = [word for option in options for word in ("-o", option)]
    lab.docker("network", "create", *flags, "--ipv6", "--subnet", "10.66.0.0/24", "--subnet", "fd66::/64", network)
    mac, ip, ip6 = {}, {}, {}
    for name in ("mallory", "alice", "bob"):
        lab.docker("run", "-d", "--name", name, "--network", network, "sandbox")
        found = lab.docker.inspect(name)["NetworkSettings"]["Networks"][network]
        mac[name], ip[name], ip6[name] = found["MacAddress"], found["IPAddress"], found["GlobalIPv6Address"]
    return Place(lab.sandbox("mallory"), lab.sandbox("alice"), mac, ip, ip6)


FORGERIES: dict[str, Callable[[Place], Packet]] = {
    "another's MAC": lambda p: (
        Ether(src=p.mac["bob"], dst=p.mac["alice"]) / IP(src=p.ip["mallory"], dst=p.ip["alice"]) / UDP() / Raw(MARK)
    ),
    "another's IPv4 address": lambda p: (
        Ether(src=p.mac["mallory"], dst=p.mac["alice"]) / IP(src=p.ip["bob"], dst=p.ip["alice"]) / UDP() / Raw(MARK)
    ),
    "an IPv4 address of nobody's": lambda p: (
        Ether(src=p.mac["mallory"], dst=p.mac["alice"]) / IP(src="198.51.100.1", dst=p.ip["alice"]) / UDP() / Raw(MARK)
    ),
    "another's IPv6 address": lambda p: (
        Ether(src=p.mac["mallory"], dst=p.mac["alice"])
        / IPv6(src=p.ip6["bob"], dst=p.ip6["alice"])
        / UDP6()
        / Raw(MARK)
    ),
    "gratuitous ARP": lambda p: (
        Ether(src=p.mac["mallory"], dst="ff:ff:ff:ff:ff:ff")
        / ARP(op=2, hwsrc=p.mac["mallory"], psrc=p.ip["bob"], hwdst="ff:ff:ff:ff:ff:ff", pdst=p.ip["bob"])
        / Raw(MARK)
    ),
    "an ARP reply for the gateway": lambda p: (
        Ether(src=p.mac["mallory"], dst=p.mac["alice"])
        / ARP(op=2, hwsrc=p.mac["mallory"], psrc="10.66.0.1", hwdst=p.mac["alice"], pdst=p.ip["alice"])
        / Raw(MARK)
    ),
    "an ARP request in another's name": lambda p: (
        Ether(src=p.mac["mallory"], dst="ff:ff:ff:ff:ff:ff")
        / ARP(op=1, hwsrc=p.mac["mallory"], psrc=p.ip["bob"], pdst=p.ip["alice"])
        / Raw(MARK)
    ),
    "ARP that gives another MAC inside": lambda p: (
        Ether(src=p.mac["mallory"], dst=p.mac["alice"])
        / ARP(op=2, hwsrc=p.mac["bob"], psrc=p.ip["mallory"], hwdst=p.mac["alice"], pdst=p.ip["alice"])
        / Raw(MARK)
    ),
    "a neighbour advertisement for another": lambda p: (
        Ether(src=p.mac["mallory"], dst=p.mac["alice"])
        / IPv6(src=p.ip6["mallory"], dst=p.ip6["alice"], hlim=255)
        / ICMPv6ND_NA(tgt=p.ip6["bob"], O=1, S=0)
        / ICMPv6NDOptDstLLAddr(lladdr=p.mac["mallory"])
        / Raw(MARK)
    ),
    "a neighbour solicitation in another's name": lambda p: (
        Ether(src=p.mac["mallory"], dst=p.mac["alice"])
        / IPv6(src=p.ip6["bob"], dst=p.ip6["alice"], hlim=255)
        / ICMPv6ND_NS(tgt=p.ip6["alice"])
        / ICMPv6NDOptSrcLLAddr(lladdr=p.mac["mallory"])
        / Raw(MARK)
    ),
    "a router advertisement": lambda p: advertisement(p) / Raw(MARK),
    "a tagged frame": lambda p: (
        Ether(src=p.mac["mallory"], dst=p.mac["alice"])
        / Dot1Q(vlan=5)
        / IP(src=p.ip["mallory"], dst=p.ip["alice"])
        / UDP()
        / Raw(MARK)
    ),
    "a frame tagged twice": lambda p: (
        Ether(src=p.mac["mallory"], dst=p.mac["alice"])
        / Dot1Q(vlan=5)
        / Dot1Q(vlan=6)
        / IP(src=p.ip["bob"], dst=p.ip["alice"])
        / UDP()
        / Raw(MARK)
    ),
    "no IP at all": lambda p: Ether(src=p.mac["mallory"], dst=p.mac["alice"], type=0x88B5) / Raw(MARK),
}


def advertisement(p: Place) -> Packet:
    """A container plays the router: CVE-2020-10749."""
    octets = bytearray.fromhex(p.mac["mallory"].replace(":", ""))
    local = (
        f"fe80::{octets[0] ^ 2:02x}{octets[1]:02x}:{octets[2]:02x}ff:fe{octets[3]:02x}:{octets[4]:02x}{octets[5]:02x}"
    )
    return (
        Ether(src=p.mac["mallory"], dst="33:33:00:00:00:01")
        / IPv6(src=local, dst="ff02::1", hlim=255)
        / ICMPv6ND_RA(routerlifetime=1800, prf=1)
        / ICMPv6NDOptPrefixInfo(
            prefix="2001:db8:bad::", prefixlen=64, L=1, A=1, validlifetime=600, preferredlifetime=600
        )
    )


def arrives(place: Place, *forged: Packet) -> bool:
    """Send frames from the attacker's container; whether one that is marked is at the victim's by the time that an honest one,
    sent last, is."""
    with _on_the_wire(place.victim) as sniffer, _on_the_wire(place.attacker) as sender:
        for frame in forged:
            sender.send(bytes(frame))
        return _arrived(place, sniffer, sender, place.mac["mallory"], place.ip["mallory"])


def _arrived(place: Place, sniffer: socket.socket, sender: socket.socket, mac: str, ip: str) -> bool:
    """Whether a frame that is marked came before an honest one that is sent now."""
    honest = b"honest %d" % time.monotonic_ns()
    sender.send(bytes(Ether(src=mac, dst=place.mac["alice"]) / IP(src=ip, dst=place.ip["alice"]) / UDP() / Raw(honest)))
    found, deadline = False, time.monotonic() + 20
    while time.monotonic() < deadline:
        frame = sniffer.recv(2048)
        found |= MARK in frame
        if honest in frame:
            return found
    raise AssertionError("the honest frame did not arrive")


def _on_the_wire(where: Namespace, link: str = "eth0") -> socket.socket:
    made = where.inside(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)))  # ETH_P_ALL
    try:
        made.bind((link, 0))
    except OSError:
        made.close()
        raise
    made.settimeout(20)
    return made


class Spammer(threading.Thread):
    """Sends a frame as often as it can from the moment that a link is there and up, until `enough`."""

    def __init__(self, where: Namespace, link: str, frame: Packet) -> None:
        super().__init__(name="spammer", daemon=True)
        self.enough = threading.Event()
        self.sent = 0
        self._where, self._link, self._frame = where, link, bytes(frame)

    def run(self) -> None:
        sender = None
        while not self.enough.is_set():
            try:
                sender = sender or _on_the_wire(self._where, self._link)
                sender.send(self._frame)
                self.sent += 1
            except OSError:  # not there yet, or not up
                continue
        if sender is not None:
            sender.close()


def test_a_container_that_is_connected_while_it_runs_is_guarded_from_its_first_frame(lab: Lab) -> None:
    place = build(lab, "guarded", "anti_spoof=true")
    lab.docker("run", "-d", "--name", "eve", "sandbox")
    forged = FORGERIES["gratuitous ARP"](place)
    with _on_the_wire(place.victim) as sniffer:
        spammer = Spammer(lab.sandbox("eve"), "eth1", forged)
        spammer.start()
        try:
            lab.docker("network", "connect", "guarded", "eve")
            wait_until(lambda: spammer.sent, "it spams")
        finally:
            spammer.enough.set()
            spammer.join()
        found = lab.docker.inspect("eve")["NetworkSettings"]["Networks"]["guarded"]
        with _on_the_wire(lab.sandbox("eve"), "eth1") as sender:
            assert not _arrived(place, sniffer, sender, found["MacAddress"], found["IPAddress"])


def test_no_forgery_leaves_the_port_of_a_guarded_container(lab: Lab) -> None:
    place = build(lab, "guarded", "anti_spoof=true")
    assert [what for what, forge in FORGERIES.items() if arrives(place, forge(place))] == []
    # What is not forged works: addresses are found, packets go there and back, also to a container that came later.
    lab.docker("run", "-d", "--name", "late", "--network", "guarded", "sandbox")
    for name in ("alice", "late"):
        for family in ("IPAddress", "GlobalIPv6Address"):
            address = lab.docker.inspect(name)["NetworkSettings"]["Networks"]["guarded"][family]
            inside = lab.docker.inspect("mallory")["NetworkSettings"]["SandboxKey"]
            words = ["nsenter", f"--net={inside}", "ping", "-c", "1", "-W", "5", address]
            lab.here.run(words, check=True)
    assert lab.netengine.json("doctor", "--format", "json")["Differences"] == []


def test_without_the_option_forgeries_get_through_as_with_docker(lab: Lab) -> None:
    place = build(lab, "open")
    for what in ("another's IPv4 address", "gratuitous ARP", "an ARP reply for the gateway", "a router advertisement"):
        assert arrives(place, FORGERIES[what](place)), f"{what}: this test would not notice"


@pytest.mark.parametrize("options", [(), ("anti_spoof=true",)], ids=["open", "guarded"])
def test_nobody_believes_a_container_that_plays_the_router(lab: Lab, options: tuple[str, ...]) -> None:
    """CVE-2020-10749: neither the other containers nor the host take a route or an address from it."""
    place = build(lab, "net", *options)
    key = lab.docker.inspect("alice")["NetworkSettings"]["SandboxKey"]

    def routes() -> tuple[str, str]:
        inside = lab.here.run(["nsenter", f"--net={key}", "ip", "-6", "route"], check=True).stdout
        return inside, lab.here.ip("-6", "route")

    before = routes()
    arrives(place, *[advertisement(place)] * 3)
    assert routes() == before


def test_the_guard_goes_with_the_container_and_the_table_with_the_last_network(lab: Lab) -> None:
    for number in (1, 2):
        lab.docker("network", "create", "-o", "anti_spoof=true", f"guarded{number}")
    lab.docker("run", "-d", "--name", "box", "--network", "guarded1", "--mac-address", "02:42:0a:0b:0c:0d", "sandbox")
    assert "02:42:0a:0b:0c:0d" in lab.here.rules()
    lab.here.run(["nft", "flush", "ruleset"], check=True)
    wait_until(lambda: "02:42:0a:0b:0c:0d" in lab.here.rules(), "the guard is healed")
    lab.daemon.restart()
    lab.docker("network", "disconnect", "guarded1", "box")
    assert "02:42:0a:0b:0c:0d" not in lab.here.rules()
    lab.docker("rm", "-f", "box")
    lab.docker("network", "rm", "guarded1")
    assert "table bridge netengine" in lab.here.rules()
    lab.docker("network", "rm", "guarded2")
    assert "table bridge" not in lab.here.rules()


def test_a_value_that_is_no_boolean_is_refused(lab: Lab) -> None:
    refused = lab.docker.refused("network", "create", "-o", "anti_spoof=maybe", "net")
    assert "invalid value 'maybe' for anti_spoof: it must be true or false" in refused.text
