"""The configuration: what a daemon.json may say, what is refused, and that a refusal names key, value and reason."""

from __future__ import annotations

import json
import os
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from pathlib import Path

import pytest

from netengine import config as configuration
from netengine.config import AddressPool, Config, load
from netengine.directives import DIRECTIVES, DOCKER_INSTEAD, DOCKER_ONLY
from netengine.errors import Invalid
from netengine.storeaddress import StoreAddress
from netengine.storeaddress import parse as parse_store


def configure(tmp_path: Path, directives: object, **flags: object) -> Config:
    file = tmp_path / "daemon.json"
    file.write_text(directives if isinstance(directives, str) else json.dumps(directives))
    return load({name.replace("_", "-"): value for name, value in flags.items()}, file)


def refusal(tmp_path: Path, directives: object, **flags: object) -> str:
    with pytest.raises(Invalid) as caught:
        configure(tmp_path, directives, **flags)
    return caught.value.message


def test_without_a_file_the_defaults_are_docker_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(configuration, "DEFAULT_CONFIG_FILE", tmp_path / "none.json")
    config = load({})
    assert config == Config()
    assert config.hosts == ("unix:///run/netengine/netengine.sock",)
    assert (config.icc, config.ip_forward, config.ip_masq, config.ip) == (True, True, True, IPv4Address("0.0.0.0"))


def test_every_directive_arrives_typed(tmp_path: Path) -> None:
    given = {
        "bip": "172.30.0.1/16",
        "fixed-cidr": "172.30.8.0/24",
        "default-gateway": "172.30.0.254",
        "ipv6": True,
        "bip6": "fd00:17::1/64",
        "fixed-cidr-v6": "fd00:17:0:0:8::/80",
        "default-gateway-v6": "fe80::1",
        "ip6tables": True,
        "default-network-opts": {"bridge": {"com.docker.network.driver.mtu": "1400"}},
        "host-gateway-ips": ["192.0.2.1", "2001:db8::1"],
        "mtu": 1400,
        "dns": ["192.0.2.53", "2001:db8::53"],
        "dns-search": ["example.com", "."],
        "dns-opts": ["ndots:2"],
        "default-address-pools": [{"base": "10.10.0.0/16", "size": 24}, {"base": "fd00:10::/48", "size": 64}],
        "bridge": "",
        "icc": False,
        "ip": "192.0.2.7",
        "ip-forward": False,
        "ip-forward-no-drop": True,
        "allow-direct-routing": True,
        "ip-masq": False,
        "labels": ["rack=7", "note=a=b"],
        "hosts": ["unix:///run/a.sock", "fd://", "tcp://:2376"],
        "tlsverify": True,
        "tlscacert": "/etc/netengine/ca.pem",
        "tlscert": "/etc/netengine/cert.pem",
        "tlskey": "/etc/netengine/key.pem",
        "data-root": "/srv/netengine",
        "exec-root": "/run/ne",
        "pidfile": "/run/ne.pid",
        "group": "staff",
        "log-level": "warn",
        "store": "etcd://192.0.2.10,[2001:db8::10]:2479,etcd.example.com/site/one/",
        "store-cacert": "/etc/netengine/store-ca.pem",
        "store-cert": "/etc/netengine/store-cert.pem",
        "store-key": "/etc/netengine/store-key.pem",
        "store-user": "root",
        "store-password-file": "/etc/netengine/store-password",
    }
    assert given.keys() == DIRECTIVES.keys()
    assert configure(tmp_path, given) == Config(
        bip=IPv4Interface("172.30.0.1/16"),
        fixed_cidr=IPv4Network("172.30.8.0/24"),
        default_gateway=IPv4Address("172.30.0.254"),
        ipv6=True,
        bip6=IPv6Interface("fd00:17::1/64"),
        fixed_cidr_v6=IPv6Network("fd00:17:0:0:8::/80"),
        default_gateway_v6=IPv6Address("fe80::1"),
        default_network_opts={"bridge": {"com.docker.network.driver.mtu": "1400"}},
        host_gateway_ips=("192.0.2.1", "2001:db8::1"),
        mtu=1400,
        dns=("192.0.2.53", "2001:db8::53"),
        dns_search=("example.com", "."),
        dns_opts=("ndots:2",),
        default_address_pools=(
            AddressPool(IPv4Network("10.10.0.0/16"), 24),
            AddressPool(IPv6Network("fd00:10::/48"), 64),
        ),
        icc=False,
        ip=IPv4Address("192.0.2.7"),
        ip_forward=False,
        ip_forward_no_drop=True,
        allow_direct_routing=True,
        ip_masq=False,
        labels=("rack=7", "note=a=b"),
        hosts=("unix:///run/a.sock", "fd://", "tcp://0.0.0.0:2376"),
        tlsverify=True,
        tlscacert=Path("/etc/netengine/ca.pem"),
        tlscert=Path("/etc/netengine/cert.pem"),
        tlskey=Path("/etc/netengine/key.pem"),
        data_root=Path("/srv/netengine"),
        exec_root=Path("/run/ne"),
        pidfile=Path("/run/ne.pid"),
        group="staff",
        log_level="warn",
        store=StoreAddress(
            ("https://192.0.2.10:2379", "https://[2001:db8::10]:2479", "https://etcd.example.com:2379"), "/site/one"
        ),
        store_cacert=Path("/etc/netengine/store-ca.pem"),
        store_cert=Path("/etc/netengine/store-cert.pem"),
        store_key=Path("/etc/netengine/store-key.pem"),
        store_user="root",
        store_password_file=Path("/etc/netengine/store-password"),
    )


