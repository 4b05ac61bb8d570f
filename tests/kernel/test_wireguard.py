"""Encrypted overlay networks: through WireGuard and no other way, with the kernel's own or with wireguard-go."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from scapy.layers.vxlan import VXLAN

from netengine.drivers.underlay import Tunnel, Underlay
from netengine.drivers.wireguard import PORT
from netengine.errors import Conflict, KernelRefused, Unsupported
from netengine.kernel import wgkeys, wireguard
from netengine.kernel.host import Kernel
from netengine.kernel.resources import WireGuard
from netengine.observe.explain import explain
from tests.hosts import wait_until
from tests.kernel.machine import ALIAS_DIR, RUN_DIR, Machine
from tests.kernel.overlays import PEERS, SWITCH, MakeMachine, Overlay, Tunnels, site, tunnelled
from tests.kernel.packets import listening, ping, tcp, udp
from tests.kernels import has
from tests.patience import patient

DUAL = ("10.0.9.0/24", "fd00:9::/64")


@pytest.fixture(autouse=True)
def programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """wireguard-go and wg are this machine's, or those that `scripts/install --test` unpacked."""
    monkeypatch.setenv("PATH", f"{os.environ['PATH']}:{PEERS}")


@pytest.mark.parametrize("base", ["192.0.2.", "2001:db8::"], ids=["over IPv4", "over IPv6"])
def test_containers_reach_each_other_through_the_tunnel(make_machine: MakeMachine, base: str, tmp_path: Path) -> None:
    machines, _ = site(make_machine, "alpha", "beta", "gamma")
    hosts = tunnelled(3, base)
    Tunnels(machines, hosts, tmp_path).build()
    net = Overlay(machines, hosts, subnets=DUAL, options={"encrypted": ""})
    boxes = [net.join(host, f"s{host}", 10 + host) for host in range(3)]
    for client, server in ((0, 1), (1, 2), (2, 0)):
        for version in (4, 6):
            own, other = net.address(10 + client, version), net.address(10 + server, version)
            assert ping(boxes[client], other) == other
            assert tcp(boxes[client], other, 80, boxes[server]) == own
            assert udp(boxes[client], other, 53, boxes[server]) == own


def test_nothing_readable_is_on_the_wire(make_machine: MakeMachine, tmp_path: Path) -> None:
    machines, switch = site(make_machine, "alpha", "beta")
    hosts = tunnelled(2)
    Tunnels(machines, hosts, tmp_path).build()
    secret = b"the words of the secret conversation"
    for name, vni, options in (("plain", 4096, {}), ("hidden", 4097, {"encrypted": ""})):
        net = Overlay(machines, hosts, vni=vni, name=name, options=options)
        here, there = net.join(0, f"{name}0", 10), net.join(1, f"{name}1", 11)
        with listening(switch, SWITCH) as ear, there.socket(socket.SOCK_DGRAM) as server:
            server.bind(("0.0.0.0", 53))
            with here.socket(socket.SOCK_DGRAM) as client:
                client.sendto(secret, (net.address(11), 53))
            assert server.recv(100) == secret
            # What carried it has passed; everything up to it is looked at.
            frames: list[Any] = []
            port = 4789 if name == "plain" else 51840
            ear.hear(
                lambda f, frames=frames, port=port: (
                    frames.append(f) or (UDP in f and f[UDP].dport == port and len(f) > 100)
                )
            )
            read = [f for f in frames if secret in bytes(f) or (UDP in f and f[UDP].dport == 4789)]
            assert bool(read) == (name == "plain"), [f.summary() for f in read]


