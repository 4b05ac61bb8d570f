"""Subnets, ranges, leases, configuration networks and the host around them, with the real `docker` command."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.clients.lab import Lab
from tests.daemons import Client
from tests.hosts import wait_until

MTU = "com.docker.network.driver.mtu"


def figures(lab: Lab, network: str) -> tuple[int, int]:
    """(addresses in use, addresses left) of the network's one subnet."""
    (found,) = lab.api("GET", f"/networks/{network}").json["Status"]["IPAM"]["Subnets"].values()
    return found["IPsInUse"], found["DynamicIPsAvailable"]


def address(docker: Client, container: str, network: str = "blue") -> str:
    return str(docker.inspect(container)["NetworkSettings"]["Networks"][network]["IPAddress"])


def sandboxes(docker: Client, network: str, *names: str) -> list[str]:
    for name in names:
        docker("run", "-d", "--name", name, "--network", network, "sandbox")
    return [address(docker, name, network) for name in names]


# ---------------------------------------------------------------------- leases


@pytest.mark.parametrize(
    ("flags", "leases", "words"),
    [
        (["--subnet", "10.9.0.0/30"], ["10.9.0.2"], "10.9.0.0/30 has 4 addresses"),
        (["--subnet", "10.9.0.0/31"], ["10.9.0.1"], "10.9.0.0/31 has 2 addresses"),
        (["--subnet", "10.9.0.0/32"], [], "10.9.0.0/32 has 1 address,"),
        (
            ["--subnet", "10.9.0.0/24", "--ip-range", "10.9.0.4/30", "--aux-address", "nas=10.9.0.5"],
            ["10.9.0.6", "10.9.0.7"],
            "ip-range 10.9.0.4/30 of 10.9.0.0/24 has 4 addresses",
        ),
        (
            ["--subnet", "10.9.0.0/24", "--ip-range", "10.9.0.0/30", "--gateway", "10.9.0.254"],
            ["10.9.0.1", "10.9.0.2", "10.9.0.3"],
            "ip-range 10.9.0.0/30 of 10.9.0.0/24 has 4 addresses",
        ),
    ],
)
def test_small_subnets_and_ranges_give_every_address_and_no_more(
    lab: Lab, docker: Client, flags: list[str], leases: list[str], words: str
):
    docker("network", "create", *flags, "blue")
    names = [f"c{number}" for number in range(len(leases))]
    assert sandboxes(docker, "blue", *names) == leases
    assert figures(lab, "blue")[1] == 0
    refused = docker.refused("run", "-d", "--name", "more", "--network", "blue", "sandbox").text
    assert "no available IPv4 addresses on this network's address pools: blue" in refused
    assert words in refused
    if leases:
        docker("rm", "-f", names[-1])
        docker("start", "more")
        assert address(docker, "more") == leases[-1]


def test_packets_flow_on_a_point_to_point_subnet(lab: Lab, docker: Client):
    docker("network", "create", "--subnet", "10.9.0.0/31", "blue")
    docker("run", "-d", "--name", "web", "--network", "blue", "-p", "8080:80", "sandbox")
    with lab.sandbox("web").listen(80):
        lab.outside.connect("192.0.2.1", 8080).close()
        lab.here.connect("10.9.0.1", 80).close()


def test_serial_leases_go_round(docker: Client):
    option = ["--ipam-opt", "com.docker.network.ipam.serial=true"]
    docker("network", "create", "--subnet", "10.9.0.0/29", *option, "blue")
    assert sandboxes(docker, "blue", "c1", "c2") == ["10.9.0.2", "10.9.0.3"]
    docker("rm", "-f", "c1")
    assert sandboxes(docker, "blue", "c3", "c4", "c5", "c6") == ["10.9.0.4", "10.9.0.5", "10.9.0.6", "10.9.0.2"]


