"""What a user may ask of an endpoint, with the real `docker` command: names, sysctls, addresses, the way out, announcements."""

from __future__ import annotations

import contextlib
import json
import time

import pytest
from scapy.layers.l2 import ARP

from tests.clients.lab import Lab
from tests.daemons import Client
from tests.hosts import wait_until
from tests.kernel.packets import Ear, listening, ping

SYSCTLS = "com.docker.network.endpoint.sysctls"
IFNAME = "com.docker.network.endpoint.ifname"


def default_route(lab: Lab, container: str) -> str:
    """`GATEWAY LINK` of the container's IPv4 default route, "" for none."""
    routes = json.loads(
        lab.here.run(["ip", "-n", container, "-j", "-4", "route", "show", "default"], check=True).stdout
    )
    return " ".join(f"{route['gateway']} {route['dev']}" for route in routes)


def addresses(lab: Lab, container: str, link: str = "eth0") -> list[str]:
    shown = lab.here.run(["ip", "-n", container, "-j", "-4", "address", "show", "dev", link], check=True).stdout
    return [f"{a['local']}/{a['prefixlen']}" for a in json.loads(shown)[0]["addr_info"]]


# ---------------------------------------------------------------------- names and sysctls


def test_a_chosen_interface_name_and_sysctls_for_it(lab: Lab, docker: Client):
    docker("network", "create", "blue")
    options = f"driver-opt={IFNAME}=wan,driver-opt={SYSCTLS}=net.ipv4.conf.IFNAME.log_martians=1"
    docker("run", "-d", "--name", "web", "--network", f"name=blue,{options}", "sandbox")
    web = lab.sandbox("web")
    assert web.links() == {"lo", "wan"}
    assert web.sysctl("net.ipv4.conf.wan.log_martians") == "1"
    docker("network", "connect", "--driver-opt", f"{SYSCTLS}=net.ipv4.conf.IFNAME.forwarding=0", "bridge", "web")
    assert web.links() == {"lo", "wan", "eth0"}
    assert web.sysctl("net.ipv4.conf.eth0.forwarding") == "0"
    shown = docker.inspect("web")["NetworkSettings"]["Networks"]
    assert shown["bridge"]["DriverOpts"] == {SYSCTLS: "net.ipv4.conf.IFNAME.forwarding=0"}
    assert shown["blue"]["DriverOpts"][IFNAME] == "wan"


def test_names_are_given_around_the_chosen_ones(lab: Lab, docker: Client):
    for name in ("blue", "green", "red"):
        docker("network", "create", name)
    flags = [f"--network=name={n},driver-opt={IFNAME}={link}" for n, link in (("green", "eth0"), ("red", "eth1"))]
    docker("run", "-d", "--name", "web", "--network", "blue", *flags, "sandbox")
    assert lab.sandbox("web").links() == {"lo", "eth0", "eth1", "eth2"}


def test_a_network_gives_its_interfaces_a_prefix(lab: Lab, docker: Client):
    docker("network", "create", "-o", "com.docker.network.container_iface_prefix=net", "blue")
    docker("run", "-d", "--name", "web", "--network", "blue", "sandbox")
    docker("network", "connect", "bridge", "web")
    assert lab.sandbox("web").links() == {"lo", "net0", "eth0"}


def test_one_name_is_not_given_twice(lab: Lab, docker: Client):
    docker("network", "create", "blue")
    docker("run", "-d", "--name", "web", "sandbox")
    refused = docker.refused("network", "connect", "--driver-opt", f"{IFNAME}=eth0", "blue", "web")
    assert "container web has an interface eth0 already" in refused.text
    docker("network", "create", "green")
    twice = [f"--network=name={name},driver-opt={IFNAME}=wan" for name in ("green", "blue")]
    assert "interface name wan is asked for by two endpoints" in docker.refused("create", *twice, "sandbox").text
    assert lab.sandbox("web").links() == {"lo", "eth0"}