@pytest.mark.parametrize("base", ["192.0.2.", "2001:db8::"], ids=["over IPv4", "over IPv6"])
def test_a_plain_frame_does_not_get_into_an_encrypted_network(
    make_machine: MakeMachine, base: str, tmp_path: Path
) -> None:
    """From the wire, to every address that the host has, with the right identifier and addresses."""
    machines, switch = site(make_machine, "alpha", "beta")
    hosts = tunnelled(2, base)
    Tunnels(machines, hosts, tmp_path).build()
    hidden = Overlay(machines, hosts, vni=4097, name="hidden", options={"encrypted": "true"})
    plain = Overlay(machines, hosts, subnets=("10.0.8.0/24",), vni=4096, name="plain")
    hidden.join(0, "hidden0", 10).close(), plain.join(0, "plain0", 10).close()
    inside, open_ = hidden.join(1, "hidden1", 11), plain.join(1, "plain1", 11)
    switch.run("ip", "address", "add", "192.0.2.99/24", "dev", SWITCH)
    switch.run("sysctl", "-qw", f"net.ipv6.conf.{SWITCH}.accept_dad=0", f"net.ipv6.conf.{SWITCH}.disable_ipv6=0")
    switch.run("ip", "address", "add", "2001:db8::99/64", "dev", SWITCH, "nodad")
    tunnel = hosts[1].tunnel
    assert tunnel is not None
    switch.run("ip", "route", "add", f"{tunnel.address}/128", "dev", SWITCH)
    mac = machines[1].json("ip", "-j", "link", "show", "up0")[0]["address"]
    switch.run("ip", "neigh", "add", tunnel.address, "lladdr", mac, "dev", SWITCH, "nud", "permanent")
    try:
        for net, server, arrives in ((plain, open_, True), (hidden, inside, False)):
            frame = Ether(src=net.peer(0, 10).mac, dst=net.peer(1, 11).mac)
            packet = frame / IP(src=net.address(10), dst=net.address(11)) / UDP(sport=9, dport=53) / b"injected"
            with server.socket(socket.SOCK_DGRAM) as heard:
                heard.bind(("0.0.0.0", 53))
                for target in ("192.0.2.2", "2001:db8::2", tunnel.address):
                    family = socket.AF_INET6 if ":" in target else socket.AF_INET
                    scope = switch.inside(lambda: socket.if_nametoindex(SWITCH))
                    with switch.socket(socket.SOCK_DGRAM, family) as sender:
                        where = (target, 4789) if family == socket.AF_INET else (target, 4789, 0, scope)
                        sender.sendto(bytes(VXLAN(vni=net.vni, flags=8) / packet), where)
                # One that is let in comes after them: what was going to arrive has arrived.
                client = machines[0].namespace(f"{net.name}0")
                with client.socket(socket.SOCK_DGRAM) as sender:
                    sender.sendto(b"let in", (net.address(11), 53))
                words = []
                while b"let in" not in words:
                    words.append(heard.recv(100))
                assert (b"injected" in words) == arrives, words
                client.close()
    finally:
        switch.run("ip", "address", "flush", "dev", SWITCH)
        switch.run("sysctl", "-qw", f"net.ipv6.conf.{SWITCH}.disable_ipv6=1")


def test_a_new_key_does_not_end_what_flows(make_machine: MakeMachine, tmp_path: Path) -> None:
    machines, _ = site(make_machine, "alpha", "beta")
    hosts = tunnelled(2)
    tunnels = Tunnels(machines, hosts, tmp_path)
    tunnels.build()
    net = Overlay(machines, hosts, options={"encrypted": ""})
    here, there = net.join(0, "here", 10), net.join(1, "there", 11)
    with there.listen(80) as listener, here.connect(net.address(11), 80) as client:
        server, _ = listener.accept()
        with server:
            server.settimeout(20)
            for rotating in (0, 1):
                old = tunnels.keys[rotating]
                tunnels.keys[rotating] = tunnels.new_key(rotating, "wireguard.next")
                began = time.monotonic()
                for host in (rotating, 1 - rotating):  # who has a new key, then who hears of it
                    kept = {r for r in machines[host].built if r.key[0] not in ("wireguard", "wireguard-peer")}
                    machines[host].make(kept | tunnels.resources(host))
                    client.send(b"on and on")
                assert old.public not in str(machines[1 - rotating].built)
                got = b""
                while len(got) < 18:
                    got += server.recv(18 - len(got))
                # Not the 5 s after which WireGuard tries again: who hears of the key speaks first.
                assert got == b"on and on" * 2 and time.monotonic() - began < patient(3)


def test_what_was_taken_away_comes_back(make_machine: MakeMachine, tmp_path: Path) -> None:
    machines, _ = site(make_machine, "alpha", "beta")
    alpha = machines[0]
    hosts = tunnelled(2)
    tunnels = Tunnels(machines, hosts, tmp_path)
    tunnels.build()
    net = Overlay(machines, hosts, subnets=DUAL, options={"encrypted": ""})
    here, _ = net.join(0, "here", 10), net.join(1, "there", 11).close()
    tunnel = hosts[0].tunnel
    assert tunnel is not None
    link, their = tunnel.link, tunnels.keys[1].public

    def end_the_process() -> None:
        os.kill(_process(alpha, link), 9)

    taken: dict[str, Any] = {
        "the link": ("ip", "link", "delete", link),
        "its address": ("ip", "address", "flush", "dev", link),
        "it is down": ("ip", "link", "set", link, "down"),
        "IPv6": ("sysctl", "-qw", f"net.ipv6.conf.{link}.disable_ipv6=1"),
        "its MTU": ("ip", "link", "set", link, "mtu", "1400"),
        "a peer": ("wg", "set", link, "peer", their, "remove"),
        "what a peer may send": ("wg", "set", link, "peer", their, "allowed-ips", "::/0"),
        "its port": ("wg", "set", link, "listen-port", "51999"),
        "its key": ("wg", "set", link, "private-key", "/dev/null"),
    }
    if alpha.json("ip", "-d", "-j", "link", "show", link)[0]["linkinfo"]["info_kind"] == "tun":
        taken["its process"] = end_the_process
    for what, deed in taken.items():
        deed() if callable(deed) else alpha.run(*deed)
        wait_until(lambda: alpha.built - alpha.observe(alpha.built), f"{what}: not noticed")
        alpha.heal()
        for version in (4, 6):
            assert ping(here, net.address(11, version), 10) == net.address(11, version), what


