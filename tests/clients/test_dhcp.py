"""`--ipam-driver dhcp` with the real docker command and a real DHCP server: dnsmasq on `outside`, on the wire of up0."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.lab import Lab, eventually
from tests.daemons import Client
from tests.hosts import Process

RENEWAL = 3
"""Seconds after which the server has its clients renew: the least that dnsmasq lets itself be told."""


class Server:
    """dnsmasq. Its least lease is two minutes, but it says when to renew."""

    def __init__(self, lab: Lab, directory: Path) -> None:
        self._lab = lab
        self.leases, self._log = directory / "leases", directory / "log"
        self._process: Process | None = None

    def start(self, first: str = "192.0.2.100", last: str = "192.0.2.150", renewal: int = RENEWAL) -> None:
        serve = (
            f"--dhcp-range={first},{last},2m --dhcp-authoritative --no-ping --interface=up0 --bind-interfaces --port=0"
        )
        told = ("router,192.0.2.2", "dns-server,192.0.2.2", f"T1,{renewal}", "T2,60")
        files = f"--conf-file=/dev/null --dhcp-leasefile={self.leases} --log-facility={self._log} --log-dhcp"
        argv = ["dnsmasq", "--keep-in-foreground", "--user=root", *files.split(), *serve.split()]
        argv += [f"--dhcp-option=option:{option}" for option in told]
        self._process = self._lab.outside.popen(argv)
        eventually(lambda: "DHCP, IP range" in self.log(), "dnsmasq serves")

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()
            self._process = None

    def log(self) -> str:
        return self._log.read_text() if self._log.exists() else ""

    def said(self, word: str) -> int:
        """How often a message of that kind was sent or received: DHCPACK, say."""
        return len(re.findall(rf"\b{word}\(", self.log()))

    def holders(self) -> dict[str, str]:
        """The host names of its clients by address."""
        return {line.split()[2]: line.split()[3] for line in self.leases.read_text().splitlines()}


@pytest.fixture
def server(lab: Lab, tmp_path: Path) -> Iterator[Server]:
    made = Server(lab, tmp_path)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def lan(docker: Client) -> str:
    docker("network", "create", "-d", "macvlan", "--ipam-driver", "dhcp", "-o", "parent=up0", "lan")
    return "lan"


def test_address_gateway_and_name_server_come_from_the_answer(lab: Lab, docker: Client, server: Server, lan: str):
    lab.serve("web", "--network", lan, "--hostname", "www")
    found = docker.inspect("web")["NetworkSettings"]["Networks"][lan]
    address = found["IPAddress"]
    assert server.holders() == {address: "www"}
    assert (found["Gateway"], found["IPPrefixLen"]) == ("192.0.2.2", 24)
    assert lab.outside.fetch(address, 80) == "web sees 192.0.2.2"
    routes = lab.here.run(["ip", "netns", "exec", "web", "ip", "route"], check=True).stdout
    assert "default via 192.0.2.2 dev eth0" in routes
    inspected = docker.inspect(lan)
    assert inspected["IPAM"]["Driver"] == "dhcp"
    assert next(iter(inspected["Containers"].values()))["IPv4Address"] == f"{address}/24"
    lab.idle("db", "--network", lan)
    assert address in docker("exec", "db", "getent", "hosts", "web")
    with lab.outside.socket(kind=socket.SOCK_DGRAM) as questions:
        questions.bind(("192.0.2.2", 53))
        docker.start("exec", "db", "getent", "hosts", "printer.example")
        assert b"printer" in questions.recv(512), (
            "names that netengine does not know are asked of the server's name server"
        )
    assert "healthy" in lab.netengine("doctor")


def test_a_lease_is_renewed_in_time(lab: Lab, docker: Client, server: Server, lan: str):
    lab.serve("web", "--network", lan)
    before, acknowledged = docker.address("web", lan), server.said("DHCPACK")
    eventually(lambda: server.said("DHCPACK") >= acknowledged + 2, "two renewals")
    assert docker.address("web", lan) == before
    assert server.said("DHCPDISCOVER") == 1
    assert lab.outside.fetch(before, 80) == "web sees 192.0.2.2"


def test_a_lease_outlives_the_daemon(lab: Lab, docker: Client, server: Server, lan: str):
    """And its address was announced before the answer: whoever knows that by the MAC of its last owner is told."""
    server.stop()
    server.start("192.0.2.100", "192.0.2.100")
    last_owner = ["lladdr", "02:00:00:00:00:99", "nud", "reachable", "dev", "up0"]
    lab.outside.ip("neighbour", "replace", "192.0.2.100", *last_owner)
    lab.serve("web", "--network", lan)
    before = docker.address("web", lan)
    lab.daemon.kill9()
    acknowledged = server.said("DHCPACK")
    assert lab.outside.fetch(before, 80) == "web sees 192.0.2.2"
    lab.daemon.start()
    eventually(lambda: server.said("DHCPACK") > acknowledged, "the daemon asks for the lease again")
    assert docker.address("web", lan) == before
    docker("rm", "-f", "web")
    eventually(lambda: server.holders() == {}, "the address is given back")


def test_a_server_that_changes_its_mind_is_followed(lab: Lab, docker: Client, server: Server, lan: str):
    lab.serve("web", "--network", lan)
    lab.daemon.kill9()
    server.stop()
    server.leases.unlink()
    server.start("192.0.2.60", "192.0.2.69")
    since = lab.daemon.log.stat().st_size
    lab.daemon.start()
    eventually(lambda: docker.address("web", lan).startswith("192.0.2.6"))
    assert "has another address on network lan by DHCP: 192.0.2." in lab.daemon.tail(since)
    address = docker.address("web", lan)
    eventually(lambda: lab.outside.fetch(address, 80) == "web sees 192.0.2.2")
    eventually(lambda: "healthy" in lab.netengine("doctor"))


def test_an_address_is_given_back_when_the_container_leaves(lab: Lab, docker: Client, server: Server, lan: str):
    lab.idle("web")
    docker("network", "connect", lan, "web")
    address = docker.address("web", lan)
    assert address in server.holders()
    docker("network", "disconnect", lan, "web")
    assert server.holders() == {}
    docker("network", "connect", lan, "web")
    docker("stop", "-t", "0", "web")
    assert server.holders() == {}


def test_without_a_server_the_start_fails_and_nothing_is_left(lab: Lab, docker: Client, lan: str):
    refused = docker.refused("run", "--rm", "--network", lan, "host", "true").text
    assert "no DHCP server granted" in refused
    assert "is there a server on the wire of up0" in refused
    assert lab.containers() == set()
    assert lab.here.namespaces() == set()


def test_garbage_from_the_wire_does_not_end_a_client(lab: Lab, docker: Client, server: Server, lan: str):
    lab.serve("web", "--network", lan)
    boot = b"\x02\x01\x06\x00" + bytes(232) + b"\x63\x82\x53\x63"
    with lab.outside.socket(kind=socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sock.bind(("192.0.2.2", 0))
        # An option cut short, one without its end, no options at all, half a message, noise.
        for payload in (boot + b"\x35\x01", boot + b"\x35\x01\x05", boot + b"\xff", boot[:100], b"\xff" * 600):
            sock.sendto(payload, ("192.0.2.255", 68))
    acknowledged = server.said("DHCPACK")
    eventually(lambda: server.said("DHCPACK") > acknowledged, "it still renews")


@pytest.mark.needs("ipvlan")
def test_ipvlan_in_mode_l2_is_known_to_the_server_by_its_identity(lab: Lab, docker: Client, server: Server):
    docker("network", "create", "-d", "ipvlan", "--ipam-driver", "dhcp", "-o", "parent=up0", "lan")
    lab.serve("web", "--network", "lan")
    lab.serve("db", "--network", "lan")
    assert len(server.holders()) == 2, "one MAC, two leases"
    assert lab.outside.fetch(docker.address("db", "lan"), 80) == "db sees 192.0.2.2"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["-d", "bridge"], "driver macvlan, or ipvlan in mode l2, not bridge"),
        (["-d", "macvlan"], "needs a parent with a server on its wire: give -o parent=INTERFACE"),
        (["-d", "macvlan", "-o", "parent=up0", "--subnet", "10.0.0.0/24"], "leave --subnet and --gateway out"),
        (["-d", "macvlan", "-o", "parent=up0", "--ipv6"], "is for IPv4 alone"),
        (["-d", "macvlan", "-o", "parent=up0", "-o", "host_access=true"], "host_access=true needs an address"),
    ],
)
def test_what_cannot_be_is_refused(lab: Lab, docker: Client, flags: list[str], words: str):
    assert words in docker.refused("network", "create", "--ipam-driver", "dhcp", *flags, "bad").text
    assert lab.untouched()


def test_a_certain_address_is_the_server_s_to_give(docker: Client, lan: str):
    refused = docker.refused("run", "--rm", "--network", lan, "--ip", "192.0.2.9", "host", "true").text
    assert "on network lan a DHCP server says who has which" in refused


def test_a_link_that_is_made_anew_goes_on_with_its_lease(lab: Lab, docker: Client, server: Server, lan: str):
    lab.serve("web", "--network", lan)
    before = docker.address("web", lan)
    acknowledged = server.said("DHCPACK")
    lab.here.run(["ip", "netns", "exec", "web", "ip", "link", "delete", "eth0"], check=True)
    eventually(lambda: server.said("DHCPACK") >= acknowledged + 2, "it asks for the lease again, and renews it")
    assert docker.address("web", lan) == before
    assert lab.outside.fetch(before, 80) == "web sees 192.0.2.2"
