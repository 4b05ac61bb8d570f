"""Gateway modes and the options beside them with the real `docker` command. Who reaches whom is shown, packet by packet, by
tests/kernel/test_gateway_modes.py."""

from __future__ import annotations

import json

import pytest

from tests.clients.lab import HERE, HERE6, OUTSIDE, Lab
from tests.daemons import Client

MODE = "com.docker.network.bridge.gateway_mode_ipv4"


def create(docker: Client, name: str, *options: str, internal: bool = False) -> None:
    flags = [word for option in options for word in ("-o", option)]
    docker("network", "create", *flags, *(["--internal"] if internal else []), "--subnet", "172.30.0.0/24", name)


@pytest.fixture
def route(lab: Lab):
    """The machine outside knows the way to 172.30.0.0/24."""
    lab.outside.ip("route", "add", "172.30.0.0/24", "via", HERE)
    yield
    lab.outside.ip("route", "del", "172.30.0.0/24")


def test_a_routed_network_ignores_the_host_port_and_opens_the_container_s(lab: Lab, docker: Client, route: None):
    create(docker, "lan", f"{MODE}=routed")
    lab.serve("web", "--network", "lan", "-p", "8080:80", speak=("tcp:80", "tcp:81"))
    address = docker.address("web", "lan")
    assert lab.outside.fetch(address, 80) == f"web sees {OUTSIDE}"
    assert not lab.outside.reaches(address, 81)
    assert not lab.outside.reaches(HERE, 8080)
    with lab.here.socket() as sock:
        sock.bind(("0.0.0.0", 8080))
    assert docker("ps", "--format", "{{.Ports}}") == "80/tcp"
    assert docker.inspect("web")["NetworkSettings"]["Ports"]["80/tcp"][0] == {"HostIp": "0.0.0.0", "HostPort": ""}


def test_a_routed_network_is_reached_though_another_is_the_way_out(lab: Lab, docker: Client, route: None):
    create(docker, "lan", f"{MODE}=routed")
    lab.serve("web", "--network", "name=bridge,gw-priority=1", "-p", "8080:80")
    docker("network", "connect", "lan", "web")
    address = docker.inspect("web")["NetworkSettings"]["Networks"]["lan"]["IPAddress"]
    assert lab.outside.fetch(HERE, 8080) == f"web sees {OUTSIDE}", "the host's port leads to the way out"
    assert lab.outside.fetch(address, 80) == f"web sees {OUTSIDE}"


def test_a_container_of_a_routed_network_leaves_under_its_own_address(lab: Lab, docker: Client, route: None):
    create(docker, "lan", f"{MODE}=routed")
    lab.serve("web", "--network", "lan")
    with lab.outside.listen(7000) as server, lab.sandbox("web").connect(OUTSIDE, 7000):
        assert server.accept()[1][0] == docker.address("web", "lan")


def test_an_unprotected_network_is_open_to_direct_access(lab: Lab, docker: Client, route: None):
    create(docker, "lan", f"{MODE}=nat-unprotected")
    lab.serve("web", "--network", "lan", "-p", "8080:80", speak=("tcp:80", "tcp:81"))
    assert lab.outside.fetch(docker.address("web", "lan"), 81) == f"web sees {OUTSIDE}"
    assert lab.outside.fetch(HERE, 8080) == f"web sees {OUTSIDE}"
    with lab.outside.listen(7000) as server, lab.sandbox("web").connect(OUTSIDE, 7000):
        assert server.accept()[1][0] == HERE, "and leaves under the host's address"


def test_an_isolated_network_has_no_address_on_the_host_and_wastes_none(lab: Lab, docker: Client):
    docker(
        "network", "create", "--internal", "-o", f"{MODE}=isolated", "-o", "com.docker.network.bridge.name=iso0",
        "--subnet", "172.30.0.0/31", "lan",
    )  # fmt: skip
    lab.serve("one", "--network", "lan")
    lab.serve("two", "--network", "lan")
    assert {docker.address("one", "lan"), docker.address("two", "lan")} == {"172.30.0.0", "172.30.0.1"}
    assert lab.sandbox("one").fetch(docker.address("two", "lan"), 80).startswith("two sees")
    assert "inet " not in lab.here.ip("address", "show", "iso0")
    assert "Gateway" not in docker.inspect("lan")["IPAM"]["Config"][0]


def test_an_interface_that_is_trusted_reaches_published_ports_directly(lab: Lab, docker: Client, route: None):
    create(docker, "lan", "com.docker.network.bridge.trusted_host_interfaces=wg7:up0")
    lab.serve("web", "--network", "lan", "-p", "8080:80", speak=("tcp:80", "tcp:81"))
    assert lab.outside.fetch(docker.address("web", "lan"), 80) == f"web sees {OUTSIDE}"
    assert not lab.outside.reaches(docker.address("web", "lan"), 81), "and no others"


def test_a_fixed_source_address(lab: Lab, docker: Client):
    lab.here.ip("addr", "add", "192.0.2.77/24", "dev", "up0")
    try:
        create(docker, "lan", "com.docker.network.host_ipv4=192.0.2.77")
        lab.serve("web", "--network", "lan")
        with lab.outside.listen(7000) as server, lab.sandbox("web").connect(OUTSIDE, 7000):
            assert server.accept()[1][0] == "192.0.2.77"
    finally:
        lab.here.ip("addr", "del", "192.0.2.77/24", "dev", "up0")


