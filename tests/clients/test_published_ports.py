"""Published ports with the real `docker` command: who reaches them, from where, and who must not."""

import re

import pytest

from tests.clients.lab import ECHO, HERE, OUTSIDE, Lab, eventually, python
from tests.daemons import Client


def test_from_outside_from_the_hosts_address_and_from_127_0_0_1(lab: Lab, docker: Client):
    lab.serve("web", "-p", "8080:80")
    assert lab.outside.fetch(HERE, 8080) == f"web sees {OUTSIDE}", "the client's address is kept"
    assert lab.here.fetch(HERE, 8080).startswith("web sees")
    assert lab.here.fetch("127.0.0.1", 8080).startswith("web sees")
    assert lab.here.fetch("172.17.0.1", 8080).startswith("web sees"), "any address of the host"


def test_from_containers_through_the_hosts_address(lab: Lab, docker: Client):
    docker("network", "create", "blue")
    lab.serve("web", "-p", "8080:80")
    lab.serve("near")
    lab.serve("far", "--network", "blue")
    assert lab.sandbox("near").fetch(HERE, 8080).startswith("web sees"), "same bridge"
    assert lab.sandbox("far").fetch(HERE, 8080).startswith("web sees"), "another bridge"
    assert lab.sandbox("web").fetch(HERE, 8080).startswith("web sees"), "itself: hairpin"
    assert lab.sandbox("web").fetch("172.17.0.1", 8080).startswith("web sees"), "itself, through its gateway"


def test_udp(lab: Lab, docker: Client):
    lab.serve("dns", "-p", "5353:53/udp", speak=("udp:53",))
    assert lab.outside.ask(HERE, 5353) == f"dns sees {OUTSIDE}"
    assert lab.here.ask("127.0.0.1", 5353).startswith("dns sees")
    assert lab.here.ask(HERE, 5353).startswith("dns sees")
    assert lab.sandbox("dns").ask(HERE, 5353).startswith("dns sees")


def test_a_udp_flow_that_began_before_the_port_was_published_reaches_the_container(lab: Lab, docker: Client):
    """A stale conntrack entry would send the datagrams of a steady sender past the new rule for ever."""
    with lab.outside.socket(2) as sender:  # SOCK_DGRAM
        sender.connect((HERE, 5353))
        sender.send(b"too early")
        lab.serve("dns", "-p", "5353:53/udp", speak=("udp:53",))

        def answered() -> bool:
            sender.settimeout(0.3)
            sender.send(b"again")
            return sender.recv(100).startswith(b"dns sees")

        eventually(answered, "an answer from the container")


def test_a_port_on_127_0_0_1_is_for_the_host_only(lab: Lab, docker: Client):
    lab.serve("web", "-p", "127.0.0.1:8080:80")
    assert lab.here.fetch("127.0.0.1", 8080).startswith("web sees")
    assert not lab.outside.reaches(HERE, 8080)
    # Martian on purpose: a neighbour on the same cable sends to 127.0.0.1 by a route of its own.
    lab.outside.sysctl("net.ipv4.conf.all.route_localnet", "1")
    lab.outside.ip("route", "add", "127.0.0.1/32", "via", HERE, "table", "100")
    lab.outside.ip("rule", "add", "to", "127.0.0.1", "table", "100", "priority", "0")
    lab.outside.ip("rule", "add", "table", "local", "priority", "1")
    lab.outside.ip("rule", "del", "priority", "0", "table", "local")
    try:
        assert not lab.outside.reaches("127.0.0.1", 8080)
    finally:
        lab.outside.ip("rule", "add", "table", "local", "priority", "0")
        lab.outside.ip("rule", "del", "priority", "1", "table", "local")
        lab.outside.ip("rule", "del", "to", "127.0.0.1", "table", "100")
        lab.outside.ip("route", "flush", "table", "100")


