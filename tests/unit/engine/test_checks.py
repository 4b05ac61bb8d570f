"""What is refused before the first effect, in the exact words: scripts match on Docker's."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from netengine.drivers.endpoint_options import SYSCTLS
from netengine.engine import checks
from netengine.engine.addresses import Addresses
from netengine.engine.requests import ConfigReference, IpamPoolRequest, IpamRequest, NetworkRequest
from netengine.errors import Forbidden, Invalid, NetengineError, NotFound, Unsupported
from netengine.model import ContainerConfig, EndpointSettings, HostConfig, IpamWish, Network, RestartPolicy
from tests.unit.engine.model import container, network, plug, state


def refusal(kind: type[NetengineError], function: Any, *args: Any) -> str:
    with pytest.raises(NetengineError) as refused:
        function(*args)
    assert type(refused.value) is kind
    return refused.value.message


# ---------------------------------------------------------------------- names


@pytest.mark.parametrize("name", ["app", "a", "my net", "Größe", "a" * 255, "-x", "1", "a:b"])
def test_names_of_networks(name: str) -> None:
    checks.network_name(name)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "invalid name: name is empty"),
        ("  ", "invalid name: name is empty"),
        ("a/b", "invalid network name 'a/b': it must not contain '/', control characters, or white space at its ends"),
        (" app", "invalid network name ' app': "),
        ("a\nb", "invalid network name 'a\\nb': "),
        ("a\0", "invalid network name 'a\\x00': "),
        ("x" * 5000, f"invalid network name '{'x' * 57}...': it has 5000 characters, at most 255 bytes are allowed"),
        ("ß" * 200, f"invalid network name '{'ß' * 57}...': it has 200 characters, at most 255 bytes"),
    ],
)
def test_names_that_no_network_has(name: str, words: str) -> None:
    assert refusal(Invalid, checks.network_name, name).startswith(words)


@pytest.mark.parametrize("name", ["web", "web.1_a-b", "0a", "aa", "a" * 255])
def test_names_of_containers(name: str) -> None:
    checks.container_name(name)


@pytest.mark.parametrize("name", ["a", "-web", ".web", "_web", "we b", "web/1", "web\n", "wéb", "..", "", "/web"])
def test_names_that_no_container_has(name: str) -> None:
    assert refusal(Invalid, checks.container_name, name) == (
        f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
    )


def test_a_container_s_name_is_a_file_name() -> None:
    assert "it has 256 characters, at most 255" in refusal(Invalid, checks.container_name, "a" * 256)


# ---------------------------------------------------------------------- networks


@pytest.mark.parametrize("name", ["bridge", "host", "none", "default"])
def test_predefined_names_are_taken(name: str) -> None:
    assert refusal(Forbidden, checks.network_request, NetworkRequest(name=name)) == (
        f"operation is not permitted on predefined {name} network"
    )


@pytest.mark.parametrize(
    ("kind", "fields", "words"),
    [
        (Forbidden, {"driver": "host"}, 'only one instance of "host" network is allowed'),
        (Forbidden, {"driver": "null"}, 'only one instance of "null" network is allowed'),
        (Invalid, {"driver": "overlay", "scope": "local"}, "invalid scope 'local': it must be swarm"),
        (Invalid, {"scope": "swarm"}, "networks of driver bridge are of one host"),
        (Unsupported, {"ingress": True}, "an ingress network is for services"),
        (NotFound, {"driver": "weave"}, 'plugin "weave" not found: netengine has the network drivers bridge'),
        (Invalid, {"scope": "global"}, "invalid scope 'global': it must be local"),
        (Forbidden, {"config_only": True, "internal": True}, "configuration network can only contain network specific"),
        (Forbidden, {"config_only": True, "scope": "local"}, "configuration network can only contain network specific"),
        (
            Forbidden,
            {"config_only": True, "config_from": ConfigReference(network="x")},
            "a configuration network cannot",
        ),
        (
            Forbidden,
            {"config_from": ConfigReference(network="x"), "labels": {"a": ""}},
            "user specified configurations",
        ),
        (
            Forbidden,
            {"config_from": ConfigReference(network="x"), "options": {"a": ""}},
            "user specified configurations",
        ),
        (
            Forbidden,
            {"config_from": ConfigReference(network="x"), "enable_ipv6": True},
            "user specified configurations",
        ),
        (
            Forbidden,
            {
                "config_from": ConfigReference(network="x"),
                "ipam": IpamRequest(config=[IpamPoolRequest(subnet="10.0.0.0/8")]),
            },
            "user specified configurations are not supported if the network depends on a configuration network",
        ),
        (NotFound, {"ipam": IpamRequest(driver="infoblox")}, 'plugin "infoblox" not found'),
        (Invalid, {"ipam": IpamRequest(options={"x": "y"})}, "unknown IPAM option 'x'"),
    ],
)
def test_networks_that_cannot_be(kind: type[NetengineError], fields: dict[str, Any], words: str) -> None:
    assert refusal(kind, checks.network_request, NetworkRequest(name="app", **fields)).startswith(words)


def test_a_plain_network() -> None:
    checks.network_request(NetworkRequest(name="app"))
    checks.network_request(NetworkRequest(name="app", driver="bridge", scope="local", enable_ipv4=True))


# ---------------------------------------------------------------------- connecting

HOST, NONE = network("host", driver="host", predefined=True), network("none", driver="null", predefined=True)
APP = network("app")


def test_nobody_connects_to_the_host_network() -> None:
    assert refusal(Invalid, checks.can_connect, state(HOST), container("web"), HOST) == (
        "cannot connect container to host network - container must be created in host network mode"
    )


@pytest.mark.parametrize("mode", ["host", "container:other"])
def test_a_shared_namespace_cannot_be_connected(mode: str) -> None:
    web = container("web", host={"network_mode": mode})
    assert refusal(Invalid, checks.can_connect, state(APP), web, APP) == (
        "container sharing network namespace with another container or host cannot be connected to any other network"
    )


def test_the_network_none_excludes_all_others() -> None:
    words = "container cannot be connected to multiple networks with one of the networks in private (none) mode"
    alone, busy = container("alone"), container("busy")
    plug(alone, NONE)
    plug(busy, APP)
    assert refusal(Invalid, checks.can_connect, state(APP, NONE), alone, APP) == words
    assert refusal(Invalid, checks.can_connect, state(APP, NONE), busy, NONE) == words
    assert refusal(Invalid, checks.endpoint_counts, [APP, NONE]) == words


def test_a_container_that_is_on_the_network_none_alone_may_be_asked_again() -> None:
    alone = container("alone")
    plug(alone, NONE)
    checks.can_connect(state(NONE), alone, NONE)


def test_a_container_is_created_on_one_network_or_on_several_bridges() -> None:
    checks.endpoint_counts([HOST])
    checks.endpoint_counts([APP, network("back")])
    assert "cannot connect container to host network" in refusal(Invalid, checks.endpoint_counts, [APP, HOST])


# ---------------------------------------------------------------------- endpoints


def core_with(*networks: Network) -> Any:
    addresses = Addresses()
    for each in networks:
        addresses.add(each)
    return SimpleNamespace(addresses=addresses)


def attach(settings: EndpointSettings, to: Network = APP) -> Any:
    return checks.attachment(core_with(to), to, settings)


def test_an_endpoint_s_wishes_are_kept() -> None:
    asked = EndpointSettings(
        ipam_config=IpamWish(ipv4_address="10.1.0.9"), aliases=["db"], gw_priority=5, mac_address="02-00-00-00-00-AA"
    )
    wish = attach(asked)
    assert (wish.ip, wish.aliases, wish.gw_priority, wish.mac) == ("10.1.0.9", ["db"], 5, "02:00:00:00:00:aa")


def test_an_address_outside_names_the_subnets() -> None:
    asked = EndpointSettings(ipam_config=IpamWish(ipv4_address="10.9.0.9"))
    assert refusal(Invalid, attach, asked) == (
        "no configured subnet contains IP address 10.9.0.9 (network app has 10.1.0.0/24)"
    )


BRIDGE = network("bridge", predefined=True)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            EndpointSettings(ipam_config=IpamWish(ipv4_address="10.1.0.9")),
            "user-specified IP address is supported on user-defined networks only",
        ),
        (EndpointSettings(aliases=["db"]), "network-scoped aliases are only supported for user-defined networks"),
        (EndpointSettings(links=["db"]), "a link on the default bridge is made when the container is created"),
    ],
)
def test_what_the_default_bridge_does_not_have(settings: EndpointSettings, words: str) -> None:
    assert refusal(Invalid, attach, settings, BRIDGE).startswith(words)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (EndpointSettings(ipam_config=IpamWish(ipv4_address="ten.one")), "invalid IPv4 address: 'ten.one'"),
        (EndpointSettings(ipam_config=IpamWish(ipv6_address="fd00::x")), "invalid IPv6 address: 'fd00::x'"),
        (EndpointSettings(ipam_config=IpamWish(ipv6_address="10.1.0.2")), "invalid IPv6 address: '10.1.0.2'"),
        (EndpointSettings(ipam_config=IpamWish(ipv6_address="fd00::2%eth0")), "invalid IPv6 address: 'fd00::2%eth0'"),
        (
            EndpointSettings(ipam_config=IpamWish(ipv6_address="fd00::2")),
            "no configured subnet contains IP address fd00::2",
        ),
        (
            EndpointSettings(ipam_config=IpamWish(link_local_ips=["10.0.0.1"])),
            "invalid link-local IP address '10.0.0.1'",
        ),
        (EndpointSettings(ipam_config=IpamWish(link_local_ips=["fe80::1"])), "cannot use link-local address fe80::1"),
        (
            EndpointSettings(driver_opts={SYSCTLS: "net.ipv4.conf.IFNAME.no_such=1"}),
            "invalid sysctl net.ipv4.conf.IFNAME.no_such: this kernel has no such value",
        ),
        (EndpointSettings(driver_opts={"x": "y"}), "unknown endpoint option 'x'"),
        (EndpointSettings(links=["a:b:c"]), "bad format for links: 'a:b:c'"),
    ],
)
def test_endpoints_that_cannot_be(settings: EndpointSettings, words: str) -> None:
    assert refusal(Invalid, attach, settings).startswith(words)


def test_a_mac_that_is_none_is_refused() -> None:
    refusal(Invalid, attach, EndpointSettings(mac_address="02:00"))


# ---------------------------------------------------------------------- containers


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ({"sysctls": {"net.ipv4/../x": "1"}}, "sysctl 'net.ipv4/../x' is not a network sysctl"),
        ({"sysctls": {"net.ipv4.ip_forward": "1\n2"}}, "invalid value '1\\n2' of sysctl net.ipv4.ip_forward"),
        ({"extra_hosts": ["db"]}, "bad format for add-host: 'db': give name:address"),
        ({"extra_hosts": ["d b:10.0.0.1"]}, "bad format for add-host"),
        ({"extra_hosts": ["db:nowhere"]}, "invalid IP address in add-host: 'nowhere'"),
        ({"dns": ["dns.example"]}, "invalid DNS server 'dns.example': give an IPv4 or IPv6 address"),
        (
            {"restart_policy": RestartPolicy(name="sometimes")},
            "invalid restart policy: unknown policy 'sometimes'; "
            "use one of 'no', 'always', 'on-failure', or 'unless-stopped'",
        ),
        (
            {"restart_policy": RestartPolicy(name="always"), "auto_remove": True},
            "can't create 'AutoRemove' container with restart policy",
        ),
        (
            {"restart_policy": RestartPolicy(name="always", maximum_retry_count=3)},
            "invalid restart policy: maximum retry count can only be used with 'on-failure'",
        ),
        ({"network_mode": "container:"}, "invalid container format container:<name|id>"),
        ({"network_mode": "container"}, "invalid container format container:<name|id>"),
        ({"network_mode": "container:x", "dns": ["10.0.0.1"]}, "conflicting options: dns and the network mode"),
        (
            {"network_mode": "container:x", "extra_hosts": ["a:10.0.0.1"]},
            "conflicting options: custom host-to-IP mapping and the network mode",
        ),
        (
            {"network_mode": "container:x", "publish_all_ports": True},
            "conflicting options: port publishing and the container type network mode",
        ),
    ],
)
def test_host_configurations_that_cannot_be(host: dict[str, Any], words: str) -> None:
    assert refusal(Invalid, checks.container_request, ContainerConfig(), HostConfig(**host)).startswith(words)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"hostname": "-x"}, "invalid hostname '-x'"),
        ({"hostname": "a b"}, "invalid hostname 'a b'"),
        ({"hostname": "x" * 64}, "invalid hostname"),
        ({"domainname": "a\nb"}, "invalid domainname"),
        ({"env": ["=x"]}, "invalid environment variable: '=x'"),
        ({"env": ["A=\0"]}, "invalid environment variable"),
        ({"exposed_ports": {"http": {}}}, "invalid container port 'http'"),
    ],
)
def test_configurations_that_cannot_be(config: dict[str, Any], words: str) -> None:
    assert refusal(Invalid, checks.container_request, ContainerConfig(**config), HostConfig()).startswith(words)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"hostname": "web"}, "conflicting options: hostname and the network mode"),
        ({"mac_address": "02:00:00:00:00:01"}, "conflicting options: mac-address and the network mode"),
        ({"exposed_ports": {"80": {}}}, "conflicting options: port exposing and the container type network mode"),
    ],
)
def test_what_a_joined_sandbox_cannot_have_of_its_own(config: dict[str, Any], words: str) -> None:
    joined = HostConfig(network_mode="container:x")
    assert refusal(Invalid, checks.container_request, ContainerConfig(**config), joined) == words


def test_a_container_with_everything() -> None:
    config = ContainerConfig(hostname="web", env=["A=1", "B"], exposed_ports={"80/tcp": {}})
    host = HostConfig(
        sysctls={"net.ipv4.ip_forward": "1"},
        extra_hosts=["db:10.0.0.1", "gw:host-gateway", "x=10.0.0.2"],
        dns=["10.0.0.1"],
        restart_policy=RestartPolicy(name="on-failure", maximum_retry_count=3),
    )
    checks.container_request(config, host)


def test_dns_servers_have_one_form() -> None:
    assert checks.name_servers(["10.0.0.1", "2001:0DB8:0::1"]) == ["10.0.0.1", "2001:db8::1"]
    assert refusal(Invalid, checks.name_servers, ["fe80::1%eth0"]).startswith("invalid DNS server 'fe80::1%eth0'")
