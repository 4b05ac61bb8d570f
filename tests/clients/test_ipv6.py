"""IPv6 as users have it, with the real `docker` command: networks, addresses, names, ways out, refusals, and the restart."""

from __future__ import annotations

import hashlib
import ipaddress
import re
import signal
from collections.abc import Callable
from typing import Any

import docker as docker_py
import pytest
from docker.types import IPAMConfig, IPAMPool
from scapy.layers.inet6 import ICMPv6ND_NA

from tests.clients.lab import HERE6, OUTSIDE6, Lab, eventually
from tests.clients.nameserver import Upstream, look_up
from tests.daemons import Client, Daemon, docker_cli
from tests.hosts import Host, wait_until
from tests.kernel.packets import listening, ping, send_frame
from tests.kernel.test_ipv6 import _advertisement


def network_of(docker: Client, name: str) -> Any:
    (found,) = docker.json("network", "inspect", name)
    return found


def subnets_of(docker: Client, name: str) -> list[str]:
    return [config["Subnet"] for config in network_of(docker, name)["IPAM"]["Config"]]


def endpoint(docker: Client, container: str, network: str) -> Any:
    return docker.inspect(container)["NetworkSettings"]["Networks"][network]


# ---------------------------------------------------------------------- networks


def test_a_network_of_both_families_gets_a_part_of_the_host_s_own_prefix(lab: Lab, docker: Client):
    for name in ("one", "two"):
        docker("network", "create", "--ipv6", name)
    digest = hashlib.sha256(lab.api("GET", "/info").json["ID"].encode()).digest()
    prefix = ipaddress.IPv6Network((bytes([0xFD]) + digest[3:8] + bytes(10), 48))
    first, second = (
        ipaddress.ip_network(subnets_of(docker, "one")[1]),
        ipaddress.ip_network(subnets_of(docker, "two")[1]),
    )
    assert [first, second] == _first_two(prefix)
    found = network_of(docker, "one")
    assert (found["EnableIPv4"], found["EnableIPv6"]) == (True, True)
    assert found["IPAM"]["Config"][1]["Gateway"] == str(first[1])


def _first_two(prefix: ipaddress.IPv6Network) -> list[ipaddress.IPv6Network]:
    subnets = prefix.subnets(new_prefix=64)
    return [next(subnets), next(subnets)]


@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        (["--subnet", "fd00:5::/64"], ["172.18.0.0/16", "fd00:5::/64"]),
        (["--subnet", "10.5.0.0/24", "--subnet", "fd00:5::/64"], ["10.5.0.0/24", "fd00:5::/64"]),
        (["--subnet", "fd00:5::/64", "--subnet", "10.5.0.0/24"], ["10.5.0.0/24", "fd00:5::/64"]),
        (["--ipv4=false", "--subnet", "fd00:5::/112"], ["fd00:5::/112"]),
        (["--ipv4=false", "--subnet", "fd00:5::/127"], ["fd00:5::/127"]),
        (["--subnet", "fe80::/64"], ["172.18.0.0/16", "fe80::/64"]),
    ],
)
def test_subnets_as_they_are_asked_for(docker: Client, flags: list[str], wanted: list[str]):
    docker("network", "create", "--ipv6", *flags, "six")
    assert subnets_of(docker, "six") == wanted


def test_any_free_subnet_of_a_length(docker: Client):
    docker("network", "create", "--ipv6", "--ipv4=false", "--subnet", "::/80", "six")
    (subnet,) = subnets_of(docker, "six")
    assert ipaddress.ip_network(subnet).prefixlen == 80
    assert subnet.startswith("fd")


def test_what_belongs_to_a_subnet(docker: Client):
    flags = ["--subnet", "fd00:5::/64", "--gateway", "fd00:5::fe", "--ip-range", "fd00:5::8:0/112"]
    docker("network", "create", "--ipv6", *flags, "--aux-address", "printer=fd00:5::8:0", "six")
    assert network_of(docker, "six")["IPAM"]["Config"][1] == {
        "Subnet": "fd00:5::/64",
        "Gateway": "fd00:5::fe",
        "IPRange": "fd00:5::8:0/112",
        "AuxiliaryAddresses": {"printer": "fd00:5::8:0"},
    }
    docker("run", "-d", "--name", "web", "--network", "six", "sandbox")
    assert endpoint(docker, "web", "six")["GlobalIPv6Address"] == "fd00:5::8:1"
    assert endpoint(docker, "web", "six")["IPv6Gateway"] == "fd00:5::fe"