def _process(machine: Machine, link: str) -> int:
    """Who serves a link in user space: the process of that machine that was started for it."""
    here = os.readlink(f"/proc/self/task/{machine.tid}/ns/net")
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            words = directory.joinpath("cmdline").read_bytes().split(b"\0")
            if words[1:2] == [link.encode()] and os.readlink(directory / "ns/net") == here:
                return int(directory.name)
        except OSError:
            continue  # it has ended
    raise AssertionError(f"nobody serves {link}")


def test_a_later_daemon_finds_it_at_work(make_machine: MakeMachine, tmp_path: Path) -> None:
    machines, _ = site(make_machine, "alpha", "beta")
    hosts = tunnelled(2)
    Tunnels(machines, hosts, tmp_path).build()
    alpha = machines[0]
    index = alpha.json("ip", "-j", "link", "show", "type", "tun")
    alpha.on_kernel(alpha.kernel.close)
    alpha.kernel = Kernel(RUN_DIR, ALIAS_DIR)
    alpha.on_kernel(alpha.kernel.open)
    alpha.must_be_as_built()
    assert alpha.json("ip", "-j", "link", "show", "type", "tun") == index


def test_a_daemon_that_was_killed_while_it_began_is_no_hindrance(machine: Machine, tmp_path: Path) -> None:
    """The process of wireguard-go is there, and nothing has been said to it."""
    if has("wireguard"):
        return  # the kernel makes its link marked: there is no such moment
    tunnels = Tunnels(
        [machine], [replace(Underlay("127.0.0.1", 1500), tunnel=Tunnel("wg-1", "fe80::1", 1440))], tmp_path
    )
    machine.on_kernel(wireguard._start, WireGuard("wg-1", "", 0, "", 0))
    machine.build(tunnels.resources(0))


def test_a_port_in_use_is_said(machine: Machine, tmp_path: Path) -> None:
    tunnels = Tunnels(
        [machine], [replace(Underlay("127.0.0.1", 1500), tunnel=Tunnel("wg-1", "fe80::1", 1440))], tmp_path
    )
    with machine.socket(socket.SOCK_DGRAM, socket.AF_INET6) as taken:
        taken.bind(("::", PORT))
        with pytest.raises(Conflict, match=rf"UDP port {PORT}, which encrypted networks need, is in use"):
            machine.apply(tunnels.resources(0))
    assert machine.observe() == set()


def test_without_any_wireguard_it_says_what_to_install(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tunnels = Tunnels(
        [machine], [replace(Underlay("127.0.0.1", 1500), tunnel=Tunnel("wg-1", "fe80::1", 1440))], tmp_path
    )
    with monkeypatch.context() as bare:
        bare.setenv("PATH", "/nowhere")
        bare.setattr(wireguard, "_KIND", "no-such-kind")
        with pytest.raises(Unsupported, match="apt install wireguard-go"):
            machine.apply(tunnels.resources(0))


def test_the_private_key_is_in_its_file_and_nowhere_else(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "wireguard.key"
    public = wgkeys.make(path)
    private = path.read_text().strip()
    assert path.stat().st_mode & 0o777 == 0o600 and path.parent.stat().st_mode & 0o777 == 0o700
    link = WireGuard("wg0", "fe80::1/64", PORT, public, 1440, str(path))
    shown = repr(link) + "".join(f"{step}" for step in explain([link]))
    assert private not in shown and wgkeys.read(path).hex() not in shown
    assert wgkeys.public_of(wgkeys.read(path)) == public
    with pytest.raises(KernelRefused) as refused:
        wgkeys.read(_damaged(path, private))
    assert private[:20] not in str(refused.value)


def _damaged(path: Path, private: str) -> Path:
    path.write_text(private[:20])
    return path
