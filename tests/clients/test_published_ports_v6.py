"""Published ports and IPv6 with the real `docker` command: the same number in both families, whatever the container has."""

from __future__ import annotations

import os
import signal

from tests.clients.lab import ECHO, HERE, HERE6, OUTSIDE, OUTSIDE6, RESPONDER, Lab, eventually, python
from tests.daemons import Client
from tests.hosts import wait_until

DUAL_STACK = RESPONDER.replace("socket.AF_INET,", "socket.AF_INET6,").replace('"0.0.0.0"', '"::"')
"""Answers over both families: an IPv6 socket on [::] takes IPv4 connections as well."""


def serve6(lab: Lab, name: str, *flags: str, speak: str = "tcp:80") -> str:
    return lab.run(name, *flags, command=python(DUAL_STACK, name, speak))


def plain(words: str) -> str:
    """An IPv4 address as it is written where both families come to one socket, and where not."""
    return words.replace("::ffff:", "")


def relay(lab: Lab) -> int:
    """The PID of the relay, 0 if none runs."""
    return next((pid for pid, command in lab.here.pids().items() if "netengine.relay" in command), 0)


def test_everywhere_is_both_families_with_the_same_number(lab: Lab, docker: Client):
    lab.serve("web", "-p", "8080:80", "-p", "81")
    chosen = docker("port", "web", "81/tcp").splitlines()[0].rpartition(":")[2]
    assert docker("port", "web", "80/tcp").splitlines() == ["0.0.0.0:8080", "[::]:8080"]
    assert docker("port", "web", "81/tcp").splitlines() == [f"0.0.0.0:{chosen}", f"[::]:{chosen}"]
    assert docker.inspect("web")["NetworkSettings"]["Ports"]["80/tcp"] == [
        {"HostIp": "0.0.0.0", "HostPort": "8080"},
        {"HostIp": "::", "HostPort": "8080"},
    ]
    shown = docker("ps", "--format", "{{.Ports}}")
    assert "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp" in shown


def test_a_container_without_ipv6_is_reached_over_ipv6(lab: Lab, docker: Client):
    lab.serve("web", "-p", "8080:80")
    assert lab.here.fetch("::1", 8080) == "web sees 172.17.0.1"
    assert lab.here.fetch(HERE6, 8080) == "web sees 172.17.0.1"
    assert lab.outside.fetch(HERE6, 8080) == "web sees 172.17.0.1"
    assert plain(lab.outside.fetch(HERE, 8080)) == f"web sees {OUTSIDE}"


def test_udp_too(lab: Lab, docker: Client):
    lab.serve("dns", "-p", "5353:53/udp", speak=("udp:53",))
    assert lab.here.ask("::1", 5353) == "dns sees 172.17.0.1"
    assert lab.outside.ask(HERE6, 5353) == "dns sees 172.17.0.1"


def test_a_container_with_ipv6_sees_who_calls(lab: Lab, docker: Client):
    docker("network", "create", "--ipv6", "--subnet", "fd00:30::/64", "dual")
    serve6(lab, "web", "--network", "dual", "-p", "8080:80")
    assert lab.outside.fetch(HERE6, 8080) == f"web sees {OUTSIDE6}"
    assert plain(lab.outside.fetch(HERE, 8080)) == f"web sees {OUTSIDE}"
    assert lab.here.fetch("::1", 8080) == "web sees fd00:30::1", "by the relay"
    lab.serve("client", "--network", "dual")
    for who in ("client", "web"):
        assert lab.sandbox(who).fetch(HERE6, 8080).startswith("web sees"), f"{who}: through the host's address"


def test_a_container_with_ipv6_alone(lab: Lab, docker: Client):
    docker("network", "create", "--ipv4=false", "--ipv6", "--subnet", "fd00:30::/64", "six")
    serve6(lab, "web", "--network", "six", "-p", "8080:80")
    assert docker("port", "web", "80/tcp") == "[::]:8080"
    assert lab.outside.fetch(HERE6, 8080) == f"web sees {OUTSIDE6}"
    assert not lab.outside.reaches(HERE, 8080)


def test_a_container_leaves_under_the_host_s_address(lab: Lab, docker: Client):
    docker("network", "create", "--ipv6", "--subnet", "fd00:30::/64", "dual")
    lab.serve("web", "--network", "dual")
    with lab.outside.listen(7000, "::") as server, lab.sandbox("web").connect(OUTSIDE6, 7000):
        assert server.accept()[1][0] == HERE6