def test_every_directive_is_an_attribute_and_no_attribute_is_unreachable() -> None:
    assert {directive.attribute for directive in DIRECTIVES.values()} == set(Config.__struct_fields__)
    assert not DIRECTIVES.keys() & DOCKER_ONLY
    assert DOCKER_INSTEAD.keys() <= DOCKER_ONLY


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        (
            "bip",
            "172.17.0.0/16",
            '"172.17.0.0/16" is the network address of 172.17.0.0/16, not a host\'s; use 172.17.0.1/16',
        ),
        ("bip", "172.17.255.255/16", "is the broadcast address of 172.17.0.0/16"),
        ("bip", "172.17.0.1", '"172.17.0.1" has no prefix length'),
        ("bip", "172.17.0.1/31", "leaves no room for containers"),
        ("bip", "172.17.0.1/33", '"172.17.0.1/33" is not the bridge\'s address'),
        ("bip", "172.17.0.256/16", "172.17.0.256"),
        ("bip", "fd00::1/64", "fd00::1/64"),
        ("bip", "224.0.0.1/8", "overlaps 224.0.0.0/4 (multicast)"),
        ("bip", "127.0.0.1/8", "overlaps 127.0.0.0/8 (loopback)"),
        ("bip", 7, "7 is a number; it must be the bridge's address"),
        ("bip", None, "null is null"),
        ("bip6", "10.0.0.1/24", '"10.0.0.1/24" is not the bridge\'s IPv6 address'),
        ("bip6", "fd00::/64", "is the subnet-router anycast address of fd00::/64"),
        ("bip6", "fd00::1/127", "leaves no room for containers"),
        ("bip6", "fe80::1/10", "clashes with the Link-Local prefix 'fe80::/64'"),
        ("fixed-cidr-v6", "fd00::", "has no prefix length"),
        ("fixed-cidr-v6", "ff00::/64", "overlaps ff00::/8 (multicast)"),
        ("fixed-cidr-v6", "::ffff:10.0.0.0/104", "overlaps ::/64"),
        ("default-gateway-v6", "10.0.0.1", '"10.0.0.1" is not an IPv6 address'),
        ("default-gateway-v6", "fe80::1%eth0", "leave the zone out"),
        ("ip6tables", False, "false is not possible"),
        ("ipv6", "yes", '"yes" is a string; it must be true or false'),
        ("host-gateway-ips", ["10.0.0.1", "10.0.0.2"], "two addresses of one family"),
        ("host-gateway-ips", ["gateway"], '"gateway" is not an IP address'),
        ("default-network-opts", {"bridge": {"mtu": 1400}}, '{"bridge": {"mtu": 1400}} is not options by driver'),
        ("default-network-opts", ["bridge"], "is a list; it must be options by driver"),
        ("fixed-cidr", "172.17.0.0", "has no prefix length"),
        ("mtu", 67, "67 is out of range; it must be 68 to 65535 bytes"),
        ("mtu", 65536, "65536 is out of range"),
        ("mtu", -1, "-1 is out of range"),
        ("mtu", True, "true is a boolean; it must be 68 to 65535"),
        ("mtu", "1500", '"1500" is a string'),
        ("mtu", 1500.0, "1500.0 is a number; it must be 68"),
        ("default-gateway", "172.17.0.1/16", '"172.17.0.1/16" is not an IPv4 address'),
        ("dns", "192.0.2.53", "is a string; it must be a list of strings"),
        ("dns", ["192.0.2.53", 8], "it must be a list of strings"),
        ("dns", ["ns.example.com"], '"ns.example.com" is not an IP address of a name server'),
        ("dns-search", ["exa mple.com"], "is not a domain name"),
        ("dns-search", ["a..b"], "is not a domain name"),
        ("dns-search", ["-a.b"], "is not a domain name"),
        ("dns-opts", ["ndots 2"], "is not an option of resolv.conf(5)"),
        ("dns-opts", ["ndots:2\nnameserver 192.0.2.1"], "is not an option of resolv.conf(5)"),
        ("default-address-pools", {"base": "10.0.0.0/8", "size": 24}, "is an object; it must be a list"),
        ("default-address-pools", [{"base": "10.0.0.0/8"}], "lacks size"),
        ("default-address-pools", [{"base": "10.0.0.0/8", "size": 24, "x": 1}], "has the unknown x"),
        ("default-address-pools", ["10.0.0.0/8"], "is a string; it must be an object"),
        ("default-address-pools", [{"base": "10.0.0.0/16", "size": 15}], "size 15 does not fit base 10.0.0.0/16"),
        ("default-address-pools", [{"base": "10.0.0.0/16", "size": 31}], "a prefix length from 16 to 30"),
        ("default-address-pools", [{"base": "10.0.0.0/31", "size": 31}], "base 10.0.0.0/31 is too small"),
        ("default-address-pools", [{"base": "fd00::/48", "size": 127}], "a prefix length from 48 to 126"),
        ("default-address-pools", [{"base": "127.0.0.0/8", "size": 24}], "overlaps 127.0.0.0/8"),
        (
            "default-address-pools",
            [{"base": "10.1.0.0/16", "size": 24}, {"base": "10.0.0.0/8", "size": 24}],
            "the bases 10.0.0.0/8 and 10.1.0.0/16 overlap",
        ),
        ("bridge", "a-name-of-16-byt", "is not the name of an interface"),
        ("bridge", "../x", "is not the name of an interface"),
        ("bridge", "..", "is not the name of an interface"),
        ("bridge", "br\n0", "is not the name of an interface"),
        ("bridge", "ééééééééé", "is not the name of an interface"),
        ("icc", "yes", '"yes" is a string; it must be true or false'),
        ("ip-masq", 1, "1 is a number; it must be true or false"),
        ("ip-forward", None, "null is null; it must be true or false"),
        ("ip", "fe80::1", "is not an address that a port can be published on"),
        ("ip", "everywhere", '"everywhere" is not an IP address of the host'),
        ("allow-direct-routing", "yes", "it must be true or false"),
        ("ip-forward-no-drop", 1, "it must be true or false"),
        ("ip", "224.0.0.1", "is not an address that a port can be published on"),
        ("labels", ["rack"], '"rack" is not a label; it must be key=value'),
        ("labels", ["=7"], "is not a label"),
        ("labels", ["rack=7", "rack=8"], 'the labels "rack=7" and "rack=8" conflict'),
        ("labels", ["com.docker.x=1"], "are reserved"),
        (
            "hosts",
            ["tcp://0.0.0.0:2375"],
            "tcp://0.0.0.0:2375 would hand root to everyone who can connect; add tlsverify",
        ),
        ("hosts", ["tcp://"], "tcp://0.0.0.0:2376 would hand root"),
        ("hosts", ["tcp://[::1]"], "tcp://[::1]:2376 would hand root"),
        ("hosts", ["tcp://localhost:2376"], "is not tcp://address:port with an IP address of the host"),
        ("hosts", ["tcp://::1:2376"], "is not tcp://address:port"),
        ("hosts", ["tcp://192.0.2.1:0"], "is not tcp://address:port"),
        ("hosts", ["tcp://192.0.2.1:99999"], "is not tcp://address:port"),
        ("hosts", ["tcp://192.0.2.1:²"], "is not tcp://address:port"),
        ("hosts", ["http://192.0.2.1"], "cannot be listened on"),
        ("tlsverify", True, "tlsverify: needs tlscacert, tlscert, tlskey too"),
        ("tlsverify", "yes", "it must be true or false"),
        ("tlscert", "/etc/cert.pem", "tlscert: is of no use without tlsverify"),
        ("tlskey", "key.pem", '"key.pem" is not an absolute path'),
        ("hosts", ["unix://relative.sock"], '"relative.sock" is not an absolute path'),
        ("hosts", ["/run/x.sock"], "it must be unix:///absolute/path"),
        ("hosts", ["unix:///" + 107 * "x"], "at most 107 bytes"),
        ("hosts", [], "without a socket"),
        ("data-root", "var/lib", "is not an absolute path"),
        ("data-root", "/var/lib/../lib", "belongs to the system"),
        ("exec-root", "//", "belongs to the system"),
        ("pidfile", "a\0b", "is not an absolute path"),
        ("group", "a b", "is not the name of a group"),
        ("store", "192.0.2.10:2379", "is not etcd://HOST:PORT[,HOST:PORT...][/PREFIX]"),
        ("store", "https://192.0.2.10", "is not etcd://HOST:PORT"),
        ("store", "etcd://", '"" is no member of etcd'),
        ("store", "etcd://192.0.2.10:0", '"192.0.2.10:0" is no member of etcd'),
        ("store", "etcd://192.0.2.10,", '"" is no member of etcd'),
        ("store", "etcd://[2001:db8::x]", '"2001:db8::x" is not an IPv6 address'),
        ("store", "etcd://2001:db8::1", "IPv6 as [ADDRESS]:PORT"),
        ("store", "etcd://host?x=1", "is no member of etcd"),
        ("store", "etcd://host/a//b", '"/a//b" is not a prefix'),
        ("store", "etcd://host/../b", "is not a prefix"),
        ("store", "etcd://host/a/netengine/v1", "is where another one keeps its keys"),
        ("store", "etcd://root:secret@host", "the address holds a user or password; give them with store-user"),
        ("store", "etcd://" + ",".join(f"h{n}" for n in range(17)), "17 members are named; 16 at most"),
        ("store-user", "", '"" is not the name of a user of etcd'),
        ("store-cert", "cert.pem", '"cert.pem" is not an absolute path'),
        ("store-key", "/key.pem", "store-key: is of no use without store"),
        ("cluster-store", "etcd://host", "an etcd of your own is named with store"),
        ("log-level", "loud", '"loud" is not a level; it must be one of debug, info, warn, error'),
    ],
)
def test_an_impossible_value_is_refused_with_key_value_and_reason(
    tmp_path: Path, key: str, value: object, reason: str
) -> None:
    message = refusal(tmp_path, {key: value})
    assert f"\n  {key}: " in message
    assert reason in message


