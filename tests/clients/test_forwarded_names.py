"""Names that no container has: which server is asked, from where, and what happens when it fails."""

import time
from collections.abc import Callable

import dns.flags
import dns.rcode
import pytest

from tests.clients.lab import HERE, OUTSIDE, Lab, eventually
from tests.clients.nameserver import EMBEDDED, Upstream, addresses, ask, look_up
from tests.daemons import Client, Daemon, docker_cli
from tests.hosts import Host, Namespace
from tests.patience import promised

WORLD: dict[str, str | list[str]] = {
    "www.example.": "198.51.100.1",
    "single.": "198.51.100.2",
    "big.example.": [f"198.51.100.{number}" for number in range(1, 120)],
}


@pytest.fixture
def box(lab: Lab, docker: Client) -> Namespace:
    """A sandbox at 10.20.0.2, from which names are asked for."""
    docker("network", "create", "--subnet", "10.20.0.0/24", "blue")
    docker("run", "-d", "--name", "box", "--network", "blue", "sandbox")
    return lab.sandbox("box")


# ---------------------------------------------------------------------- the host's servers


def test_the_hosts_servers_are_asked_from_the_host(lab: Lab, box: Namespace):
    with Upstream(lab.outside, OUTSIDE, WORLD) as upstream:
        assert look_up(box, "www.example") == ["198.51.100.1"]
        assert upstream.asked == [(HERE, "www.example.", "udp")]


def test_a_server_on_the_hosts_loopback_is_asked_too(lab: Lab, box: Namespace):
    lab.write_resolv_conf("nameserver 127.0.0.53\n")
    with Upstream(lab.here, "127.0.0.53", WORLD) as upstream:
        eventually(lambda: look_up(box, "www.example") == ["198.51.100.1"])
        assert {asker for asker, _, _ in upstream.asked} == {"127.0.0.1"}


def test_by_the_clients_that_people_use(lab: Lab, docker: Client, box: Namespace):
    lab.idle("user", "--network", "blue")
    with Upstream(lab.outside, OUTSIDE, WORLD):
        assert docker("exec", "user", "getent", "ahostsv4", "www.example").split()[0] == "198.51.100.1"
        assert docker("exec", "user", "dig", "+short", "www.example") == "198.51.100.1"
        assert "198.51.100.1" in docker("exec", "user", "busybox", "nslookup", "www.example")
        assert docker("exec", "user", "dig", "+tcp", "+short", "www.example") == "198.51.100.1"


def test_what_does_not_exist_does_not_exist(lab: Lab, box: Namespace):
    with Upstream(lab.outside, OUTSIDE, WORLD):
        assert ask(box, "nobody.example").rcode() == dns.rcode.NXDOMAIN


def test_known_names_are_never_asked_elsewhere(lab: Lab, docker: Client, box: Namespace):
    docker("run", "-d", "--name", "web", "--network", "blue", "sandbox")
    with Upstream(lab.outside, OUTSIDE, WORLD) as upstream:
        for kind in ("A", "AAAA", "MX"):
            ask(box, "web", kind)
            ask(box, "web.blue", kind)
        ask(box, "2.0.20.10.in-addr.arpa", "PTR")
        assert upstream.asked == []


def test_a_long_answer_comes_over_tcp(lab: Lab, box: Namespace):
    with Upstream(lab.outside, OUTSIDE, WORLD):
        assert ask(box, "big.example").flags & dns.flags.TC
        assert len(addresses(ask(box, "big.example", tcp=True))) == 119


def test_forged_answers_are_not_taken(lab: Lab, box: Namespace):
    with Upstream(lab.outside, OUTSIDE, WORLD, forges="203.0.113.66") as upstream:
        for _ in range(20):
            assert look_up(box, "www.example") == ["198.51.100.1"]
        # Each question leaves from one of 64 random ports: twenty draws hit at least ten of them, but once in ten million.
        assert len(upstream.ports) >= 10, "the port cannot be foreseen"


# ---------------------------------------------------------------------- servers that fail