def test_a_port_on_an_ipv6_address(lab: Lab, docker: Client):
    lab.serve("web", "-p", "[::1]:8080:80", "-p", f"[{HERE6}]:8081:80")
    assert lab.here.fetch("::1", 8080).startswith("web sees")
    assert not lab.outside.reaches(HERE6, 8080) and not lab.outside.reaches(HERE, 8080)
    assert lab.outside.fetch(HERE6, 8081).startswith("web sees")
    assert not lab.outside.reaches(HERE, 8081)


def test_one_family_s_port_that_is_taken_refuses_both(lab: Lab, docker: Client):
    with lab.here.listen(8080, "::1"):
        refused = docker.refused("run", "-d", "--name", "web", "-p", "8080:80", "host", "sleep", "60")
    assert "Bind for [::]:8080 failed: port is already allocated" in refused.text
    with lab.here.socket() as sock:
        sock.bind(("0.0.0.0", 8080))


def test_an_address_of_the_host_chosen_for_a_network_is_for_its_family_alone(lab: Lab, docker: Client):
    docker("network", "create", "-o", "com.docker.network.bridge.host_binding_ipv4=127.0.0.1", "local")
    lab.serve("web", "--network", "local", "-p", "8080:80")
    assert docker("port", "web", "80/tcp") == "127.0.0.1:8080"


def test_what_flows_through_the_relay_outlives_the_daemon(lab: Lab, docker: Client):
    lab.run("echo", "-p", "7777:7", command=python(ECHO))
    with lab.outside.connect(HERE6, 7777) as connection:
        connection.sendall(b"before")
        assert connection.recv(100) == b"before"
        pid = relay(lab)
        lab.daemon.stop(signal.SIGKILL)
        connection.sendall(b"while")
        assert connection.recv(100) == b"while"
        lab.daemon.start()
        connection.sendall(b"after")
        assert connection.recv(100) == b"after"
        assert relay(lab) == pid
    docker("kill", "echo")
    wait_until(lambda: not relay(lab), "the end of the relay", 10)


def test_a_relay_that_was_killed_is_back_at_once(lab: Lab, docker: Client):
    lab.serve("web", "-p", "8080:80")
    assert lab.here.fetch("::1", 8080).startswith("web sees")
    pid = relay(lab)
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: lab.here.fetch("::1", 8080).startswith("web sees"), "the relay back")
    assert relay(lab) not in (0, pid)


def test_flushed_rules_of_both_families_are_put_back(lab: Lab, docker: Client):
    docker("network", "create", "--ipv6", "--subnet", "fd00:30::/64", "dual")
    serve6(lab, "web", "--network", "dual", "-p", "8080:80")
    for family in ("ip", "ip6"):
        lab.here.run(["nft", "delete", "table", family, "netengine"], check=True)
    eventually(lambda: lab.outside.fetch(HERE6, 8080) == f"web sees {OUTSIDE6}", "the rules of IPv6 back")
    eventually(lambda: plain(lab.outside.fetch(HERE, 8080)) == f"web sees {OUTSIDE}", "the rules of IPv4 back")


def test_a_steady_udp_sender_over_ipv6_follows_the_port(lab: Lab, docker: Client):
    """Its flow is tracked with the translation that was in force when it began: here, none."""
    docker("network", "create", "--ipv6", "--subnet", "fd00:30::/64", "dual")
    with lab.outside.socket(2, 10) as sender:  # SOCK_DGRAM, AF_INET6
        sender.connect((HERE6, 5353))
        sender.send(b"too early")
        serve6(lab, "dns", "--network", "dual", "-p", "5353:53/udp", speak="udp:53")

        def answered() -> bool:
            sender.settimeout(0.3)
            sender.send(b"again")
            return sender.recv(100) == f"dns sees {OUTSIDE6}".encode()

        eventually(answered, "an answer from the container that sees the sender itself")


def test_explain_names_the_relay_and_doctor_finds_nothing(lab: Lab, docker: Client, netengine: Client):
    lab.serve("web", "-p", "8080:80")
    assert "the relay carries tcp [::]:8080 to 172.17.0.2:80" in netengine("explain", "web")
    assert netengine("doctor")
