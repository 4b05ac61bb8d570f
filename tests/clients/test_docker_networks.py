"""Networks with the real `docker` command: what exists, who is on it, who reaches whom."""

import re

import pytest

from tests.clients.lab import HERE, OUTSIDE, Lab, eventually
from tests.daemons import Client


def test_the_predefined_networks(docker: Client):
    listed = docker("network", "ls", "--format", "{{.Name}} {{.Driver}} {{.Scope}}").splitlines()
    assert listed == ["bridge bridge local", "host host local", "none null local"]


def test_inspect_shows_the_subnet_and_who_is_on_it(lab: Lab, docker: Client):
    network = docker("network", "create", "--label", "tier=front", "blue")
    container = lab.serve("web", "--network", "blue")
    found = docker.inspect("blue")
    assert found["Id"] == network
    assert found["Driver"] == "bridge"
    assert found["Scope"] == "local"
    assert found["Labels"] == {"tier": "front"}
    assert found["IPAM"]["Config"] == [{"Subnet": "172.18.0.0/16", "Gateway": "172.18.0.1"}]
    assert found["Internal"] is False
    endpoint = found["Containers"][container]
    assert endpoint["Name"] == "web"
    assert endpoint["IPv4Address"] == "172.18.0.2/16"


def test_a_network_is_found_by_name_id_and_prefix(docker: Client):
    identity = docker("network", "create", "blue")
    for reference in ("blue", identity, identity[:12], identity[:6]):
        assert docker("network", "inspect", "-f", "{{.Id}}", reference) == identity


def test_inspect_prints_what_it_finds_and_reports_the_rest(docker: Client):
    done = docker.run("network", "inspect", "bridge", "nonexistent")
    assert done.returncode == 1
    assert '"Name": "bridge"' in done.stdout
    assert "network nonexistent not found" in done.stderr


@pytest.mark.parametrize(
    ("filter", "names"),
    [
        ("driver=bridge", ["blue", "bridge", "green"]),
        ("name=gre", ["green"]),
        ("label=tier=front", ["blue"]),
        ("type=custom", ["blue", "green"]),
        ("type=builtin", ["bridge", "host", "none"]),
        ("dangling=true", ["green"]),
        ("scope=local", ["blue", "bridge", "green", "host", "none"]),
    ],
)
def test_ls_filters(lab: Lab, docker: Client, filter: str, names: list[str]):
    docker("network", "create", "--label", "tier=front", "blue")
    docker("network", "create", "green")
    lab.run("web", "--network", "blue", command=["sh", "-c", "echo ready; exec sleep 100"])
    assert docker("network", "ls", "--filter", filter, "--format", "{{.Name}}").splitlines() == names


def test_the_bridge_is_named_after_the_network(lab: Lab, docker: Client):
    identity = docker("network", "create", "blue")
    assert f"br-{identity[:12]}" in lab.here.links()
    docker("network", "rm", "blue")
    assert f"br-{identity[:12]}" not in lab.here.links()


def test_the_default_bridge_is_docker0_when_that_name_is_free(lab: Lab):
    assert "docker0" in lab.here.links()
    assert "inet 172.17.0.1/16" in lab.here.ip("addr", "show", "docker0")


@pytest.mark.parametrize("mtu", [1400, 1200])  # below 1,280 the kernel gives a link no IPv6
def test_options_name_the_bridge_and_set_its_mtu(lab: Lab, docker: Client, mtu: int):
    docker(
        *["network", "create", "-o", "com.docker.network.bridge.name=mine"],
        *["-o", f"com.docker.network.driver.mtu={mtu}", "blue"],
    )
    assert f"mtu {mtu}" in lab.here.ip("link", "show", "mine")
    lab.serve("web", "--network", "blue")
    assert f"mtu {mtu}" in docker("exec", "web", "ip", "link", "show", "eth0")
    assert docker.inspect("blue")["Options"]["com.docker.network.bridge.name"] == "mine"


def test_the_container_side_is_eth0_with_a_default_route(lab: Lab, docker: Client):
    lab.serve("web")
    assert "eth0" in lab.sandbox("web").links()
    assert "default via 172.17.0.1 dev eth0" in docker("exec", "web", "ip", "route")
    veths = [name for name in lab.here.links() if re.fullmatch(r"veth[0-9a-f]{7}", name)]
    assert len(veths) == 1


