"""An overlay network on machines that are on one wire: packets of every kind across, and nothing that should not be."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import ICMPv6ND_NS, IPv6, IPv6ExtHdrFragment
from scapy.layers.l2 import ARP, Ether
from scapy.layers.vxlan import VXLAN

from netengine.drivers.overlay import mac_for
from netengine.drivers.underlay import Peer, Underlay
from netengine.errors import Conflict, KernelRefused
from tests.hosts import Namespace
from tests.kernel.machine import RUN_DIR, Lan, Machine
from tests.kernel.overlays import SWITCH, TABLES, MakeMachine, Overlay, site, underlays
from tests.kernel.packets import listening, ping, send_frame, tcp, udp
from tests.kernels import has

DUAL = ("10.0.9.0/24", "fd00:9::/64")
_MTU_DISCOVER, _MTU_DISCOVER6, _DO = 10, 23, 2  # IP_MTU_DISCOVER, IPV6_MTU_DISCOVER, IP_PMTUDISC_DO


@pytest.mark.parametrize("base", ["192.0.2.", "2001:db8::"], ids=["over IPv4", "over IPv6"])
def test_containers_on_three_hosts_reach_each_other(make_machine: MakeMachine, base: str) -> None:
    machines, _ = site(make_machine, "alpha", "beta", "gamma")
    net = Overlay(machines, underlays(3, base), subnets=DUAL)
    boxes = [net.join(host, f"s{host}", 10 + host) for host in range(3)]
    for client in range(3):
        for server in range(3):
            if client == server:
                continue
            for version in (4, 6):
                own, other = net.address(10 + client, version), net.address(10 + server, version)
                assert ping(boxes[client], other) == other
                assert tcp(boxes[client], other, 80, boxes[server]) == own
                assert udp(boxes[client], other, 53, boxes[server]) == own


def test_several_subnets_are_on_one_wire(make_machine: MakeMachine) -> None:
    machines, _ = site(make_machine, "alpha", "beta")
    net = Overlay(machines, underlays(2), subnets=("10.0.9.0/24", "10.0.10.0/24"))
    here, there = net.join(0, "here", 10), net.join(1, "there", 11, subnet=1)
    beside = net.join(0, "beside", 12, subnet=1)
    for place, subnet, number in ((there, 1, 11), (beside, 1, 12)):
        assert tcp(here, net.address(number, 4, subnet), 80, place) == net.address(10)


# -- the wire -----------------------------------------------------------------------------------------------------------


@contextmanager
def overheard(switch: Machine) -> Iterator[list[Any]]:
    """The frames inside VXLAN that crossed the wire in the block, up to a packet that is sent when it ends."""
    frames: list[Any] = []
    with listening(switch, SWITCH) as ear:
        yield frames
        mark = b"that is all"
        with switch.socket(socket.SOCK_DGRAM) as last:
            last.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            last.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, SWITCH.encode())
            send_frame(switch, SWITCH, Ether(dst="ff:ff:ff:ff:ff:ff", type=0x88B5) / mark)
        ear.hear(lambda frame: _note(frame, frames) or mark in bytes(frame))


def _note(frame: Any, into: list[Any]) -> None:
    if UDP in frame and frame[UDP].dport == 4789:
        outer = frame[UDP].payload
        into.append((outer if VXLAN in frame else VXLAN(bytes(outer)))[VXLAN].payload)


def test_who_has_is_answered_on_the_spot(make_machine: MakeMachine) -> None:
    """No ARP request, neighbour solicitation or any other broadcast leaves a host, whether it is answered or not."""
    machines, switch = site(make_machine, "alpha", "beta")
    net = Overlay(machines, underlays(2), subnets=DUAL)
    with overheard(switch) as frames:
        here, there = net.join(0, "here", 10), net.join(1, "there", 11)
        for version in (4, 6):
            assert ping(here, net.address(11, version)) == net.address(11, version)
            with pytest.raises((TimeoutError, OSError)):  # "no route to host", once nobody has answered for long
                ping(here, net.address(99, version), 0.2)
        for target in ("ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:fb", "33:33:00:00:00:fb"):
            send_frame(here, "eth0", Ether(src=net.peer(0, 10).mac, dst=target) / IP(dst="10.0.9.255") / UDP(dport=9))
        tcp(there, net.address(10), 80, here)
    assert [f.summary() for f in frames if int(f.dst[:2], 16) & 1 or ARP in f or ICMPv6ND_NS in f] == []
    assert any(f.src == net.peer(0, 10).mac and f.dst == net.peer(1, 11).mac for f in frames), "nothing was overheard"


def test_a_frame_to_an_unknown_address_goes_nowhere(make_machine: MakeMachine) -> None:
    machines, switch = site(make_machine, "alpha", "beta")
    net = Overlay(machines, underlays(2))
    net.join(0, "here", 10), net.join(1, "there", 11)
    here, source = machines[0].namespace("here"), net.peer(0, 10).mac
    known, unknown = net.peer(1, 11).mac, "02:42:0a:00:09:63"
    with overheard(switch) as frames:
        for target in (unknown, "ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01", known):
            send_frame(here, "eth0", Ether(src=source, dst=target) / IP(dst="10.0.9.99") / UDP(dport=9) / b"x")
    assert [f.dst for f in frames if f.haslayer(IP) and f[IP].dst == "10.0.9.99"] == [known]
    here.close()


@pytest.mark.parametrize(
    ("base", "wire", "inner"),
    [("192.0.2.", 1500, 1450), ("2001:db8::", 1500, 1430), ("192.0.2.", 9000, 8950)],
    ids=["over IPv4", "over IPv6", "jumbo frames"],
)
def test_a_packet_of_the_whole_mtu_fills_a_packet_of_the_wire(
    make_machine: MakeMachine, base: str, wire: int, inner: int
) -> None:
    machines, switch = site(make_machine, "alpha", "beta", mtu=wire)
    net = Overlay(machines, underlays(2, base, wire), subnets=DUAL)
    here, there = net.join(0, "here", 10), net.join(1, "there", 11)
    with listening(switch, SWITCH) as ear, there.socket(socket.SOCK_DGRAM, socket.AF_INET) as server:
        server.bind(("0.0.0.0", 53))
        with here.socket(socket.SOCK_DGRAM, socket.AF_INET) as client:
            client.setsockopt(socket.IPPROTO_IP, _MTU_DISCOVER, _DO)
            client.connect((net.address(11), 53))
            client.send(bytes(inner - 28))
            assert len(server.recv(wire)) == inner - 28
            seen = ear.hear(lambda frame: UDP in frame and frame[UDP].dport == 4789 and len(frame) > inner)
            assert len(seen) == wire + 14 and IPv6ExtHdrFragment not in seen
            assert seen[IPv6 if ":" in base else IP].fields.get("frag", 0) == 0
            with pytest.raises(OSError, match="Message too long"):
                client.send(bytes(inner - 27))
    for version in (4, 6):
        _carry(here, there, net.address(11, version), 1 << 20)


def _carry(client: Namespace, server: Namespace, address: str, size: int) -> None:
    """That many bytes over TCP, in segments as large as they get."""
    with server.listen(80, "::" if ":" in address else "0.0.0.0") as listener, client.connect(address, 80) as here:
        there, _ = listener.accept()
        with there:
            there.settimeout(20)
            here.settimeout(20)
            sent = memoryview(bytes(range(256)) * (size // 256))
            got = bytearray()
            position = 0
            while len(got) < size:
                position += here.send(sent[position : position + 65536]) if position < size else 0
                got += there.recv(1 << 18)
            assert bytes(got) == bytes(sent)


# -- who is kept out ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "filtered",
    [
        pytest.param(False, id="without br_netfilter"),
        pytest.param(True, id="with br_netfilter", marks=pytest.mark.needs("br_netfilter")),
    ],
)
def test_the_host_and_other_networks_are_apart(make_machine: MakeMachine, filtered: bool) -> None:
    """`here` knows the bridges' MAC addresses and sends to them whatever is to leave its own subnet."""
    machines, _ = site(make_machine, "alpha", "beta")
    alpha = machines[0]
    for machine in machines:
        for family in ("iptables", "ip6tables") if has("br_netfilter") else ():
            machine.run("sysctl", "-qw", f"net.bridge.bridge-nf-call-{family}={int(filtered)}")
    net = Overlay(machines, underlays(2), subnets=DUAL)
    other = Overlay(machines, underlays(2), subnets=("10.0.8.0/24", "fd00:8::/64"), vni=4097, name="other")
    lan = Lan(alpha, subnet6="fd00:1::/64").build()
    here, there = net.join(0, "here", 10), net.join(1, "there", 11)
    beside = net.join(0, "beside", 12)
    for place, subnet, number in ((there, 4, 11), (there, 6, 11), (beside, 4, 12), (beside, 6, 12)):
        tcp(here, net.address(number, subnet), 80, place)
    strangers = {"other": other.join(0, "other", 10), "lan": lan.sandbox("lan", 2)}
    for version, prefix, local in ((4, "192.0.2.0/24", "10.0.9.1"), (6, "2001:db8::/64", "fd00:9::1")):
        inside = ("nsenter", f"--net={RUN_DIR}/here", "ip", f"-{version}")
        alpha.run(*inside, "neigh", "add", local, "lladdr", net.settings.mac, "dev", "eth0", "nud", "permanent")
        alpha.run(*inside, "route", "add", prefix, "via", local, "dev", "eth0")
        own = ("192.0.2.1", "10.1.0.1") if version == 4 else ("2001:db8::1", "fd00:1::1")
        for address in (*own, other.address(10, version), "10.1.0.2" if version == 4 else "fd00:1::2"):
            alpha.run(*inside, "route", "replace", address, "via", local, "dev", "eth0")
            place = strangers["other"] if address == other.address(10, version) else strangers["lan"]
            with (alpha if address in own else place).listen(81, "::" if version == 6 else "0.0.0.0"):
                assert not here.reaches(address, 81), f"{address} is reached"
        for stranger in (alpha, *strangers.values()):
            for number, place in ((10, here), (11, there)):
                with place.listen(82, "::" if version == 6 else "0.0.0.0"):
                    assert not stranger.reaches(net.address(number, version), 82), f"{stranger.name} reaches {number}"
    assert alpha.dropped("the host has no part in an overlay network", "inet") >= 2