def test_without_any_server_the_answer_is_a_failure_and_comes_soon(lab: Lab, box: Namespace):
    begin = time.monotonic()
    assert ask(box, "www.example", timeout=10).rcode() == dns.rcode.SERVFAIL
    took = time.monotonic() - begin
    assert took < 5 or took < promised(5)


def test_a_silent_server_costs_a_moment_once(lab: Lab, box: Namespace):
    lab.here.ip("addr", "add", "192.0.2.3/24", "dev", "up0")
    try:
        with Upstream(lab.outside, OUTSIDE, silent=True) as silent, Upstream(lab.here, "192.0.2.3", WORLD) as good:
            lab.write_resolv_conf(f"nameserver {OUTSIDE}\nnameserver 192.0.2.3\n")
            eventually(lambda: look_up(box, "www.example") == ["198.51.100.1"])
            begin = time.monotonic()
            for _ in range(10):
                assert look_up(box, "www.example") == ["198.51.100.1"]
            took = time.monotonic() - begin
            assert took < 1 or took < promised(1), "Docker takes 4 s for each"
            assert silent.asked and good.asked
    finally:
        lab.here.ip("addr", "del", "192.0.2.3/24", "dev", "up0")


@pytest.mark.parametrize("rcode", [dns.rcode.SERVFAIL, dns.rcode.REFUSED], ids=dns.rcode.to_text)
def test_one_that_fails_is_passed_over(lab: Lab, box: Namespace, rcode: dns.rcode.Rcode):
    lab.here.ip("addr", "add", "192.0.2.3/24", "dev", "up0")
    try:
        with Upstream(lab.outside, OUTSIDE, rcode=rcode), Upstream(lab.here, "192.0.2.3", WORLD):
            lab.write_resolv_conf(f"nameserver {OUTSIDE}\nnameserver 192.0.2.3\n")
            eventually(lambda: look_up(box, "www.example") == ["198.51.100.1"])
            for _ in range(5):
                assert look_up(box, "www.example") == ["198.51.100.1"]
    finally:
        lab.here.ip("addr", "del", "192.0.2.3/24", "dev", "up0")


def test_a_change_of_the_hosts_servers_is_followed(lab: Lab, box: Namespace):
    with Upstream(lab.outside, OUTSIDE, {"www.example.": "198.51.100.1"}):
        assert look_up(box, "www.example") == ["198.51.100.1"]
        with Upstream(lab.here, "127.0.0.1", {"www.example.": "203.0.113.1"}):
            lab.write_resolv_conf("nameserver 127.0.0.1\n")  # renamed into place
            eventually(lambda: look_up(box, "www.example") == ["203.0.113.1"])
            lab.here.path("/etc/resolv.conf").write_text(f"nameserver {OUTSIDE}\n")  # written in place
            eventually(lambda: look_up(box, "www.example") == ["198.51.100.1"])


def test_a_change_behind_a_symbolic_link_is_followed(lab: Lab, box: Namespace):
    """As with systemd-resolved, NetworkManager and resolvconf: /etc/resolv.conf is a link into /run."""
    real = lab.here.path("/run/resolver.conf")
    link = lab.here.path("/etc/resolv.conf.link")
    real.write_text(f"nameserver {OUTSIDE}\n")
    link.symlink_to("../run/resolver.conf")
    link.rename(lab.here.path("/etc/resolv.conf"))
    try:
        with (
            Upstream(lab.outside, OUTSIDE, {"www.example.": "198.51.100.1"}),
            Upstream(lab.here, "127.0.0.1", {"www.example.": "203.0.113.1"}),
        ):
            assert look_up(box, "www.example") == ["198.51.100.1"]
            real.write_text("nameserver 127.0.0.1\n")
            eventually(lambda: look_up(box, "www.example") == ["203.0.113.1"])
            other = real.with_suffix(".new")
            other.write_text(f"nameserver {OUTSIDE}\n")
            other.rename(real)
            eventually(lambda: look_up(box, "www.example") == ["198.51.100.1"])
    finally:
        real.unlink()