def test_static_and_dynamic_leases_do_not_meet(lab: Lab, docker: Client):
    docker("network", "create", "--subnet", "10.9.0.0/24", "--aux-address", "nas=10.9.0.3", "blue")
    docker("run", "-d", "--name", "fixed", "--network", "blue", "--ip", "10.9.0.2", "sandbox")
    assert sandboxes(docker, "blue", "web") == ["10.9.0.4"]
    assert figures(lab, "blue") == (6, 250)
    for taken, holder in (
        ("10.9.0.2", "is held by"),
        ("10.9.0.3", "auxiliary address nas"),
        ("10.9.0.1", "the gateway"),
    ):
        refused = docker.refused("run", "-d", "--network", "blue", "--ip", taken, "sandbox").text
        assert "Address already in use" in refused and holder in refused
    assert "no configured subnet" in docker.refused("create", "--network", "blue", "--ip", "10.8.0.2", "sandbox").text


def test_any_free_subnet_of_a_length(docker: Client):
    docker("network", "create", "--subnet", "0.0.0.0/24", "blue")
    docker("network", "create", "--subnet", "0.0.0.0/26", "green")
    assert docker.inspect("blue")["IPAM"]["Config"] == [{"Subnet": "172.18.0.0/24", "Gateway": "172.18.0.1"}]
    assert docker.inspect("green")["IPAM"]["Config"][0]["Subnet"] == "172.18.1.0/26"


# ---------------------------------------------------------------------- configuration networks


def test_a_network_made_from_a_configuration(lab: Lab, docker: Client):
    settings = ["--subnet", "10.9.0.0/24", "--ip-range", "10.9.0.128/25", "-o", f"{MTU}=1400", "--label", "tier=front"]
    docker("network", "create", "--config-only", *settings, "shelf")
    shelf = docker.inspect("shelf")
    assert (shelf["ConfigOnly"], shelf["Driver"], shelf["Scope"]) == (True, "null", "local")
    assert shelf["IPAM"]["Config"] == [{"Subnet": "10.9.0.0/24", "IPRange": "10.9.0.128/25"}]
    docker("network", "create", "--config-from", "shelf", "app")
    app = docker.inspect("app")
    assert (app["ConfigFrom"], app["Driver"], app["Labels"]) == ({"Network": "shelf"}, "bridge", {"tier": "front"})
    assert sandboxes(docker, "app", "web") == ["10.9.0.129"]
    assert "mtu 1400" in lab.here.run(["ip", "-n", "web", "link", "show", "eth0"], check=True).stdout
    assert docker("network", "prune", "-f") == ""
    assert "is in use by app; remove that first" in docker.refused("network", "rm", "shelf").text
    docker("rm", "-f", "web")
    docker("network", "rm", "app")
    docker("network", "rm", "shelf")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--config-only", "--internal"], "configuration network can only contain network specific fields"),
        (["--config-only", "--config-from", "shelf"], "a configuration network cannot depend on another"),
        (["--config-from", "shelf", "--subnet", "10.8.0.0/24"], "user specified configurations are not supported"),
        (["--config-from", "shelf", "-o", f"{MTU}=1400"], "user specified configurations are not supported"),
        (["--config-from", "bridge"], "configuration network 'bridge' does not exist"),
        (["--config-only", "--subnet", "10.8.0.1/24"], "invalid subnet 10.8.0.1/24: it should be 10.8.0.0/24"),
    ],
)
def test_configurations_that_cannot_be(docker: Client, flags: list[str], words: str):
    docker("network", "create", "--config-only", "shelf")
    assert words in docker.refused("network", "create", *flags, "app").text


def test_nothing_connects_to_a_configuration(docker: Client):
    docker("network", "create", "--config-only", "shelf")
    docker("run", "-d", "--name", "web", "sandbox")
    for command in (["network", "connect", "shelf", "web"], ["create", "--network", "shelf", "sandbox"]):
        assert "cannot create endpoint on configuration-only network shelf" in docker.refused(*command).text
    docker("network", "create", "--config-from", "shelf", "app")
    docker("network", "connect", "app", "web")


# ---------------------------------------------------------------------- the host around