def test_sysctls_of_an_interface_among_those_of_the_container(lab: Lab, docker: Client):
    """As Docker: refused for a client of today, moved to the endpoint for one of API 1.47."""
    refused = docker.refused("create", "--sysctl", "net.ipv4.conf.eth0.log_martians=1", "sandbox")
    assert f"must be supplied using driver option '{SYSCTLS}'" in refused.text
    sysctls = {"net.ipv4.conf.eth0.log_martians": "1", "net.ipv4.ip_forward": "1"}
    body = {"Image": "sandbox", "HostConfig": {"Sysctls": sysctls}}
    answer = lab.api("POST", "/v1.47/containers/create?name=old", body)
    assert answer.json["Warnings"][0].startswith("Migrated net.ipv4.conf.eth0.log_martians to DriverOpts")
    docker("start", "old")
    assert lab.sandbox("old").sysctl("net.ipv4.conf.eth0.log_martians") == "1"
    assert docker.inspect("old")["HostConfig"]["Sysctls"] == {"net.ipv4.ip_forward": "1"}
    body["HostConfig"]["Sysctls"] = {"net.ipv4.conf.eth1.log_martians": "1"}
    answer = lab.api("POST", "/v1.47/containers/create", body)
    assert (answer.status, answer.message[:43]) == (400, "unable to determine network endpoint for sy")


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--driver-opt", "x=y"], "unknown endpoint option 'x'; known are"),
        (["--driver-opt", f"{IFNAME}=a/b"], f"invalid value 'a/b' for {IFNAME}"),
        (
            ["--driver-opt", f"{SYSCTLS}=net.ipv4.conf.IFNAME.nonsense=1"],
            "this kernel has no such value of an interface",
        ),
        (
            ["--driver-opt", f"{SYSCTLS}=net.ipv4.conf.IFNAME.rp_filter=many"],
            "cannot set sysctl net.ipv4.conf.eth1.rp_filter",
        ),
        (["--link-local-ip", "10.0.0.1"], "it must be within 169.254.0.0/16 or fe80::/10"),
    ],
)
def test_bad_options_change_nothing(lab: Lab, docker: Client, flags: list[str], words: str):
    docker("network", "create", "blue")
    docker("network", "create", "green")
    docker("run", "-d", "--name", "web", "--network", "green", "sandbox")
    assert words in docker.refused("network", "connect", *flags, "blue", "web").text
    # What was made and taken back is deleted a moment later.
    wait_until(lambda: lab.sandbox("web").links() == {"lo", "eth0"}, "the link to be gone")
    assert list(docker.inspect("web")["NetworkSettings"]["Networks"]) == ["green"]
    figures = lab.api("GET", "/networks/blue").json["Status"]["IPAM"]["Subnets"]
    assert [f["IPsInUse"] for f in figures.values()] == [3]


# ---------------------------------------------------------------------- addresses


def test_link_local_addresses(lab: Lab, docker: Client):
    docker("network", "create", "--subnet", "10.9.0.0/24", "blue")
    docker("run", "-d", "--name", "web", "--network", "blue", "--link-local-ip", "169.254.7.7", "sandbox")
    docker("run", "-d", "--name", "db", "sandbox")
    docker("network", "connect", "--link-local-ip", "169.254.7.8", "blue", "db")
    assert sorted(addresses(lab, "web")) == ["10.9.0.2/24", "169.254.7.7/16"]
    assert docker.inspect("db")["NetworkSettings"]["Networks"]["blue"]["IPAMConfig"] == {
        "LinkLocalIPs": ["169.254.7.8"]
    }
    with lab.sandbox("db").listen(80):
        lab.sandbox("web").connect("169.254.7.8", 80).close()
    refused = docker.refused("run", "-d", "--network", "blue", "--link-local-ip", "169.254.7.7", "sandbox")
    assert "Address already in use (169.254.7.7 is held by container web on blue)" in refused.text
    docker("restart", "web")
    assert sorted(addresses(lab, "web")) == ["10.9.0.2/24", "169.254.7.7/16"]