def test_a_line_that_names_no_address_does_no_harm(lab: Lab, docker: Client, box: Namespace):
    with Upstream(lab.outside, OUTSIDE, WORLD) as upstream:
        lab.write_resolv_conf(f"nameserver nonsense\nnameserver {OUTSIDE}\n")
        lab.daemon.restart()
        docker("run", "-d", "--name", "late", "--network", "blue", "sandbox")
        assert look_up(box, "late") == ["10.20.0.3"]
        assert look_up(box, "www.example") == ["198.51.100.1"]
        assert upstream.names() == ["www.example."]


def test_servers_of_daemon_json_are_asked_from_the_container_as_if_by_dns(
    host: Host, make_daemon: Callable[..., Daemon]
):
    config = {"dns": ["127.0.0.77"], "dns-search": ["corp.example"], "dns-opts": ["timeout:2"]}
    daemon = make_daemon(host, config=config)
    docker = docker_cli(daemon)
    docker("network", "create", "blue")
    docker("run", "-d", "--name", "box", "--network", "blue", "host", "sleep", "infinity")
    box = Namespace(host.path(docker("inspect", "-f", "{{.NetworkSettings.SandboxKey}}", "box")), "box")
    try:
        with Upstream(host, "127.0.0.77") as hosts, Upstream(box, "127.0.0.77", WORLD) as own:
            assert docker("exec", "box", "getent", "ahostsv4", "www.example").split()[0] == "198.51.100.1"
            assert "www.example." in own.names()
            assert hosts.asked == [], "the address is the container's loopback, not the host's"
    finally:
        box.close()
    lines = docker("exec", "box", "cat", "/etc/resolv.conf").splitlines()
    assert lines[1:] == [f"nameserver {EMBEDDED}", "search corp.example", "options timeout:2 ndots:0"]


# ---------------------------------------------------------------------- a container's own servers


def test_servers_of_a_container_are_asked_from_its_namespace(lab: Lab, docker: Client, box: Namespace):
    docker("run", "-d", "--name", "picky", "--network", "blue", "--ip", "10.20.0.9", "--dns", "10.20.0.2", "sandbox")
    with Upstream(box, "0.0.0.0", WORLD) as own, Upstream(lab.outside, OUTSIDE) as hosts:
        picky = lab.sandbox("picky")
        assert look_up(picky, "www.example") == ["198.51.100.1"]
        assert own.asked == [("10.20.0.9", "www.example.", "udp")]
        assert ask(picky, "nobody.example").rcode() == dns.rcode.NXDOMAIN
        assert look_up(picky, "box") == ["10.20.0.2"], "names of containers come first"
        assert hosts.asked == []


def test_a_loopback_server_of_a_container_is_its_own(lab: Lab, docker: Client, box: Namespace):
    """127.0.0.1 means the container, not the host: the host's resolver is out of reach."""
    docker("run", "-d", "--name", "picky", "--network", "blue", "--dns", "127.0.0.1", "sandbox")
    picky = lab.sandbox("picky")
    with Upstream(lab.here, "127.0.0.1", WORLD) as hosts:
        assert ask(picky, "www.example", timeout=10).rcode() == dns.rcode.SERVFAIL
        with Upstream(picky, "127.0.0.1", WORLD):
            eventually(lambda: look_up(picky, "www.example") == ["198.51.100.1"])
        assert hosts.asked == []


def test_a_long_answer_of_a_container_s_own_server_comes_over_tcp(lab: Lab, docker: Client, box: Namespace):
    docker("run", "-d", "--name", "picky", "--network", "blue", "--ip", "10.20.0.9", "--dns", "10.20.0.2", "sandbox")
    many = [f"198.51.100.{n}" for n in range(1, 101)]
    with Upstream(box, "0.0.0.0", {"many.example.": many}) as own, Upstream(lab.outside, OUTSIDE) as hosts:
        picky = lab.sandbox("picky")
        assert ask(picky, "many.example").flags & dns.flags.TC
        for _ in range(5):  # more than there are sockets
            assert set(look_up(picky, "many.example", tcp=True)) == set(many)
        assert own.asked[1:] == [("10.20.0.9", "many.example.", "tcp")] * 5
        assert hosts.asked == []