def test_a_bridge_without_an_address_of_its_own(lab: Lab, docker: Client):
    """The gateway is somebody else on the wire: here, a container."""
    create(docker, "lan", "com.docker.network.bridge.inhibit_ipv4=true", "com.docker.network.bridge.name=wire0")
    lab.serve("web", "--network", "lan")
    assert "inet " not in lab.here.ip("address", "show", "wire0")
    assert "default via 172.30.0.1 dev eth0" in docker("exec", "web", "ip", "route")


@pytest.mark.parametrize(
    ("option", "internal", "words"),
    [
        (
            f"{MODE}=bridged",
            False,
            f"unknown gateway mode 'bridged' for {MODE}: it must be one of nat, nat-unprotected",
        ),
        (f"{MODE}=isolated", False, "gateway mode 'isolated' can only be used for an internal network"),
        ("com.docker.network.bridge.gateway_mode_ipv6=nope", False, "unknown gateway mode 'nope'"),
        ("com.docker.network.bridge.trusted_host_interfaces=eth0::wg0", False, "'' is not the name of an interface"),
        (
            "com.docker.network.bridge.trusted_host_interfaces=a-name-of-16-chars",
            False,
            "is not the name of an interface",
        ),
        ("com.docker.network.bridge.inhibit_ipv4=maybe", False, "it must be true or false"),
        ("com.docker.network.host_ipv4=2001:db8::1", False, "it must be an IPv4 address of the host"),
        ("com.docker.network.host_ipv4=127.0.0.1", False, "it must be an IPv4 address of the host"),
        ("com.docker.network.host_ipv6=192.0.2.1", False, "it must be an IPv6 address of the host"),
        ("com.docker.network.bridge.gateway_mode=nat", False, "unknown option"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_made(
    lab: Lab, docker: Client, option: str, internal: bool, words: str
):
    flags = ["--internal"] if internal else []
    refused = docker.refused("network", "create", "-o", option, *flags, "lan")
    assert words in refused.text
    assert lab.untouched()


def test_a_bridge_that_was_there_is_used_with_the_addresses_it_has_and_left_behind(lab: Lab, docker: Client):
    ip = lab.here.ip
    ip("link", "add", "mine0", "type", "bridge")
    try:
        for address in ("172.30.0.254/24", "fd00:30::fe/64"):
            ip("address", "add", address, "dev", "mine0", *(["nodad"] if ":" in address else []))
        ip("link", "set", "mine0", "up")
        before = ip("-o", "address", "show", "dev", "mine0", "scope", "global")
        docker(
            "network", "create", "--ipv6", "--subnet", "172.30.0.0/24", "--gateway", "172.30.0.254",
            "--subnet", "fd00:30::/64", "--gateway", "fd00:30::fe",
            "-o", "com.docker.network.bridge.name=mine0", "lan",
        )  # fmt: skip
        lab.serve("web", "--network", "lan", "-p", "8080:80")
        assert lab.outside.fetch(HERE, 8080) == f"web sees {OUTSIDE}"
        assert ip("-o", "address", "show", "dev", "mine0", "scope", "global") == before
        assert '"mine0"' in lab.here.run(["nft", "list", "set", "ip6", "netengine", "masquerading"], check=True).stdout
        docker("rm", "-f", "web")
        docker("network", "rm", "lan")
        assert ip("-o", "address", "show", "dev", "mine0", "scope", "global") == before
        assert "mine0" not in lab.here.rules()
    finally:
        ip("link", "del", "mine0")


def test_the_daemon_s_own_say(lab: Lab, docker: Client, route: None):
    """daemon.json: where ports are published, who reaches them directly, and what is forwarded besides."""
    config = {"ip": HERE6, "allow-direct-routing": True, "ip-forward-no-drop": True}
    create(docker, "lan")
    before = lab.daemon.config_file.read_text()
    lab.daemon.config_file.write_text(json.dumps(config))
    lab.daemon.restart()
    try:
        lab.serve("web", "--network", "lan", "-p", "8080:80", speak=("tcp:80", "tcp:81"))
        assert docker("port", "web", "80/tcp") == f"[{HERE6}]:8080"
        lab.serve("four", "--network", "lan", "-p", f"{HERE}:8080:80", speak=("tcp:80", "tcp:81"))
        assert lab.outside.fetch(docker.address("four", "lan"), 80) == f"four sees {OUTSIDE}"
        assert not lab.outside.reaches(docker.address("four", "lan"), 81)
        assert "elements" not in lab.here.run(["nft", "list", "map", "ip", "netengine", "strangers"], check=True).stdout
    finally:
        docker("rm", "-f", "web", "four")
        lab.daemon.config_file.write_text(before)
        lab.daemon.restart()
    assert "ip : drop" in lab.here.run(["nft", "list", "map", "ip", "netengine", "strangers"], check=True).stdout
    lab.serve("closed", "--network", "lan", "-p", "8080:80")
    assert not lab.outside.reaches(docker.address("closed", "lan"), 80)
