"""Attacks across the borders that docs/security.md promises: from the wire, from containers, on the daemon's files.

What works between containers of one bridge is in test_spoofing.py; what published ports let in, in test_published_ports.py.
"""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from tests.clients.lab import HERE, OUTSIDE, Lab
from tests.daemons import Client
from tests.hosts import Namespace, wait_until

LOCAL = "127.0.0.1"


def bridge_of(docker: Client, network: str) -> str:
    return f"br-{docker('network', 'inspect', '-f', '{{.Id}}', network)[:12]}"


def mac_on(lab: Lab, link: str) -> str:
    return lab.here.run(["cat", f"/sys/class/net/{link}/address"], check=True).stdout.strip()


def answered(where: Namespace, link: str, *frames: Packet) -> str:
    """Send frames; what comes back within a moment from a port that one of them went to, "" if nothing does."""
    ports = {(layer, frame[layer].dport) for frame in frames for layer in (TCP, UDP) if layer in frame}
    with where.inside(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))) as raw:
        raw.bind((link, 0))
        raw.settimeout(0.1)
        for frame in frames:
            raw.send(bytes(frame))
        deadline = time.monotonic() + 1.0
        while time.monotonic() < deadline:
            try:
                frame = Ether(raw.recv(2048))
            except TimeoutError:
                continue
            for layer in (TCP, UDP):
                if layer in frame and (layer, frame[layer].sport) in ports:
                    return str(frame.summary())
    return ""


def knocks(source: str, target: str, port: int, mac: str) -> list[Packet]:
    to = Ether(dst=mac) / IP(src=source, dst=target)
    return [to / TCP(sport=4711, dport=port, flags="S", seq=1), to / UDP(sport=4711, dport=port) / Raw(b"ping")]


@pytest.fixture
def services(lab: Lab) -> Iterator[int]:
    """A TCP and a UDP service on the host's loopback alone, at one port."""
    script = (
        "import socket,select\n"
        "t=socket.create_server(('127.0.0.1',7777))\n"
        "u=socket.socket(socket.AF_INET,socket.SOCK_DGRAM); u.bind(('127.0.0.1',7777))\n"
        "print('ready',flush=True)\n"
        "while True:\n"
        "  for s in select.select([t,u],[],[])[0]:\n"
        "    if s is u: u.sendto(*u.recvfrom(99))\n"
        "    else: s.accept()[0].close()\n"
    )
    process = lab.here.popen(["python3", "-I", "-S", "-c", script], stdout=subprocess.PIPE)
    assert process.popen.stdout is not None
    assert process.popen.stdout.readline() == b"ready\n"
    yield 7777
    process.stop()


def test_the_loopback_of_the_host_is_not_reached_from_the_wire(lab: Lab, docker: Client, services: int) -> None:
    """CVE-2020-8558: a neighbour on the wire sends a packet for 127.0.0.1 to the host's MAC address. Bridges have
    route_localnet, for ports published on 127.0.0.1; no other link gets it."""
    lab.serve("web", "-p", f"{LOCAL}:8080:80")
    assert lab.here.fetch(LOCAL, 8080), "the port is published on loopback"
    mac = mac_on(lab, "up0")
    frames = [
        frame for port in (services, 8080) for source in (OUTSIDE, LOCAL) for frame in knocks(source, LOCAL, port, mac)
    ]
    assert not answered(lab.outside, "up0", *frames)
    assert lab.here.sysctl("net.ipv4.conf.up0.route_localnet") == "0"
    assert lab.here.sysctl("net.ipv4.conf.all.route_localnet") == "0"
    # Nor by the host's own address, where a port is published on 127.0.0.1 only.
    assert not lab.outside.reaches(HERE, 8080)


def test_the_loopback_of_the_host_is_not_reached_from_a_container(lab: Lab, docker: Client, services: int) -> None:
    lab.serve("web", "-p", f"{LOCAL}:8080:80")
    docker("network", "create", "mine")
    docker("run", "-d", "--name", "mallory", "--network", "mine", "sandbox")
    inside = lab.sandbox("mallory")
    own, mac = docker.address("mallory", "mine"), mac_on(lab, bridge_of(docker, "mine"))
    frames = [
        frame for port in (services, 8080) for source in (own, LOCAL) for frame in knocks(source, LOCAL, port, mac)
    ]
    assert not answered(inside, "eth0", *frames)