def test_a_chosen_mac_address_is_kept(lab: Lab, docker: Client):
    docker("network", "create", "blue")
    flag = "name=blue,mac-address=02:42:00:00:00:99"
    docker("run", "-d", "--name", "web", "--network", flag, "sandbox")
    for _ in range(2):
        shown = lab.here.run(["ip", "-n", "web", "-j", "link", "show", "eth0"], check=True).stdout
        assert json.loads(shown)[0]["address"] == "02:42:00:00:00:99"
        docker("restart", "web")


# ---------------------------------------------------------------------- the way out


def test_the_way_out_follows_priority_and_comes_back(lab: Lab, docker: Client):
    """Priority first, then the name; and at once, when networks come and go."""
    for number, name in enumerate(("alpha", "beta", "gamma")):
        docker("network", "create", "--subnet", f"10.{number}.0.0/24", name)
    docker("network", "create", "--internal", "--subnet", "10.8.0.0/24", "aaa-internal")
    docker("run", "-d", "--name", "web", "--network", "beta", "-p", "8080:80", "sandbox")
    assert default_route(lab, "web") == "10.1.0.1 eth0"
    docker("network", "connect", "alpha", "web")
    assert default_route(lab, "web") == "10.0.0.1 eth1"
    docker("network", "connect", "--gw-priority", "100", "aaa-internal", "web")
    assert default_route(lab, "web") == "10.0.0.1 eth1"
    docker("network", "connect", "--gw-priority", "1", "gamma", "web")
    assert default_route(lab, "web") == "10.2.0.1 eth3"
    with lab.sandbox("web").listen(80):
        lab.outside.connect("192.0.2.1", 8080).close()
    docker("network", "disconnect", "gamma", "web")
    assert default_route(lab, "web") == "10.0.0.1 eth1"
    docker("network", "connect", "--gw-priority", "-1", "gamma", "web")
    assert default_route(lab, "web") == "10.0.0.1 eth1"
    for name in ("alpha", "beta"):
        docker("network", "disconnect", name, "web")
    assert default_route(lab, "web") == "10.2.0.1 eth3"
    with lab.sandbox("web").listen(80):
        lab.outside.connect("192.0.2.1", 8080).close()
    docker("network", "disconnect", "gamma", "web")
    assert default_route(lab, "web") == ""


# ---------------------------------------------------------------------- announcements


def announced(ear: Ear, address: str, timeout: float = 5.0) -> float:
    """Wait for the next announcement of an address; when it came."""
    frame = ear.hear(lambda f: ARP in f and f[ARP].psrc == address, timeout)
    assert (frame[ARP].pdst, frame.dst) == (address, "ff:ff:ff:ff:ff:ff")
    return time.monotonic()


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_new_address_is_announced(lab: Lab, docker: Client, count: int):
    name = "com.docker.network"
    options = ["-o", f"{name}.advertise_addr_nmsgs={count}", "-o", f"{name}.advertise_addr_ms=300"]
    docker("network", "create", "--subnet", "10.9.0.0/24", *options, "blue")
    docker("run", "-d", "--name", "listener", "--network", "blue", "sandbox")
    docker("run", "-d", "--name", "web", "sandbox")
    with listening(lab.sandbox("listener"), "eth0") as ear:
        docker("network", "connect", "--ip", "10.9.0.9", "blue", "web")
        if count:
            first = announced(ear, "10.9.0.9")
            # The kernel's own may come just before ours, or be swallowed by a bridge port that is not open yet.
            with contextlib.suppress(AssertionError):
                announced(ear, "10.9.0.9", 0.1)
            for _ in range(count - 1):
                last = announced(ear, "10.9.0.9")
            assert count == 1 or last - first > 0.25 * (count - 1)
        with pytest.raises(AssertionError, match="no such frame"):
            announced(ear, "10.9.0.9", 0.7)