def test_a_container_s_own_server_may_have_an_ipv6_address(lab: Lab, docker: Client, box: Namespace):
    docker("run", "-d", "--name", "picky", "--network", "blue", "--dns", "0:0:0::0001", "sandbox")
    assert docker("inspect", "-f", "{{.HostConfig.Dns}}", "picky") == "[::1]"
    picky = lab.sandbox("picky")
    with Upstream(picky, "::1", WORLD) as own:
        assert look_up(picky, "www.example") == ["198.51.100.1"]
        assert look_up(picky, "www.example", tcp=True) == ["198.51.100.1"]
        assert [over for _, _, over in own.asked] == ["udp", "tcp"]


def test_the_name_server_does_not_ask_itself(lab: Lab, docker: Client, box: Namespace):
    docker("run", "-d", "--name", "looped", "--network", "blue", "--dns", EMBEDDED, "sandbox")
    assert ask(lab.sandbox("looped"), "www.example").rcode() == dns.rcode.SERVFAIL
    both = ["--dns", EMBEDDED, "--dns", "10.20.0.2"]
    docker("run", "-d", "--name", "second", "--network", "blue", *both, "sandbox")
    with Upstream(box, "0.0.0.0", WORLD) as own:
        assert look_up(lab.sandbox("second"), "www.example") == ["198.51.100.1"]
        assert own.names() == ["www.example."]


def test_on_internal_networks_only_the_hosts_servers_are_never_asked(lab: Lab, docker: Client, box: Namespace):
    docker("network", "create", "--internal", "--subnet", "10.40.0.0/24", "vault")
    docker("run", "-d", "--name", "inmate", "--network", "vault", "sandbox")
    docker("run", "-d", "--name", "mate", "--network", "vault", "sandbox")
    inmate = lab.sandbox("inmate")
    with Upstream(lab.outside, OUTSIDE, WORLD) as upstream:
        assert look_up(inmate, "mate") == ["10.40.0.3"]
        for tcp in (False, True):
            assert addresses(ask(inmate, "www.example", tcp=tcp)) == []
            assert addresses(ask(inmate, "secret.attacker.example", "TXT", tcp=tcp)) == []
        assert upstream.asked == []
        docker("network", "connect", "blue", "inmate")
        assert look_up(inmate, "www.example") == ["198.51.100.1"], "it has a way out now"
        docker("network", "disconnect", "blue", "inmate")
        assert look_up(inmate, "www.example") == []


def test_the_default_bridge_is_a_way_out_too(lab: Lab, docker: Client, box: Namespace):
    docker("network", "create", "--internal", "--subnet", "10.40.0.0/24", "vault")
    docker("run", "-d", "--name", "inmate", "--network", "vault", "sandbox")
    inmate = lab.sandbox("inmate")
    with Upstream(lab.outside, OUTSIDE, WORLD) as upstream:
        docker("network", "connect", "bridge", "inmate")
        assert look_up(inmate, "www.example") == ["198.51.100.1"]
        docker("network", "disconnect", "bridge", "inmate")
        upstream.asked.clear()
        assert look_up(inmate, "www.example") == []
        assert upstream.asked == []


def test_single_words_stay_here_if_ndots_is_set(lab: Lab, docker: Client, box: Namespace):
    docker("run", "-d", "--name", "dotted", "--network", "blue", "--dns-option", "ndots:1", "sandbox")
    with Upstream(lab.outside, OUTSIDE, WORLD) as upstream:
        answer = ask(lab.sandbox("dotted"), "single")
        assert (answer.rcode(), answer.answer) == (dns.rcode.NOERROR, [])
        assert upstream.asked == []
        assert look_up(lab.sandbox("dotted"), "www.example") == ["198.51.100.1"]
        assert look_up(box, "single") == ["198.51.100.2"]