def test_a_container_s_own_address_is_not_reached_from_the_wire_whoever_asks(lab: Lab, docker: Client) -> None:
    """A neighbour who routes containers' addresses by the host, or forges the source: another container's, the host's."""
    lab.serve("web", "-p", f"{LOCAL}:8080:80")
    web = docker.address("web")
    mac = mac_on(lab, "up0")
    sources = (OUTSIDE, "172.17.0.99", "172.17.0.1", HERE)
    assert not answered(lab.outside, "up0", *(frame for source in sources for frame in knocks(source, web, 80, mac)))
    log = lab.logs("web")
    assert OUTSIDE.encode() not in log


def test_a_container_reaches_the_services_of_the_host_and_the_table_says_so(lab: Lab, docker: Client) -> None:
    """By any address of the host, the gateways of other networks included, as with Docker: INPUT is the host's own business."""
    docker("network", "create", "--subnet", "10.77.0.0/24", "mine")
    docker("network", "create", "--subnet", "10.78.0.0/24", "other")
    docker("run", "-d", "--name", "box", "--network", "mine", "sandbox")
    inside = lab.sandbox("box")
    with lab.here.listen(7070):
        for address in ("10.77.0.1", "10.78.0.1", "172.17.0.1", HERE):
            assert inside.reaches(address, 7070, 2), address


def test_other_networks_are_not_reached_by_source_routes_forged_sources_or_their_gateway(
    lab: Lab, docker: Client
) -> None:
    docker("network", "create", "--subnet", "10.77.0.0/24", "mine")
    docker("network", "create", "--subnet", "10.78.0.0/24", "theirs")
    lab.serve("web", "--network", "theirs")
    docker("run", "-d", "--name", "mallory", "--network", "mine", "sandbox")
    inside, web = lab.sandbox("mallory"), docker.address("web", "theirs")
    mac = mac_on(lab, bridge_of(docker, "mine"))
    assert not inside.reaches(web, 80)
    sources = ("10.77.0.2", "10.78.0.1", "10.78.0.99", HERE)
    assert not answered(inside, "eth0", *(frame for source in sources for frame in knocks(source, web, 80, mac)))


def test_the_daemon_s_files_and_sockets_are_out_of_sight(lab: Lab, docker: Client) -> None:
    """The image `host` shows the machine's files: not the daemon's run directory, its data, the namespaces of others."""
    data = str(lab.daemon.data_root)
    look = f"ls -A /run/netengine /run/netns {data}; id -u; grep -c . /proc/net/unix; ls /proc | grep -c '^[0-9]'"
    out = docker("run", "--rm", "host", "sh", "-c", f"({look}) 2>/dev/null; true").split()
    assert "netengine.sock" not in out and "state.db" not in out and "audit.log" not in out
    assert out[0] == "0" and int(out[-1]) <= 6, "only its own processes"
    # A container that shares the host's network gets neither: no socket of the daemon's is abstract, unix(7).
    listed = docker("run", "--rm", "--network", "host", "host", "cat", "/proc/net/unix")
    assert [line for line in listed.splitlines() if " @" in line and "netengine" in line] == []


def test_who_is_not_in_the_group_does_not_get_to_the_socket(lab: Lab) -> None:
    as_nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"]
    script = "import socket; socket.socket(socket.AF_UNIX).connect('/run/netengine/netengine.sock')"
    done = lab.here.run([*as_nobody, "/usr/bin/python3", "-I", "-S", "-c", script])
    assert "PermissionError" in done.stderr
    for command in (
        ["ls", "/run/netengine"],
        ["cat", f"{lab.daemon.data_root}/audit.log"],
        ["ls", str(lab.daemon.data_root)],
    ):
        assert "Permission denied" in lab.here.run([*as_nobody, *command]).stderr


def test_the_name_server_s_control_socket_is_root_s(lab: Lab, docker: Client) -> None:
    docker("network", "create", "named")
    docker("run", "-d", "--name", "box", "--network", "named", "sandbox")
    wait_until(lambda: lab.name_server(), "a name server")
    mode = lab.here.path("/run/netengine/dns.sock").stat()
    assert (mode.st_mode & 0o777, mode.st_uid) == (0o600, 0)