def test_containers_of_one_network_talk_and_of_two_do_not(lab: Lab, docker: Client):
    docker("network", "create", "blue")
    docker("network", "create", "green")
    lab.serve("one", "--network", "blue")
    lab.serve("two", "--network", "blue")
    lab.serve("far", "--network", "green")
    two, far = docker.address("two", "blue"), docker.address("far", "green")
    one = lab.sandbox("one")
    assert one.fetch(two, 80) == f"two sees {docker.address('one', 'blue')}"
    assert not one.reaches(far, 80)
    assert lab.here.reaches(far, 80), "the host itself reaches all of them"


def test_containers_of_the_default_bridge_and_of_another_do_not_talk(lab: Lab, docker: Client):
    docker("network", "create", "blue")
    lab.serve("one")
    lab.serve("far", "--network", "blue")
    assert not lab.sandbox("one").reaches(docker.address("far", "blue"), 80)
    assert not lab.sandbox("far").reaches(docker.address("one"), 80)


def test_with_icc_off_containers_of_one_network_do_not_talk(lab: Lab, docker: Client):
    docker("network", "create", "-o", "com.docker.network.bridge.enable_icc=false", "quiet")
    lab.serve("one", "--network", "quiet", "-p", "8080:80")
    lab.serve("two", "--network", "quiet")
    assert not lab.sandbox("one").reaches(docker.address("two", "quiet"), 80)
    assert lab.outside.fetch(HERE, 8080).startswith("one sees"), "published ports are not concerned"


def test_a_container_reaches_the_outside_under_the_hosts_address(lab: Lab, docker: Client):
    lab.serve("web")
    with lab.outside.listen(9000) as server, lab.sandbox("web").connect(OUTSIDE, 9000):
        assert server.accept()[1][0] == HERE


def test_without_masquerade_a_container_shows_its_own_address(lab: Lab, docker: Client):
    docker(
        *["network", "create", "--subnet", "10.20.0.0/24"],
        *["-o", "com.docker.network.bridge.enable_ip_masquerade=false", "plain"],
    )
    lab.serve("web", "--network", "plain")
    lab.outside.ip("route", "add", "10.20.0.0/24", "via", HERE)
    try:
        with lab.outside.listen(9000) as server, lab.sandbox("web").connect(OUTSIDE, 9000):
            assert server.accept()[1][0] == "10.20.0.2"
    finally:
        lab.outside.ip("route", "del", "10.20.0.0/24")


def test_an_internal_network_reaches_nobody_outside_and_is_reached_by_nobody(lab: Lab, docker: Client):
    docker("network", "create", "--internal", "--subnet", "10.20.0.0/24", "vault")
    lab.serve("one", "--network", "vault")
    lab.serve("two", "--network", "vault")
    one = lab.sandbox("one")
    assert one.fetch(docker.address("two", "vault"), 80).startswith("two sees")
    with lab.outside.listen(9000):
        assert not one.reaches(OUTSIDE, 9000)
    assert "default" not in docker("exec", "one", "ip", "route")
    assert docker.inspect("vault")["Internal"] is True


def test_a_running_container_is_connected_to_and_disconnected_from_a_second_network(lab: Lab, docker: Client):
    docker("network", "create", "blue")
    lab.serve("web")
    lab.serve("peer", "--network", "blue")
    docker("network", "connect", "blue", "web")
    web = lab.sandbox("web")
    assert {"eth0", "eth1"} <= web.links()
    assert web.fetch(docker.address("peer", "blue"), 80).startswith("peer sees 172.18.")
    docker("network", "disconnect", "blue", "web")
    assert "eth1" not in web.links()
    assert "blue" not in docker.inspect("web")["NetworkSettings"]["Networks"]
    assert "web" not in str(docker.inspect("blue")["Containers"])


def test_a_freed_interface_number_is_used_again(lab: Lab, docker: Client):
    for name in ("a", "b", "c"):
        docker("network", "create", name)
    lab.serve("web", "--network", "a")
    docker("network", "connect", "b", "web")
    docker("network", "disconnect", "a", "web")
    docker("network", "connect", "c", "web")
    assert "172.20.0.2" in docker("exec", "web", "ip", "addr", "show", "eth0")
    assert "172.19.0.2" in docker("exec", "web", "ip", "addr", "show", "eth1")