def test_another_network_s_frames_stay_there(make_machine: MakeMachine) -> None:
    """Two networks may have the same addresses: what tells them apart is the VNI."""
    machines, _ = site(make_machine, "alpha", "beta")
    one = Overlay(machines, underlays(2), vni=4096, name="one")
    two = Overlay(machines, underlays(2), vni=4097, name="two")
    one.join(0, "one0", 10)
    own, foreign = one.join(1, "one1", 11), two.join(1, "two1", 11)
    two.join(0, "two0", 10)
    for client, net in (("one0", own), ("two0", foreign)):
        place = machines[0].namespace(client)
        assert tcp(place, "10.0.9.11", 80, net) == "10.0.9.10"
        place.close()


def test_hearing_is_hearing(make_machine: MakeMachine) -> None:
    """The measure of this file itself: what does cross the wire is heard, unicast or not."""
    machines, switch = site(make_machine, "alpha", "beta")
    inner = Ether(src="02:00:00:00:00:01", dst="ff:ff:ff:ff:ff:ff") / ARP(pdst="10.0.9.1")
    packet = bytes(VXLAN(vni=4096, flags=8) / inner)
    with overheard(switch) as frames, machines[0].socket(socket.SOCK_DGRAM) as sender:
        sender.sendto(packet, ("192.0.2.2", 4789))
    assert [ARP in f for f in frames] == [True]