def test_families_by_option(docker: Client):
    docker("network", "create", "-o", "com.docker.network.enable_ipv6=true", "six")
    assert network_of(docker, "six")["EnableIPv6"] is True
    docker("network", "create", "--ipv6=false", "-o", "com.docker.network.enable_ipv6=true", "four")
    found = network_of(docker, "four")
    assert (found["EnableIPv6"], found["Options"]) == (False, {}), "a flag comes before an option, which would be a lie"


REFUSED = (
    (["--ipv4=false"], "IPv4 or IPv6 must be enabled"),
    (["--ipv6", "--subnet", "fe80::/16"], "clashes with the Link-Local prefix 'fe80::/64'"),
    (["--ipv6", "--subnet", "ff02::/64"], "multicast addresses cannot be given to endpoints"),
    (["--ipv6", "--subnet", "::ffff:10.0.0.0/104"], "is not a valid IPv6 subnet"),
    (["--ipv6", "--subnet", "fd00:5::1/64"], "invalid subnet fd00:5::1/64: it should be fd00:5::/64"),
    (["--ipv6", "--subnet", "fd00:5::/64", "--subnet", "fd00:6::/64"], "doesn't support multiple subnets"),
    (["--ipv6", "--subnet", "::/16"], "no address pool is that large"),
    (["--ipv6", "-o", "com.docker.network.driver.mtu=1000"], "an MTU of 1000 is too small for IPv6"),
    (["-o", "com.docker.network.enable_ipv6=perhaps"], "invalid value 'perhaps' for com.docker.network.enable_ipv6"),
)


def test_networks_that_cannot_be(lab: Lab, docker: Client):
    for flags, words in REFUSED:
        assert words in docker.refused("network", "create", *flags, "six").text
    assert "six" not in lab.networks()


def test_a_subnet_that_the_host_has_a_route_to_is_allowed_and_said_so(lab: Lab):
    body = {"Name": "six", "EnableIPv6": True, "IPAM": {"Config": [{"Subnet": "2001:db8::/32"}]}}
    answer = lab.api("POST", "/networks/create", body)
    assert "overlaps the host's route to 2001:db8::/64" in answer.json["Warning"]


def test_two_networks_do_not_share_a_subnet(docker: Client):
    docker("network", "create", "--ipv6", "--subnet", "fd00:5::/64", "six")
    refused = docker.refused("network", "create", "--ipv6", "--subnet", "fd00:5:0:0:8::/80", "other")
    assert "Pool overlaps with other one on this address space" in refused.text
    assert "network six" in refused.text


def test_a_subnet_of_a_family_that_the_network_does_not_have_is_said_to_be_unused(lab: Lab):
    answer = lab.api("POST", "/networks/create", {"Name": "four", "IPAM": {"Config": [{"Subnet": "fd00:5::/64"}]}})
    assert answer.json["Warning"] == "subnet fd00:5::/64 is not used: the network has no IPv6 (--ipv6)"


# ---------------------------------------------------------------------- containers


def test_a_container_has_an_address_of_each_family_and_everybody_says_so(lab: Lab, docker: Client, netengine: Client):
    docker("network", "create", "--ipv6", "--subnet", "10.5.0.0/24", "--subnet", "fd00:5::/64", "six")
    lab.serve("web", "--network", "six")
    live = endpoint(docker, "web", "six")
    assert (live["IPAddress"], live["Gateway"]) == ("10.5.0.2", "10.5.0.1")
    assert (live["GlobalIPv6Address"], live["GlobalIPv6PrefixLen"], live["IPv6Gateway"]) == (
        "fd00:5::2",
        64,
        "fd00:5::1",
    )
    (member,) = network_of(docker, "six")["Containers"].values()
    assert (member["IPv4Address"], member["IPv6Address"]) == ("10.5.0.2/24", "fd00:5::2/64")
    assert "fd00:5::2\t" in docker("exec", "web", "cat", "/etc/hosts")
    assert "fd00:5::2/64" in netengine("explain", "web")
    assert lab.here.fetch("fd00:5::2", 80) == "web sees fd00:5::1"
    assert re.search(r"default via fd00:5::1 dev eth0 proto 110", docker("exec", "web", "ip", "-6", "route"))