def test_who_gets_an_address_gets_its_mac_and_neighbours_need_not_be_told(lab: Lab, docker: Client):
    docker("network", "create", "--subnet", "10.9.0.0/24", "blue")
    for name in ("listener", "first", "second"):
        docker("run", "-d", "--name", name, "--network", "blue", "sandbox")
    listener = lab.sandbox("listener")
    assert ping(listener, "10.9.0.3") == "10.9.0.3"
    mac = docker.inspect("first")["NetworkSettings"]["Networks"]["blue"]["MacAddress"]
    docker("network", "disconnect", "blue", "first")
    docker("network", "disconnect", "blue", "second")
    with listening(listener, "eth0") as ear:
        docker("network", "connect", "--ip", "10.9.0.3", "blue", "second")
        with pytest.raises(AssertionError, match="no such frame"):
            announced(ear, "10.9.0.3", 0.5)
    assert docker.inspect("second")["NetworkSettings"]["Networks"]["blue"]["MacAddress"] == mac
    assert ping(listener, "10.9.0.3") == "10.9.0.3"


def test_once_a_mac_was_given_addresses_are_announced(lab: Lab, docker: Client):
    """Who had the address with that MAC may be in a cache for long: also after a restart of the daemon."""
    docker("network", "create", "--subnet", "10.9.0.0/24", "blue")
    for name in ("listener", "web"):
        docker("run", "-d", "--name", name, "--network", "blue", "sandbox")
    docker("run", "-d", "--name", "own", "--network", "name=blue,ip=10.9.0.9,mac-address=02:00:00:00:00:09", "sandbox")
    docker("rm", "-f", "own")
    docker("network", "disconnect", "blue", "web")
    lab.daemon.restart()
    with listening(lab.sandbox("listener"), "eth0") as ear:
        docker("network", "connect", "--ip", "10.9.0.9", "blue", "web")
        announced(ear, "10.9.0.9")


# ---------------------------------------------------------------------- rates


def buckets(lab: Lab, *namespace: str) -> list[int]:
    """The rates of the token buckets of a namespace, in bits per second."""
    shown = json.loads(lab.here.run(["tc", *namespace, "-j", "qdisc", "show"], check=True).stdout)
    return [q["options"]["rate"] * 8 for q in shown if q["kind"] == "tbf"]


def test_a_rate_limits_both_directions_and_is_put_back(lab: Lab, docker: Client, netengine: Client):
    docker("network", "create", "blue")
    docker("run", "-d", "--name", "web", "--network", "name=blue,driver-opt=rate=10mbit", "sandbox")
    assert (buckets(lab), buckets(lab, "-n", "web")) == ([10_000_000], [10_000_000])
    assert docker.inspect("web")["NetworkSettings"]["Networks"]["blue"]["DriverOpts"] == {"rate": "10mbit"}
    explained = netengine("explain", "web")
    assert explained.count("root handle 6e65: tbf rate 10000000bit") == 2
    # Events of the host are heard; what happens in the sandbox is found by the doctor.
    (port,) = [link for link in lab.here.links() if link.startswith("veth")]
    lab.here.run(["tc", "qdisc", "delete", "dev", port, "root"], check=True)
    wait_until(lambda: buckets(lab) == [10_000_000], "the bucket is put back")
    lab.here.run(["tc", "-n", "web", "qdisc", "delete", "dev", "eth0", "root"], check=True)
    assert "rate" in netengine.run("doctor").stdout
    netengine("doctor", "--fix")
    assert buckets(lab, "-n", "web") == [10_000_000]
    docker("restart", "web")
    lab.daemon.restart()
    assert (buckets(lab), buckets(lab, "-n", "web")) == ([10_000_000], [10_000_000])
    docker("network", "connect", "--driver-opt", "rate_out=1mbit", "bridge", "web")
    assert (buckets(lab), sorted(buckets(lab, "-n", "web"))) == ([10_000_000], [1_000_000, 10_000_000])
    docker("network", "disconnect", "blue", "web")
    # A link that was taken out of use is deleted a moment later.
    wait_until(lambda: (buckets(lab), buckets(lab, "-n", "web")) == ([], [1_000_000]), "the others gone")


def test_a_rate_that_cannot_be(docker: Client):
    docker("network", "create", "blue")
    refused = docker.refused("create", "--network", "name=blue,driver-opt=rate=10mb", "sandbox").text
    assert "invalid value '10mb' for rate: write a rate as tc does: 10mbit" in refused