def test_a_port_on_one_address_of_the_host_only(lab: Lab, docker: Client):
    lab.here.ip("addr", "add", "192.0.2.11/24", "dev", "up0")
    try:
        lab.serve("web", "-p", "192.0.2.11:8080:80")
        assert lab.outside.fetch("192.0.2.11", 8080) == f"web sees {OUTSIDE}"
        assert not lab.outside.reaches(HERE, 8080)
        lab.serve("other", "-p", f"{HERE}:8080:80")
        assert lab.outside.fetch(HERE, 8080) == f"other sees {OUTSIDE}", "the other address is free for others"
    finally:
        lab.here.ip("addr", "del", "192.0.2.11/24", "dev", "up0")


def test_the_containers_own_address_is_closed_to_the_outside_published_or_not(lab: Lab, docker: Client):
    lab.serve("web", "-p", "8080:80", speak=("tcp:80", "tcp:81"))
    address = docker.address("web")
    lab.outside.ip("route", "add", "172.17.0.0/16", "via", HERE)
    try:
        assert lab.outside.fetch(HERE, 8080) == f"web sees {OUTSIDE}"
        assert not lab.outside.reaches(address, 80)
        assert not lab.outside.reaches(address, 81)
        assert lab.here.reaches(address, 81), "not so for the host"
    finally:
        lab.outside.ip("route", "del", "172.17.0.0/16")


def test_an_unpublished_port_is_closed_to_the_outside(lab: Lab, docker: Client):
    lab.serve("web", "-p", "8080:80", speak=("tcp:80", "tcp:81"))
    assert not lab.outside.reaches(HERE, 81)


def test_what_was_not_forwarded_before_is_not_forwarded_now(lab: Lab, docker: Client):
    """Docker turns ip_forward on; the host must not become a router between its other networks by that."""
    lab.here.ip("link", "add", "lan0", "type", "veth", "peer", "name", "lan1")
    lab.here.ip("addr", "add", "10.99.0.1/24", "dev", "lan0")
    for end in ("lan0", "lan1"):
        lab.here.ip("link", "set", end, "addrgenmode", "none")  # or IPv6 sends a packet of its own
        lab.here.ip("link", "set", end, "up")
    lab.here.ip("neigh", "add", "10.99.0.5", "lladdr", "02:00:00:00:00:05", "dev", "lan0")
    # The link's own counter has the host's IGMP reports too, which come when they like.
    watcher = "chain out { type filter hook postrouting priority 300; ip daddr 10.99.0.5 counter; }"
    lab.here.run(["nft", "-f", "-"], stdin=f"table ip watcher {{\n{watcher}\n}}\n", check=True)
    lab.outside.ip("route", "add", "10.99.0.0/24", "via", HERE)
    try:
        lab.serve("web", "-p", "8080:80")

        def sent() -> int:
            shown = lab.here.run(["nft", "list", "table", "ip", "watcher"], check=True).stdout
            return int(re.search(r"packets (\d+)", shown)[1])

        assert not lab.outside.reaches("10.99.0.5", 80)
        assert sent() == 0
    finally:
        lab.here.run(["nft", "delete", "table", "ip", "watcher"], check=True)
        lab.outside.ip("route", "del", "10.99.0.0/24")
        lab.here.ip("link", "del", "lan0")


def test_an_ephemeral_port_is_chosen_and_shown(lab: Lab, docker: Client):
    lab.serve("web", "-p", "80")
    host_port = int(docker("port", "web", "80/tcp").splitlines()[0].rpartition(":")[2])
    low, high = (int(edge) for edge in lab.here.sysctl("net.ipv4.ip_local_port_range").split())
    assert low <= host_port <= high
    assert lab.outside.fetch(HERE, host_port) == f"web sees {OUTSIDE}"


def test_all_exposed_ports_with_capital_p(lab: Lab, docker: Client):
    lab.serve("web", "-P", "--expose", "80", "--expose", "81-82", speak=("tcp:80", "tcp:81", "tcp:82"))
    ports = docker.inspect("web")["NetworkSettings"]["Ports"]
    assert set(ports) == {"80/tcp", "81/tcp", "82/tcp"}
    for bindings in ports.values():
        assert lab.outside.fetch(HERE, int(bindings[0]["HostPort"])) == f"web sees {OUTSIDE}"