def test_containers_with_ipv6_alone_know_and_reach_each_other(lab: Lab, docker: Client):
    docker("network", "create", "--ipv6", "--ipv4=false", "--subnet", "fd00:5::/64", "six")
    lab.serve("web", "--network", "six")
    docker("run", "-d", "--name", "client", "--network", "six", "sandbox")
    client = lab.sandbox("client")
    assert client.fetch("fd00:5::2", 80) == "web sees fd00:5::3"
    assert look_up(client, "web.", "AAAA") == ["fd00:5::2"]
    assert look_up(client, "web.", "A") == [], "known, and without such an address: not asked for outside"
    reverse = ipaddress.ip_address("fd00:5::2").reverse_pointer
    assert look_up(client, f"{reverse}.", "PTR") == ["web.six."]
    live = endpoint(docker, "web", "six")
    assert (live["IPAddress"], live["Gateway"], live["IPPrefixLen"]) == ("", "", 0)
    assert "inet 172" not in docker("exec", "web", "ip", "address")


def test_a_network_without_ipv6_has_nothing_of_it(lab: Lab, docker: Client):
    docker("network", "create", "four")
    lab.idle("web", "--network", "four")
    shown = docker("exec", "web", "ip", "-6", "-o", "address")
    assert [line.split()[3] for line in shown.splitlines()] == ["::1/128"]
    assert endpoint(docker, "web", "four")["GlobalIPv6Address"] == ""


def test_an_address_of_one_s_own(docker: Client):
    docker("network", "create", "--ipv6", "--subnet", "fd00:5::/64", "six")
    docker("run", "-d", "--name", "web", "--network", "six", "--ip6", "fd00:5::77", "sandbox")
    live = endpoint(docker, "web", "six")
    assert (live["GlobalIPv6Address"], live["IPAMConfig"]) == ("fd00:5::77", {"IPv6Address": "fd00:5::77"})
    for flags, words in (
        (["six", "--ip6", "fd00:5::77"], "Address already in use"),
        (["six", "--ip6", "fd00:6::77"], "no configured subnet contains IP address fd00:6::77"),
        (["bridge", "--ip6", "fd00:5::78"], "user-specified IP address is supported on user-defined networks only"),
    ):
        assert words in docker.refused("run", "--rm", "--network", *flags, "host", "true").text
    docker("rm", "-f", "web")
    docker("run", "-d", "--name", "next", "--network", "six", "--ip6", "fd00:5::77", "sandbox")


def test_connected_and_disconnected_while_it_runs(lab: Lab, docker: Client):
    docker("network", "create", "--ipv6", "--subnet", "fd00:5::/64", "six")
    lab.idle("web")
    docker("network", "connect", "--ip6", "fd00:5::9", "six", "web")
    assert "inet6 fd00:5::9/64" in docker("exec", "web", "ip", "address", "show", "dev", "eth1")
    assert "inet6" not in docker("exec", "web", "ip", "address", "show", "dev", "eth0")
    assert ping(lab.here, "fd00:5::9") == "fd00:5::9"
    docker("network", "disconnect", "six", "web")
    assert "fd00:5" not in docker("exec", "web", "ip", "address")
    assert network_of(docker, "six")["Status"]["IPAM"]["Subnets"]["fd00:5::/64"]["IPsInUse"] == 2