@pytest.mark.parametrize(
    ("directives", "reason"),
    [
        ({"bip": "10.0.0.1/24", "bridge": "br0"}, "mutually exclusive options"),
        ({"bip": "10.0.0.1/24", "bridge": "none"}, "mutually exclusive options"),
        ({"bip": "10.0.0.1/24", "fixed-cidr": "10.0.1.0/25"}, 'fixed-cidr: "10.0.1.0/25" is not inside 10.0.0.0/24'),
        ({"bip": "10.0.0.1/24", "fixed-cidr": "10.0.0.0/16"}, "is not inside 10.0.0.0/24"),
        ({"bip6": "fd00::1/64", "fixed-cidr-v6": "fd01::/80"}, 'fixed-cidr-v6: "fd01::/80" is not inside fd00::/64'),
        ({"bip6": "fd00::1/64", "default-gateway-v6": "fd01::9"}, "is not inside fd00::/64, the network of bip6"),
        ({"bip6": "fd00::1/64", "bridge": "br0"}, "bip6, bridge: "),
        ({"ipv6": True, "mtu": 1000}, "ipv6, mtu: IPv6 needs an MTU of 1280 bytes, and it is 1000"),
        (
            {"bip": "10.0.0.1/24", "default-gateway": "10.0.1.1"},
            'default-gateway: "10.0.1.1" is not inside 10.0.0.0/24',
        ),
        ({"bip": "10.0.0.1/24", "default-gateway": "10.0.0.255"}, "is the broadcast address of 10.0.0.0/24"),
        ({"store": "etcd://h", "store-cert": "/c"}, "store-cert: needs store-key too"),
        ({"store": "etcd://h", "store-user": "root"}, "store-user: needs store-password-file too"),
        ({"store": "etcd+http://h", "store-cacert": "/c"}, "store-cacert: is of no use with etcd+http://"),
        ({"data-root": "/srv/x", "exec-root": "/srv/x"}, "both are /srv/x"),
        ({"data-root": "/run/x/data", "exec-root": "/run/x"}, "which a reboot empties"),
    ],
)
def test_values_that_contradict_each_other_are_refused(tmp_path: Path, directives: object, reason: str) -> None:
    assert reason in refusal(tmp_path, directives)