def test_the_default_route_goes_by_name_unless_a_priority_says_otherwise(lab: Lab, docker: Client):
    for name in ("a", "b", "c"):
        docker("network", "create", name)
    lab.serve("web", "--network", "b")
    docker("network", "connect", "c", "web")
    assert "default via 172.19.0.1" in docker("exec", "web", "ip", "route"), "b is before c"
    docker("network", "connect", "a", "web")
    assert "default via 172.18.0.1" in docker("exec", "web", "ip", "route"), "a is before b"
    docker("network", "disconnect", "c", "web")
    docker("network", "connect", "--gw-priority", "1", "c", "web")
    assert "default via 172.20.0.1" in docker("exec", "web", "ip", "route"), "c has the highest priority"
    docker("network", "disconnect", "c", "web")
    assert "default via 172.18.0.1" in docker("exec", "web", "ip", "route"), "and back"


def test_an_internal_network_never_gives_the_default_route_when_another_can(lab: Lab, docker: Client):
    docker("network", "create", "--internal", "a")
    docker("network", "create", "b")
    lab.serve("web", "--network", "a")
    assert "default" not in docker("exec", "web", "ip", "route")
    docker("network", "connect", "b", "web")
    assert "default via 172.19.0.1" in docker("exec", "web", "ip", "route")


def test_several_networks_at_run(lab: Lab, docker: Client):
    docker("network", "create", "blue")
    docker("network", "create", "green")
    lab.serve("web", "--network", "blue", "--network", "name=green,gw-priority=5")
    assert set(docker.inspect("web")["NetworkSettings"]["Networks"]) == {"blue", "green"}
    assert "default via 172.19.0.1" in docker("exec", "web", "ip", "route")


def test_a_static_address_and_mac_are_given_and_kept_over_a_restart(lab: Lab, docker: Client):
    docker("network", "create", "--subnet", "10.20.0.0/24", "blue")
    lab.serve("web", "--network", "blue", "--ip", "10.20.0.77", "--mac-address", "02:42:0a:14:00:4d")
    docker("restart", "-t", "1", "web")
    endpoint = docker.inspect("web")["NetworkSettings"]["Networks"]["blue"]
    assert endpoint["IPAddress"] == "10.20.0.77"
    assert endpoint["MacAddress"] == "02:42:0a:14:00:4d"
    eventually(lambda: lab.here.fetch("10.20.0.77", 80).startswith("web sees"))
    assert "02:42:0a:14:00:4d" in docker("exec", "web", "ip", "link", "show", "eth0")


def test_subnet_range_gateway_and_auxiliary_addresses(lab: Lab, docker: Client):
    docker(
        *["network", "create", "--subnet", "10.20.0.0/24", "--ip-range", "10.20.0.128/30"],
        *["--gateway", "10.20.0.254", "--aux-address", "printer=10.20.0.128", "blue"],
    )
    lab.serve("web", "--network", "blue")
    assert docker.address("web", "blue") == "10.20.0.129"
    assert "default via 10.20.0.254" in docker("exec", "web", "ip", "route")
    (config,) = docker.inspect("blue")["IPAM"]["Config"]
    assert config == {
        "Subnet": "10.20.0.0/24",
        "IPRange": "10.20.0.128/30",
        "Gateway": "10.20.0.254",
        "AuxiliaryAddresses": {"printer": "10.20.0.128"},
    }


def test_a_pool_that_a_route_of_the_host_overlaps_is_skipped(lab: Lab, docker: Client):
    lab.here.ip("route", "add", "172.18.0.0/15", "dev", "up0")
    try:
        docker("network", "create", "blue")
        assert docker.inspect("blue")["IPAM"]["Config"][0]["Subnet"] == "172.20.0.0/16"
    finally:
        lab.here.ip("route", "del", "172.18.0.0/15")


def test_any_free_slash_24(docker: Client):
    docker("network", "create", "--subnet", "0.0.0.0/24", "small")
    assert docker.inspect("small")["IPAM"]["Config"][0]["Subnet"] == "172.18.0.0/24"