def test_a_new_address_is_announced_three_times(lab: Lab, docker: Client):
    docker(
        "network",
        "create",
        "--ipv6",
        "--subnet",
        "fd00:5::/64",
        "-o",
        "com.docker.network.advertise_addr_ms=100",
        "six",
    )
    docker("run", "-d", "--name", "ear", "--network", "six", "sandbox")
    with listening(lab.sandbox("ear"), "eth0") as ear:
        docker("run", "-d", "--name", "web", "--network", "six", "--ip6", "fd00:5::9", "sandbox")
        for _ in range(3):
            ear.hear(lambda f: ICMPv6ND_NA in f and f[ICMPv6ND_NA].tgt == "fd00:5::9", 5)


EVERYWHERE = ["--network", "six", "--sysctl", "net.ipv6.conf.all.disable_ipv6=1"]
_SYSCTL = "driver-opt=com.docker.network.endpoint.sysctls=net.ipv6.conf.IFNAME.disable_ipv6=1"
ON_ONE = ["--network", f"name=six,{_SYSCTL}"]


@pytest.mark.parametrize("flags", [EVERYWHERE, ON_ONE], ids=["everywhere", "on one interface"])
def test_who_wants_no_ipv6_has_none(lab: Lab, docker: Client, flags: list[str]):
    docker("network", "create", "--ipv6", "--subnet", "fd00:5::/64", "six")
    lab.idle("web", *flags)
    assert "inet6" not in docker("exec", "web", "ip", "address", "show", "dev", "eth0")
    assert ("::1" in docker("exec", "web", "cat", "/etc/hosts")) == (flags is ON_ONE)
    live = endpoint(docker, "web", "six")
    assert (live["GlobalIPv6Address"], live["IPv6Gateway"]) == ("", "")
    assert network_of(docker, "six")["Status"]["IPAM"]["Subnets"]["fd00:5::/64"]["IPsInUse"] == 2, "nothing leased"
    asked = [f"{flags[1]},ip6=fd00:5::9"] if flags is ON_ONE else [flags[1], *flags[2:], "--ip6", "fd00:5::9"]
    assert "disables IPv6 on eth0" in docker.refused("run", "--rm", "--network", *asked, "host", "true").text


# ---------------------------------------------------------------------- ways out


def ways_out(docker: Client, container: str) -> tuple[str, str]:
    """The interfaces of the default routes of IPv4 and IPv6, "" for none."""
    found = [docker("exec", container, "ip", f"-{version}", "route", "show", "default") for version in (4, 6)]
    four, six = (re.sub(r".* dev (\S+).*", r"\1", text).strip() for text in found)
    return four, six


def test_each_family_has_its_own_way_out(lab: Lab, docker: Client):
    docker("network", "create", "a4")
    docker("network", "create", "--ipv6", "--ipv4=false", "b6")
    lab.idle("web", "--network", "a4", "--network", "b6")
    assert ways_out(docker, "web") == ("eth0", "eth1")
    docker("network", "create", "--ipv6", "c46")
    docker("network", "connect", "c46", "web")
    assert ways_out(docker, "web") == ("eth2", "eth2"), "one with both families comes before one with one"
    docker("network", "disconnect", "a4", "web")
    docker("network", "connect", "--gw-priority", "1", "a4", "web")
    assert ways_out(docker, "web") == ("eth0", "eth2")


def test_an_internal_network_is_no_way_out(lab: Lab, docker: Client):
    docker("network", "create", "--ipv6", "--internal", "in")
    lab.idle("web", "--network", "in")
    assert ways_out(docker, "web") == ("", "")
    assert endpoint(docker, "web", "in")["IPv6Gateway"] == ""


def test_the_outside_is_reached(lab: Lab, docker: Client):
    docker("network", "create", "--ipv6", "six")
    lab.idle("web", "--network", "six")
    assert ping(lab.sandbox("web"), OUTSIDE6) == OUTSIDE6