# -- what goes wrong ------------------------------------------------------------------------------------------------------


def test_a_data_path_port_in_use_is_said(machine: Machine) -> None:
    net = Overlay([machine], [Underlay("127.0.0.1", 1500, port=4790)])
    with machine.socket(socket.SOCK_DGRAM) as taken:
        taken.bind(("0.0.0.0", 4790))
        with pytest.raises(
            Conflict, match=r"UDP port 4790, the cluster's data path port, is in use .*--data-path-port"
        ):
            machine.apply(TABLES | net.resources(0))
        assert machine.observe() == set()
    machine.make(TABLES | net.resources(0))


def test_a_vni_of_somebody_else_s_is_said(machine: Machine) -> None:
    net = Overlay([machine], [Underlay("127.0.0.1", 1500)])
    machine.run("ip", "link", "add", "theirs", "type", "vxlan", "id", "4096", "dstport", "4789", "local", "127.0.0.1")
    machine.run("ip", "link", "set", "theirs", "up")
    machine.keep_this()
    with pytest.raises(Conflict, match=r"another VXLAN link .* has the network identifier 4096 .*vxlanid_list"):
        machine.apply(TABLES | net.resources(0))
    assert machine.observe() == set()
    machine.make(TABLES | Overlay([machine], [Underlay("127.0.0.1", 1500)], vni=4097).resources(0))