def test_prune_removes_the_networks_that_nobody_uses(lab: Lab, docker: Client):
    docker("network", "create", "used")
    docker("network", "create", "unused")
    lab.serve("web", "--network", "used")
    assert docker("network", "prune", "-f").split() == ["Deleted", "Networks:", "unused"]
    assert lab.networks() == {"bridge", "host", "none", "used"}


def test_host_mode_shares_the_hosts_interfaces(lab: Lab, docker: Client):
    lab.serve("web", "--network", "host", speak=("tcp:8090",))
    assert lab.outside.fetch(HERE, 8090) == f"web sees {OUTSIDE}"
    assert "up0" in docker("exec", "web", "ip", "link")


def test_none_mode_has_only_lo(lab: Lab, docker: Client):
    assert docker("run", "--rm", "--network", "none", "host", "ip", "-o", "link").count("\n") == 0
    assert "127.0.0.1/8" in docker("run", "--rm", "--network", "none", "host", "ip", "addr", "show", "lo")


def test_container_mode_shares_the_sandbox_of_another(lab: Lab, docker: Client):
    lab.serve("web", "-p", "8080:80")
    side = lab.serve("side", "--network", "container:web", speak=("tcp:81",))
    assert lab.sandbox("side").fetch("127.0.0.1", 80).startswith("web sees 127.0.0.1")
    assert lab.here.fetch(docker.address("web"), 81).startswith("side sees")
    assert docker.inspect("side")["HostConfig"]["NetworkMode"].startswith("container:")
    assert docker.inspect(side)["NetworkSettings"]["Networks"] == {}


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (["--network", "container:web", "-p", "80"], "conflicting options: port publishing and the container type"),
        (["--network", "container:web", "--expose", "80"], "conflicting options: port exposing and the container type"),
        (["--network", "container:web", "--hostname", "x"], "conflicting options: hostname and the network mode"),
        (["--network", "container:web", "--dns", "1.1.1.1"], "conflicting options: dns and the network mode"),
        (
            ["--network", "container:web", "--add-host", "a:1.1.1.1"],
            "conflicting options: custom host-to-IP mapping and the network mode",
        ),
        (["--network", "container:"], "invalid container format container:<name|id>"),
        (["--network", "container:nobody"], "No such container: nobody"),
        (["--network", "host", "--ip", "10.0.0.1"], "user-defined networks only"),
        (["--ip", "172.17.0.9"], "user-specified IP address is supported"),
    ],
)
def test_what_the_network_modes_exclude(lab: Lab, docker: Client, flags: list[str], text: str):
    lab.serve("web")
    failed = docker.refused("run", "--name", "bad", *flags, "host", "true")
    assert failed.code == 125
    assert text in failed.text


@pytest.mark.parametrize(
    ("mode", "network", "text"),
    [
        ("host", "blue", "container sharing network namespace with another container or host cannot be"),
        (
            "none",
            "blue",
            "container cannot be connected to multiple networks with one of the networks in private (none)",
        ),
        ("container:peer", "blue", "container sharing network namespace with another container or host cannot be"),
        ("bridge", "host", "cannot connect container to host network"),
    ],
)
def test_what_cannot_be_connected(lab: Lab, docker: Client, mode: str, network: str, text: str):
    docker("network", "create", "blue")
    lab.serve("peer")
    lab.run("web", "--network", mode, command=["sh", "-c", "echo ready; exec sleep 100"])
    assert text in docker.refused("network", "connect", network, "web").text


def test_connecting_twice_and_disconnecting_a_stranger_are_refused(lab: Lab, docker: Client):
    docker("network", "create", "blue")
    lab.serve("web", "--network", "blue")
    assert "already" in docker.refused("network", "connect", "blue", "web").text
    docker("network", "disconnect", "blue", "web")
    assert "is not connected to network blue" in docker.refused("network", "disconnect", "blue", "web").text


def test_published_ports_follow_the_container_to_another_network(lab: Lab, docker: Client):
    docker("network", "create", "blue")
    lab.serve("web", "-p", "8080:80")
    docker("network", "connect", "blue", "web")
    docker("network", "disconnect", "bridge", "web")
    eventually(lambda: lab.outside.fetch(HERE, 8080) == f"web sees {OUTSIDE}", "the port on the new network")
