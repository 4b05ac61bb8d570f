"""macvlan networks with the real `docker` command: containers on the wire of a link of the host, up0, with `outside` on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.clients.lab import HERE, OUTSIDE, Lab, eventually
from tests.daemons import Client
from tests.hosts import wait_until
from tests.kernels import has

# The wire is 192.0.2.0/24; the host is .1 on it, `outside` .2.
WIRE = ("--subnet", "192.0.2.0/24", "--ip-range", "192.0.2.128/25", "-o", "parent=up0")


def create(docker: Client, name: str = "mv", *flags: str, wire: tuple[str, ...] = WIRE) -> None:
    docker("network", "create", "-d", "macvlan", *wire, *flags, name)


def test_containers_are_on_the_wire_of_the_parent(lab: Lab, docker: Client):
    create(docker)
    lab.serve("web", "--network", "mv")
    lab.serve("db", "--network", "mv")
    assert lab.sandbox("web").fetch("192.0.2.129", 80) == "db sees 192.0.2.128"
    assert lab.outside.fetch("192.0.2.128", 80) == "web sees 192.0.2.2", "no translation, no rule of the host"
    listener = lab.outside.listen(8000)
    lab.sandbox("web").connect(OUTSIDE, 8000).close()
    assert listener.accept()[1][0] == "192.0.2.128"
    listener.close()


def test_the_host_itself_is_not_reached_and_does_not_reach_them(lab: Lab, docker: Client):
    """What is stacked on a link does not see what the host sends through it, nor the other way round: as with Docker."""
    create(docker)
    lab.serve("web", "--network", "mv")
    assert not lab.here.reaches("192.0.2.128", 80)
    assert not lab.sandbox("web").reaches("192.0.2.1", 80)


def test_inspect_shows_it_as_docker_does(lab: Lab, docker: Client):
    create(docker, "mv", "--gateway", "192.0.2.2")
    lab.idle("web", "--network", "mv", "--mac-address", "02:00:00:00:00:99")
    network = docker.inspect("mv")
    assert (network["Driver"], network["Options"], network["Internal"]) == ("macvlan", {"parent": "up0"}, False)
    assert network["IPAM"]["Config"] == [
        {"Subnet": "192.0.2.0/24", "IPRange": "192.0.2.128/25", "Gateway": "192.0.2.2"}
    ]
    endpoint = docker.inspect("web")["NetworkSettings"]["Networks"]["mv"]
    assert (endpoint["IPAddress"], endpoint["Gateway"]) == ("192.0.2.128", "192.0.2.2")
    assert endpoint["MacAddress"] == "02:00:00:00:00:99"
    link = lab.here.run(["ip", "netns", "exec", "web", "ip", "-d", "link", "show", "eth0"], check=True).stdout
    assert "macvlan mode bridge" in link
    assert "02:00:00:00:00:99" in link
    routes = lab.here.run(["ip", "netns", "exec", "web", "ip", "route"], check=True).stdout
    assert "default via 192.0.2.2 dev eth0" in routes


def test_without_a_gateway_there_is_no_default_route_and_no_address_is_kept_for_one(lab: Lab, docker: Client):
    create(docker, wire=("--subnet", "192.0.2.128/30", "-o", "parent=up0"))
    lab.idle("web", "--network", "mv")
    assert docker.inspect("web")["NetworkSettings"]["Networks"]["mv"]["IPAddress"] == "192.0.2.129"
    assert "default" not in lab.here.run(["ip", "netns", "exec", "web", "ip", "route"], check=True).stdout


def test_networks_share_a_parent_and_a_subnet_but_never_an_address(lab: Lab, docker: Client):
    create(docker, "one")
    create(docker, "two")
    lab.idle("web", "--network", "one")
    lab.serve("db", "--network", "two")
    assert docker.inspect("db")["NetworkSettings"]["Networks"]["two"]["IPAddress"] == "192.0.2.129"
    assert lab.sandbox("web").fetch("192.0.2.129", 80) == "db sees 192.0.2.128", "one wire"
    failed = docker.refused("run", "-d", "--network", "two", "--ip", "192.0.2.128", "host", "true")
    assert "Address already in use (192.0.2.128" in failed.text


def test_without_a_parent_the_network_is_internal(lab: Lab, docker: Client):
    docker("network", "create", "-d", "macvlan", "--subnet", "10.9.0.0/24", "alone")
    assert docker.inspect("alone")["Internal"] is True
    lab.serve("web", "--network", "alone")
    lab.serve("db", "--network", "alone")
    assert lab.sandbox("web").fetch("10.9.0.2", 80) == "db sees 10.9.0.1"
    assert not lab.here.reaches("10.9.0.1", 80)
    lab.here.ip("route", "add", "10.9.0.0/24", "dev", f"dm-{docker.inspect('alone')['Id'][:12]}")
    assert not lab.here.reaches("10.9.0.1", 80), "nothing that the host sends into the wire comes to a container"


def test_ports_are_not_published(lab: Lab, docker: Client):
    create(docker)
    done = docker.run("create", "--name", "told", "--network", "mv", "-p", "8080:80", "host", "true")
    assert "WARNING: Published ports are discarded on network mv: the macvlan driver does not support" in done.stderr
    lab.serve("web", "--network", "mv", "-p", "8080:80")
    assert docker("port", "web") == ""
    assert not lab.outside.reaches("192.0.2.1", 8080)


def test_a_passthru_parent_has_one_container_with_the_mac_of_the_parent(lab: Lab, docker: Client):
    lab.here.ip("link", "add", "spare0", "type", "veth", "peer", "name", "spare1")
    try:
        lab.here.ip("link", "set", "spare0", "up")
        docker("network", "create", "-d", "macvlan", "-o", "parent=spare0", "-o", "macvlan_mode=passthru", "pt")
        lab.idle("web", "--network", "pt")
        mac = lab.here.path("/sys/class/net/spare0/address").read_text().strip()
        assert mac in lab.here.run(["ip", "netns", "exec", "web", "ip", "link", "show", "eth0"], check=True).stdout
        second = docker.refused("run", "--network", "pt", "host", "true").text
        assert "its parent spare0 belongs to one container alone, which is web" in second
        other = docker.refused("network", "create", "-d", "macvlan", "-o", "parent=spare0", "other").text
        assert "network pt (" in other
        assert "is already using parent interface spare0: in mode passthru a parent has one network" in other
        docker("rm", "-f", "web")
        docker("network", "rm", "pt")
    finally:
        lab.here.ip("link", "delete", "spare0")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["parent=lo"], "the loopback interface is not a valid macvlan parent"),
        (["parent=nowhere0"], "'nowhere0' for parent: there is no such interface on this host (there is up0"),
        (["parent=up0.5000"], "the VLAN after the dot must be a number from 1 to 4094"),
        (["parent=up0", "macvlan_mode=source"], "it must be one of bridge, private, vepa, passthru"),
        (["parent=up0", "color=red"], "unknown option 'color' of driver macvlan"),
    ],
)
def test_bad_input_is_refused_before_anything_is_made(lab: Lab, docker: Client, options: list[str], words: str):
    flags = [word for option in options for word in ("-o", option)]
    assert words in docker.refused("network", "create", "-d", "macvlan", *flags, "bad").text
    assert lab.untouched()


def test_a_link_of_netengine_s_own_is_no_parent(lab: Lab, docker: Client):
    bridge = docker.inspect("bridge")["Options"]["com.docker.network.bridge.name"]
    refused = docker.refused("network", "create", "-d", "macvlan", "-o", f"parent={bridge}", "bad")
    assert f"{bridge} is netengine's own and cannot be a parent" in refused.text


def test_it_outlives_the_daemon(lab: Lab, docker: Client):
    create(docker)
    lab.serve("web", "--network", "mv")
    lab.daemon.kill9()
    assert lab.outside.fetch("192.0.2.128", 80) == "web sees 192.0.2.2"
    lab.daemon.start()
    assert lab.outside.fetch("192.0.2.128", 80) == "web sees 192.0.2.2"
    assert "healthy" in lab.netengine("doctor")


@pytest.fixture
def spare(lab: Lab) -> Iterator[Callable[[], None]]:
    """A parent that tests may delete: call it to have it made (again)."""

    def make() -> None:
        lab.here.ip("link", "add", "spare0", "type", "veth", "peer", "name", "spare1")
        lab.here.ip("link", "set", "spare1", "up")
        lab.here.ip("link", "set", "spare0", "up")

    make()
    yield make
    lab.here.run(["ip", "link", "delete", "spare0"])


def on_spare(lab: Lab, docker: Client) -> None:
    create(docker, "mv", wire=("--subnet", "10.7.0.0/24", "-o", "parent=spare0"))
    lab.serve("web", "--network", "mv")
    lab.serve(
        "db", "--network", "mv", "--cap-add", "NET_ADMIN"
    )  # what is in there is its own, but not what is on the host


def test_a_parent_that_goes_is_told_and_what_was_on_it_comes_back_with_it(
    lab: Lab, docker: Client, spare: Callable[[], None]
):
    on_spare(lab, docker)
    since, then = lab.daemon.log.stat().st_size, docker("info", "--format", "{{.SystemTime}}")
    lab.here.ip("link", "delete", "spare0")
    eventually(lambda: "parent interface spare0 is gone: the containers of mv" in lab.daemon.tail(since))
    told = lab.netengine.refused("doctor").out
    assert "missing: parent interface spare0" in told
    assert "is not as it should be" not in lab.daemon.tail(since)
    assert "put right" not in lab.daemon.tail(since)
    spare()
    eventually(lambda: lab.sandbox("web").fetch("10.7.0.2", 80) == "db sees 10.7.0.1")
    assert "parent interface spare0 is back" in lab.daemon.tail(since)
    assert "healthy" in lab.netengine("doctor")
    stream = ["events", "--since", then, "--until", "0s", "--filter", "event=degrade", "--filter", "event=heal"]

    def happened() -> list[str]:
        return lab.netengine(*stream, "--format", "{{.Action}}: {{.Actor.Attributes.what}}").splitlines()

    wait_until(lambda: len(happened()) > 1, "both are told")  # what is mended is told a moment later
    told = happened()
    assert told[0] == "degrade: parent interface spare0 is gone"
    assert told[1].startswith("heal: macvlan ")


def test_a_parent_may_be_missing_when_the_daemon_starts(lab: Lab, docker: Client, spare: Callable[[], None]):
    on_spare(lab, docker)
    lab.daemon.kill9()
    lab.here.ip("link", "delete", "spare0")
    since = lab.daemon.log.stat().st_size
    lab.daemon.start()
    assert "parent interface spare0 is gone" in lab.daemon.tail(since)
    assert "is not as it should be" not in lab.daemon.tail(since)
    refused = docker.refused("run", "--rm", "--network", "mv", "host", "true").text
    assert "there is no link spare0 in the host" in refused
    spare()
    eventually(lambda: lab.sandbox("web").fetch("10.7.0.2", 80) == "db sees 10.7.0.1")


def test_a_link_that_is_deleted_in_a_sandbox_is_put_back(lab: Lab, docker: Client, spare: Callable[[], None]):
    on_spare(lab, docker)
    lab.here.run(["ip", "netns", "exec", "web", "ip", "link", "delete", "eth0"], check=True)
    eventually(lambda: lab.sandbox("web").fetch("10.7.0.2", 80) == "db sees 10.7.0.1")


@pytest.mark.parametrize("what", ["mh-{}", "dm-{}"])
def test_links_of_ours_on_the_host_are_put_back(lab: Lab, docker: Client, what: str):
    docker("network", "create", "-d", "macvlan", "--subnet", "10.7.0.0/24", "-o", "host_access=true", "mv")
    lab.serve("web", "--network", "mv")
    host = docker.inspect("mv")["IPAM"]["Config"][0]["AuxiliaryAddresses"]["host"]
    lab.here.ip("link", "delete", what.format(docker.inspect("mv")["Id"][:12]))
    eventually(lambda: lab.here.fetch("10.7.0.2", 80) == f"web sees {host}")
    assert "healthy" in lab.netengine("doctor")


def test_the_host_and_its_containers_reach_each_other_if_asked(lab: Lab, docker: Client):
    create(docker, "mv", "-o", "host_access=true", "--aux-address", "host=192.0.2.250")
    lab.serve("web", "--network", "mv")
    assert lab.here.fetch("192.0.2.128", 80) == "web sees 192.0.2.250"
    listener = lab.here.listen(8000)
    for address in ("192.0.2.250", HERE):
        lab.sandbox("web").connect(address, 8000).close()
        assert listener.accept()[1][0] == "192.0.2.128"
    lab.outside.connect(HERE, 8000).close()
    listener.close()
    # The wire still finds the host by the MAC of the parent.
    mac = lab.here.path("/sys/class/net/up0/address").read_text().strip()
    assert mac in lab.outside.ip("neighbour", "show", HERE)
    docker("rm", "-f", "web")
    assert "192.0.2.128" not in lab.here.ip("route")


@pytest.mark.needs("vlan")
def test_a_vlan_of_a_parent_is_made_and_goes_with_its_last_network(lab: Lab, docker: Client):
    tagged = ("-o", "parent=up0.50")
    create(docker, "one", "--subnet", "10.50.0.0/24", wire=tagged)
    create(docker, "two", "--subnet", "10.51.0.0/24", wire=tagged)
    assert "up0.50" in lab.here.links()
    lab.outside.ip("link", "add", "link", "up0", "name", "up0.50", "type", "vlan", "id", "50")
    try:
        lab.outside.ip("address", "add", "10.50.0.200/24", "dev", "up0.50")
        lab.outside.ip("link", "set", "up0.50", "up")
        lab.serve("web", "--network", "one")
        assert lab.outside.fetch("10.50.0.1", 80) == "web sees 10.50.0.200"
        lab.here.ip("link", "delete", "up0.50")
        eventually(lambda: lab.outside.fetch("10.50.0.1", 80) == "web sees 10.50.0.200")
    finally:
        lab.outside.ip("link", "delete", "up0.50")
    docker("rm", "-f", "web")
    docker("network", "rm", "one")
    assert "up0.50" in lab.here.links()
    docker("network", "rm", "two")
    assert "up0.50" not in lab.here.links()


@pytest.mark.needs("vlan")
def test_a_vlan_that_is_there_already_is_the_user_s(lab: Lab, docker: Client):
    lab.here.ip("link", "add", "link", "up0", "name", "up0.60", "type", "vlan", "id", "60")
    try:
        create(docker, "mv", wire=("-o", "parent=up0.60"))
        docker("network", "rm", "mv")
        assert "up0.60" in lab.here.links()
    finally:
        lab.here.ip("link", "delete", "up0.60")


def test_a_kernel_without_it_is_told_before_anything_is_made(lab: Lab, docker: Client):
    for kind, driver, parent, words in (
        (
            "vlan",
            "macvlan",
            "up0.50",
            "this kernel has no 802.1Q sub-interfaces: it was built without CONFIG_VLAN_8021Q",
        ),
        ("ipvlan", "ipvlan", "up0", "this kernel has no ipvlan: it was built without CONFIG_IPVLAN"),
    ):
        if not has(kind):
            refused = docker.refused("network", "create", "-d", driver, "-o", f"parent={parent}", "bad")
            assert words in refused.text
    assert lab.untouched()


def test_both_families(lab: Lab, docker: Client):
    six = ("--ipv6", "--subnet", "2001:db8:7::/64", "--gateway", "2001:db8:7::1")
    create(docker, "mv", *six, "-o", "host_access=true")
    lab.serve("web", "--network", "mv")
    lab.serve("db", "--network", "mv")
    found = docker.inspect("db")["NetworkSettings"]["Networks"]["mv"]
    assert (found["GlobalIPv6Address"], found["IPv6Gateway"]) == ("2001:db8:7::4", "2001:db8:7::1")
    listener = lab.sandbox("db").listen(8000, "::")
    for client in (lab.sandbox("web"), lab.here):
        client.connect("2001:db8:7::4", 8000).close()
    assert [listener.accept()[1][0] for _ in range(2)] == ["2001:db8:7::3", "2001:db8:7::2"]
    listener.close()
    routes = lab.here.run(["ip", "netns", "exec", "web", "ip", "-6", "route"], check=True).stdout
    assert "default via 2001:db8:7::1 dev eth0" in routes
    assert "healthy" in lab.netengine("doctor")


def test_the_command_of_netengine_says_the_same(lab: Lab, netengine: Client):
    netengine("network", "create", "-d", "macvlan", "--subnet", "192.0.2.0/24", "-o", "parent=up0", "mv")
    assert netengine("network", "ls", "--filter", "driver=macvlan", "--format", "{{.Name}} {{.Driver}}") == "mv macvlan"
    refused = netengine.refused("network", "create", "-d", "ipvlan", "-o", "parent=up0", "-o", "ipvlan_mode=l4", "bad")
    assert "invalid value 'l4' for ipvlan_mode: it must be one of l2, l3, l3s" in refused.text