def test_the_mtu_is_that_of_the_uplink(lab: Lab, docker: Client):
    lab.here.ip("link", "set", "up0", "mtu", "1380")
    lab.here.ip("route", "add", "default", "via", "192.0.2.2")
    try:
        docker("network", "create", "blue")
        docker("network", "create", "-o", f"{MTU}=1300", "green")
        assert docker.inspect("blue")["Options"] == {MTU: "1380"}
        assert docker.inspect("green")["Options"] == {MTU: "1300"}
        sandboxes(docker, "blue", "web")
        shown: list[Any] = json.loads(
            lab.here.run(["ip", "-n", "web", "-j", "link", "show", "eth0"], check=True).stdout
        )
        assert shown[0]["mtu"] == 1380
        lab.here.ip("link", "set", "up0", "mtu", "1350")
        notes = lab.api("GET", "/netengine/doctor").json["Host"]
        assert any(n["What"] == "network blue has MTU 1380, the host's uplink up0 1350" for n in notes)
    finally:
        lab.here.ip("route", "del", "default")
        lab.here.ip("link", "set", "up0", "mtu", "1500")


def test_a_route_that_appears_later_is_reported(lab: Lab, docker: Client, netengine: Client):
    """A VPN comes up and leads into a network's subnet."""
    docker("network", "create", "--subnet", "10.9.0.0/24", "blue")
    identity = docker.inspect("blue")["Id"]
    since, then = len(lab.daemon.tail(limit=1 << 20)), docker("info", "--format", "{{.SystemTime}}")
    lab.here.ip("route", "add", "10.9.0.128/25", "dev", "up0")
    try:
        words = "the host's route to 10.9.0.128/25 by up0 overlaps subnet 10.9.0.0/24 of network blue"
        wait_until(lambda: words in lab.daemon.tail(limit=1 << 20)[since:], "the line in the log")
        told = ["events", "--since", then, "--until", "0s", "--filter", "event=overlap", "--format", "json"]
        wait_until(lambda: netengine(*told), "an event")
        (event,) = [json.loads(line) for line in netengine(*told).splitlines()]
        assert (event["Actor"]["ID"], event["Actor"]["Attributes"]["route"]) == (identity, "10.9.0.128/25")
        found = netengine.run("doctor").stdout
        assert "overlaps subnet 10.9.0.0/24 of network blue: packets to 10.9.0.128/25 go there" in found
    finally:
        lab.here.ip("route", "del", "10.9.0.128/25")
    assert "overlaps subnet 10.9" not in netengine.run("doctor").stdout
    # Networks' own routes are no news.
    docker("network", "create", "--subnet", "10.8.0.0/24", "green")
    assert "10.8.0.0/24" not in lab.daemon.tail(limit=1 << 20)[since:]


# ---------------------------------------------------------------------- several subnets


def test_a_driver_without_a_bridge_takes_several_subnets(lab: Lab, docker: Client):
    subnets = [
        "--subnet",
        "10.50.0.0/30",
        "--gateway",
        "10.50.0.1",
        "--subnet",
        "10.51.0.0/29",
        "--gateway",
        "10.51.0.1",
    ]
    docker("network", "create", "-d", "macvlan", "-o", "parent=up0", *subnets, "wire")
    assert sandboxes(docker, "wire", "c1", "c2", "c3") == ["10.50.0.2", "10.51.0.2", "10.51.0.3"]
    routes = json.loads(lab.here.run(["ip", "-n", "c3", "-j", "route", "show", "default"], check=True).stdout)
    assert [r["gateway"] for r in routes] == ["10.51.0.1"]
    docker("rm", "-f", "c1")
    assert sandboxes(docker, "wire", "c4") == ["10.50.0.2"]
    docker("run", "-d", "--name", "c5", "--network", "name=wire,ip=10.51.0.6", "sandbox")
    refused = docker.refused("network", "create", "--subnet", "10.60.0.0/24", "--subnet", "10.61.0.0/24", "blue").text
    assert "bridge driver doesn't support multiple subnets" in refused


def test_an_option_of_ipam_that_cannot_be(docker: Client):
    option = ["--ipam-opt", "com.docker.network.ipam.serial=perhaps"]
    assert "invalid value 'perhaps'" in docker.refused("network", "create", *option, "blue").text