def test_an_exposed_port_is_not_published(lab: Lab, docker: Client):
    lab.serve("web", "--expose", "80")
    assert docker.inspect("web")["NetworkSettings"]["Ports"] == {"80/tcp": None}
    assert docker("port", "web") == ""


def test_a_range_to_a_range(lab: Lab, docker: Client):
    lab.serve("web", "-p", "8000-8003:80-83", speak=("tcp:80", "tcp:81", "tcp:82", "tcp:83"))
    for port in range(8000, 8004):
        assert lab.outside.fetch(HERE, port) == f"web sees {OUTSIDE}"
    assert not lab.outside.reaches(HERE, 8004)


def test_a_range_to_the_same_range(lab: Lab, docker: Client):
    lab.serve("web", "-p", "8000-8003:8000-8003", speak=("tcp:8000", "tcp:8003"))
    assert lab.outside.fetch(HERE, 8000) == f"web sees {OUTSIDE}"
    assert lab.here.fetch("127.0.0.1", 8003).startswith("web sees")


def test_a_range_to_one_port_takes_the_first_free_one(lab: Lab, docker: Client):
    lab.serve("one", "-p", "8000-8003:80")
    lab.serve("two", "-p", "8000-8003:80")
    assert docker("port", "one", "80/tcp").splitlines()[0] == "0.0.0.0:8000"
    assert docker("port", "two", "80/tcp").splitlines()[0] == "0.0.0.0:8001"
    assert lab.outside.fetch(HERE, 8001) == f"two sees {OUTSIDE}"


@pytest.mark.parametrize("flag", ["9090-9089:80", "8000-8010:80-82", "70000:80", "8080:0/tcp", "8080:80/carp"])
def test_impossible_mappings_are_refused(lab: Lab, docker: Client, flag: str):
    assert docker.refused("run", "--name", "web", "-p", flag, "host", "true").code == 125


def test_the_port_is_held_while_the_container_runs_and_free_afterwards(lab: Lab, docker: Client):
    lab.serve("web", "-p", "8080:80")
    with lab.here.socket() as sock, pytest.raises(OSError, match="in use"):
        sock.bind(("0.0.0.0", 8080))
    docker("stop", "-t", "1", "web")
    with lab.here.socket() as sock:
        sock.bind(("0.0.0.0", 8080))


def test_the_port_of_a_server_that_has_just_ended_is_free(lab: Lab, docker: Client):
    """Its connections stay in TIME_WAIT for a minute; they hinder nobody who sets SO_REUSEADDR."""
    with lab.here.listen(8091) as server, lab.outside.connect(HERE, 8091) as client:
        server.accept()[0].close()
        assert client.recv(1) == b""
    lab.serve("web", "-p", "8091:80")
    assert lab.outside.fetch(HERE, 8091) == f"web sees {OUTSIDE}"


def test_the_port_stops_and_starts_with_the_container(lab: Lab, docker: Client):
    lab.serve("web", "-p", "8080:80")
    docker("stop", "-t", "1", "web")
    assert not lab.here.reaches(HERE, 8080)
    assert docker("port", "web") == ""
    docker("start", "web")
    eventually(lambda: lab.outside.fetch(HERE, 8080) == f"web sees {OUTSIDE}")


def test_a_connection_through_a_port_ends_with_its_container(lab: Lab, docker: Client):
    lab.run("echo", "-p", "7777:7", command=python(ECHO))
    with lab.outside.connect(HERE, 7777) as connection:
        connection.sendall(b"hello")
        assert connection.recv(100) == b"hello"
        docker("kill", "echo")
        connection.settimeout(1)
        try:
            connection.sendall(b"anyone")
            assert connection.recv(100) == b"", "nobody may answer"
        except OSError:
            pass


def test_no_process_per_port(lab: Lab, docker: Client):
    before = len(lab.here.pids())
    lab.serve("web", "-p", "8000-8049:8000-8049", speak=("tcp:8000",))
    assert len(lab.here.pids()) - before <= 3, "the container's own process, its monitor, and no proxy"