def test_packets_between_other_interfaces_stay_unforwarded(lab: Lab, docker: Client):
    """The daemon has turned forwarding on: that makes no router of the host for others."""
    docker("network", "create", "--ipv6", "six")
    assert lab.here.sysctl("net.ipv6.conf.all.forwarding") == "1"
    lab.here.ip("link", "add", "far0", "type", "bridge")
    lab.here.ip("address", "add", "fd00:99::1/64", "dev", "far0", "nodad")
    lab.here.ip("link", "set", "far0", "up")
    lab.outside.ip("route", "add", "fd00:99::/64", "via", HERE6)
    try:
        assert ping(lab.outside, "fd00:99::1") == "fd00:99::1", "the host itself answers"
        with pytest.raises(TimeoutError):
            ping(lab.outside, "fd00:99::2", 0.3)
        (dropped,) = re.findall(
            r"ip6 : drop", lab.here.run(["nft", "list", "map", "ip6", "netengine", "strangers"]).stdout
        )
        assert dropped
    finally:
        lab.outside.ip("route", "del", "fd00:99::/64")
        lab.here.ip("link", "del", "far0")


# ---------------------------------------------------------------------- names


def test_servers_hosts_and_the_host_by_ipv6(lab: Lab, docker: Client):
    docker("network", "create", "--ipv6", "--subnet", "fd00:5::/64", "six")
    with Upstream(lab.outside, OUTSIDE6, {"far.example.": "203.0.113.9"}) as upstream:
        flags = ["--dns", OUTSIDE6, "--add-host", "printer:fd00:9::9", "--add-host", "log=[fd00:9::8]"]
        lab.idle("web", "--network", "six", *flags, "--add-host", "host:host-gateway")
        assert look_up(lab.sandbox("web"), "far.example.") == ["203.0.113.9"]
        assert upstream.names() == ["far.example."]
    hosts = docker("exec", "web", "cat", "/etc/hosts")
    assert {"fd00:9::9\tprinter", "fd00:9::8\tlog", "172.17.0.1\thost"} <= set(hosts.splitlines())


# ---------------------------------------------------------------------- the daemon comes back, and puts right


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_everything_is_there_when_the_daemon_is_back(lab: Lab, docker: Client, netengine: Client, end: signal.Signals):
    docker("network", "create", "--ipv6", "--subnet", "fd00:5::/64", "six")
    lab.serve("web", "--network", "six")
    before = endpoint(docker, "web", "six")
    with lab.here.connect("fd00:5::2", 80) as connection:
        lab.daemon.restart(end)
        connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert b"web sees fd00:5::1" in connection.recv(4096), "a connection that was open goes on"
    assert endpoint(docker, "web", "six") == before
    docker("run", "-d", "--name", "next", "--network", "six", "sandbox")
    assert endpoint(docker, "next", "six")["GlobalIPv6Address"] == "fd00:5::3", "the first one's address is still taken"
    assert look_up(lab.sandbox("next"), "web.", "AAAA") == ["fd00:5::2"]
    assert "healthy" in netengine("doctor")


@pytest.mark.parametrize(
    "command",
    ["ip address del fd00:5::1/64 dev {link}", "ip link set {link} down", "sysctl -qw net.ipv6.conf.all.forwarding=0"],
)
def test_what_somebody_takes_away_is_put_back(lab: Lab, docker: Client, command: str):
    docker("network", "create", "--ipv6", "--subnet", "fd00:5::/64", "-o", "com.docker.network.bridge.name=six0", "six")
    lab.serve("web", "--network", "six")
    lab.here.run(command.format(link="six0").split(), check=True)

    def mended() -> bool:
        there = "fd00:5::1/64" in lab.here.ip("-6", "address", "show", "dev", "six0")
        return there and lab.here.sysctl("net.ipv6.conf.all.forwarding") == "1"

    wait_until(mended, "the address and forwarding back")
    eventually(lambda: lab.here.fetch("fd00:5::2", 80) == "web sees fd00:5::1")
    assert "put right: " in lab.daemon.tail()


# ---------------------------------------------------------------------- the configuration of the daemon