@pytest.mark.parametrize("vtep", ["203.0.113.9", "2001:db8:ff::9"])
def test_an_address_that_the_host_has_not_is_said(machine: Machine, vtep: str) -> None:
    net = Overlay([machine], [Underlay(vtep, 1500)])
    with pytest.raises(KernelRefused, match=rf"{vtep} is not an address of this host"):
        machine.apply(TABLES | net.resources(0))
    assert machine.observe() == set()


TAKEN_AWAY = {
    "the VXLAN link": ("ip", "link", "delete", "VX"),
    "the bridge": ("ip", "link", "delete", "BR"),
    "the VXLAN link is down": ("ip", "link", "set", "VX", "down"),
    "the VXLAN link is no port": ("ip", "link", "set", "VX", "nomaster"),
    "the VXLAN link is too large": ("ip", "link", "set", "VX", "mtu", "1500"),
    "it learns": ("ip", "link", "set", "VX", "type", "vxlan", "learning"),
    "its address": ("ip", "link", "set", "VX", "type", "vxlan", "id", "4096", "local", "127.0.0.1"),
    "a forwarding entry": ("bridge", "fdb", "del", "MAC", "dev", "VX", "self"),
    "a forwarding entry leads elsewhere": ("bridge", "fdb", "replace", "MAC", "dev", "VX", "dst", "192.0.2.9"),
    "frames are flooded": ("bridge", "fdb", "append", "00:00:00:00:00:00", "dev", "VX", "dst", "192.0.2.9"),
    "a neighbour": ("ip", "neigh", "del", "10.0.9.11", "dev", "VX"),
    "an IPv6 neighbour": ("ip", "neigh", "del", "fd00:9::b", "dev", "VX"),
    "a neighbour is another": ("ip", "neigh", "replace", "10.0.9.11", "lladdr", "02:00:00:00:00:99", "dev", "VX"),
    "a neighbour too many": ("ip", "neigh", "add", "10.0.9.66", "lladdr", "02:00:00:00:00:99", "dev", "VX"),
    "what keeps the host out": ("nft", "delete table inet netengine"),
    "who is kept out": ("nft", "delete element inet netengine sealed { BR }"),
    "all neighbours of IPv6": ("sysctl", "-qw", "net.ipv6.conf.VX.disable_ipv6=1"),
}


def test_what_was_taken_away_comes_back(make_machine: MakeMachine) -> None:
    machines, _ = site(make_machine, "alpha", "beta")
    net = Overlay(machines, underlays(2), subnets=DUAL)
    here, there = net.join(0, "here", 10), net.join(1, "there", 11)
    words = {"VX": net.settings.vxlan, "BR": net.settings.link, "MAC": net.peer(1, 11).mac}
    for what, argv in TAKEN_AWAY.items():
        machines[0].run(*(re.sub("VX|BR|MAC", lambda m: words[m[0]], word) for word in argv))
        missing = machines[0].built - machines[0].observe(machines[0].built)
        assert missing or "too many" in what or "flooded" in what, f"{what}: not noticed"
        machines[0].heal()
        for version in (4, 6):
            assert ping(here, net.address(11, version)) == net.address(11, version), what
    assert tcp(there, net.address(10), 80, here) == net.address(11)


def test_thousands_of_remote_endpoints(make_machine: MakeMachine) -> None:
    """In one go, and more than a neighbour table takes (gc_thresh3, as a rule 1,024): what is permanent does not count. When
    the link goes they go with it."""
    machine = make_machine("alpha")
    net = Overlay([machine], [Underlay("127.0.0.1", 1500)], subnets=("10.0.0.0/16", "fd00:9::/64"))
    machine.make(TABLES | net.resources(0))
    peers = [Peer(mac_for(net.address(n)), (net.address(n), net.address(n, 6)), "127.0.0.2") for n in range(10, 2010)]
    remote = frozenset(r for peer in peers for r in net.driver.render_peer(net.network, peer, net.underlays[0]))
    assert len(remote) == 6000
    started = time.monotonic()
    machine.build(remote)
    took = time.monotonic() - started
    steps = machine.apply(machine.built - remote, machine.built)
    assert set(steps.delete) == remote
    machine.built -= remote
    machine.build(remote)
    steps = machine.apply(TABLES, machine.built)
    assert len(steps.delete) < 20 and remote <= set(steps.implied)
    machine.built = TABLES
    machine.must_be_as_built()
    print(f"2,000 remote endpoints with two addresses: {took * 1000:.0f} ms, read back twice")