def test_all_problems_are_named_at_once(tmp_path: Path) -> None:
    message = refusal(
        tmp_path, {"mtu": 1, "icc": 1, "fixed_cidr": "10.0.0.0/8", "colour": "red", "userland-proxy": False}
    )
    assert message.splitlines() == [
        f"unable to configure the netengine daemon with file {tmp_path}/daemon.json:",
        "  mtu: 1 is out of range; it must be 68 to 65535 bytes, or 0 for the default of 1500",
        "  icc: 1 is a number; it must be true or false",
        "  fixed_cidr: unknown directive; did you mean fixed-cidr?",
        f"  colour: unknown directive; known are {', '.join(DIRECTIVES)}",
        "  userland-proxy: a directive of Docker that netengine does not have; remove it",
    ]


def test_what_is_wrong_with_a_flag_is_said_under_the_flag_s_name(tmp_path: Path) -> None:
    message = refusal(tmp_path, {}, hosts=["tcp://x"], log_level="loud")
    assert "\n  --host: " in message
    assert "\n  --log-level: " in message


def test_the_same_option_as_flag_and_in_the_file_with_different_values_is_refused_in_docker_s_words(
    tmp_path: Path,
) -> None:
    message = refusal(tmp_path, {"hosts": ["unix:///b"], "group": "b"}, hosts=["unix:///a"], group="a")
    assert (
        "the following directives are specified both as a flag and in the configuration file: "
        "group: (from flag: a, from file: b), hosts: (from flag: [unix:///a], from file: [unix:///b])"
    ) in message