@pytest.mark.parametrize(
    ("config", "subnet", "gateway", "address"),
    [
        ({"bip6": "fd00:17::99/64"}, "fd00:17::/64", "fd00:17::99", "fd00:17::1"),
        ({"fixed-cidr-v6": "fd00:18::/80"}, "fd00:18::/80", "fd00:18::1", "fd00:18::2"),
        (
            {"bip6": "fd00:17::1/64", "fixed-cidr-v6": "fd00:17::8:0/112", "default-gateway-v6": "fd00:17::fe"},
            "fd00:17::/64",
            "fd00:17::fe",
            "fd00:17::8:0",
        ),
        ({"default-address-pools": [{"base": "fd00:19::/48", "size": 64}]}, "fd00:19::/64", "fd00:19::1", "fd00:19::2"),
    ],
    ids=lambda value: "" if isinstance(value, str) else "+".join(value),
)
def test_the_default_network_with_ipv6(
    host: Host,
    make_daemon: Callable[..., Daemon],
    config: dict[str, object],
    subnet: str,
    gateway: str,
    address: str,
):
    daemon = make_daemon(host, config={"ipv6": True, **config})
    docker = docker_cli(daemon)
    assert subnets_of(docker, "bridge")[1] == subnet
    docker("run", "-d", "--name", "web", "sandbox")
    live = endpoint(docker, "web", "bridge")
    assert (live["GlobalIPv6Address"], live["IPv6Gateway"]) == (address, gateway)
    daemon.restart()
    assert endpoint(docker, "web", "bridge") == live


def test_options_of_new_networks_and_who_the_host_is(host: Host, make_daemon: Callable[..., Daemon]):
    options = {"bridge": {"com.docker.network.enable_ipv6": "true", "com.docker.network.driver.mtu": "1400"}}
    config = {"default-network-opts": options, "host-gateway-ips": ["192.0.2.1", HERE6]}
    docker = docker_cli(make_daemon(host, config=config))
    docker("network", "create", "-o", "com.docker.network.driver.mtu=1300", "six")
    found = network_of(docker, "six")
    assert found["EnableIPv6"] is True
    assert found["Options"] == {"com.docker.network.enable_ipv6": "true", "com.docker.network.driver.mtu": "1300"}
    hosts = docker("run", "--rm", "--add-host", "me:host-gateway", "host", "cat", "/etc/hosts")
    assert {"192.0.2.1\tme", f"{HERE6}\tme"} <= set(hosts.splitlines())


def test_forwarding_and_what_it_would_break_are_taken_care_of_and_set_back(
    host: Host, neighbour: Host, make_daemon: Callable[..., Daemon]
):
    host.sysctl("net.ipv6.conf.up0.accept_ra", "1")
    send_frame(neighbour, "up0", _advertisement("2001:db8:5::"))
    wait_until(lambda: "proto ra" in host.ip("-6", "route"), "the advertised route is there")
    daemon = make_daemon(host)
    docker = docker_cli(daemon)
    assert host.sysctl("net.ipv6.conf.all.forwarding") == "0", "not before somebody needs it"
    docker("network", "create", "--ipv6", "--internal", "in")
    assert host.sysctl("net.ipv6.conf.all.forwarding") == "0", "an internal network does not"
    docker("network", "create", "--ipv6", "six")
    assert host.sysctl("net.ipv6.conf.all.forwarding") == "1"
    assert "default via fe80::bad dev up0 proto ra" in host.ip("-6", "route")
    assert "turning net.ipv6.conf.all.forwarding on" in daemon.tail()
    assert "setting net.ipv6.conf.{up0}.accept_ra=2" in daemon.tail()
    daemon.restart()
    said = daemon.cleanup().stdout
    assert "sysctl net.ipv6.conf.all.forwarding: set back to 0" in said
    assert (host.sysctl("net.ipv6.conf.all.forwarding"), host.sysctl("net.ipv6.conf.up0.accept_ra")) == ("0", "1")


# ---------------------------------------------------------------------- docker-py


def test_docker_py(lab: Lab, py: docker_py.DockerClient):
    pool = IPAMConfig(pool_configs=[IPAMPool(subnet="fd00:5::/64", gateway="fd00:5::1")])
    network = py.networks.create("six", enable_ipv6=True, ipam=pool)
    container = py.containers.create("sandbox", name="web")
    network.connect(container, ipv6_address="fd00:5::42")
    container.start()
    container.reload()
    assert container.attrs["NetworkSettings"]["Networks"]["six"]["GlobalIPv6Address"] == "fd00:5::42"