def test_the_same_option_twice_with_one_value_is_fine(tmp_path: Path) -> None:
    assert configure(tmp_path, {"data-root": "/srv/x/"}, data_root="/srv/x").data_root == Path("/srv/x")


def test_the_pid_file_follows_the_run_directory(tmp_path: Path) -> None:
    assert configure(tmp_path, {}, exec_root="/run/b").pidfile == Path("/run/b/netengined.pid")
    assert configure(tmp_path, {"pidfile": "/run/b.pid"}, exec_root="/run/b").pidfile == Path("/run/b.pid")


def test_ranges_with_host_bits_are_cut_as_docker_does(tmp_path: Path) -> None:
    config = configure(
        tmp_path, {"fixed-cidr": "172.17.8.9/24", "default-address-pools": [{"base": "10.9.9.9/16", "size": 16}]}
    )
    assert config.fixed_cidr == IPv4Network("172.17.8.0/24")
    assert config.default_address_pools == (AddressPool(IPv4Network("10.9.0.0/16"), 16),)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{\n  "mtu": 1400,\n}', "line 3, column 1: "),
        ('{"mtu": 1400', "line 1, column 13: "),
        ('{"mtu": 1, "mtu": 2}', "mtu: stands more than once"),
        ('{"default-address-pools": [{"size": 24, "size": 25}]}', "size: stands more than once"),
        ("[]", "holds []; it must hold one object"),
        ('{"mtu": NaN}', "NaN is not JSON"),
        ('{"mtu": ' + 5000 * "9" + "}", "Exceeds the limit"),
        (200_000 * "[", "nested too deeply"),
        (" " * ((1 << 20) + 1), "is larger than 1048576 bytes"),
    ],
)
def test_a_file_that_is_not_a_configuration_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    assert reason in refusal(tmp_path, text)


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "daemon.json"
    file.write_bytes(b'{"mtu": \xff}')
    with pytest.raises(Invalid, match="not UTF-8 text: byte 8 is 0xff"):
        load({}, file)


def test_an_empty_file_and_a_byte_order_mark_are_taken_as_docker_takes_them(tmp_path: Path) -> None:
    assert configure(tmp_path, " \n") == Config()
    assert configure(tmp_path, '\ufeff{"mtu": 1400}').mtu == 1400
    assert load({}, Path("/dev/null")) == Config()


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match=r"missing\.json does not exist; create it"):
        load({}, tmp_path / "missing.json")


def test_a_loop_of_links_a_directory_and_a_pipe_are_refused_without_waiting(tmp_path: Path) -> None:
    loop, pipe = tmp_path / "loop", tmp_path / "pipe"
    loop.symlink_to(loop)
    os.mkfifo(pipe)
    for path, reason in (
        (loop, "loop of symbolic links"),
        (tmp_path, "Is a directory"),
        (pipe, "not a regular file"),
    ):
        with pytest.raises(Invalid, match=reason):
            load({}, path)


def test_the_address_of_a_store_is_shown_as_it_is_said() -> None:
    for text in ("etcd://192.0.2.10:2379,[2001:db8::1]:2379/one", "etcd+http://etcd.example.com:4001"):
        assert str(parse_store(text)) == text
    with pytest.raises(Invalid) as caught:
        parse_store("etcd://root:secret@host")
    assert "secret" not in caught.value.message
