"""The directives of daemon.json, one by one: key, attribute of `Config`, and the check that makes JSON a typed value.

Here lives what can be said about one value alone. What two values mean together, where values come from (flags, file)
and the `Config` itself live in `config.py`. Nothing here reads a file, a socket or the kernel.

Keys and meanings are those of Docker's daemon.json: a file written for Docker works where its keys are known here.
"""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Callable, Mapping
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, ip_address
from pathlib import Path

import msgspec

from netengine.errors import Invalid

LOG_LEVELS = ("debug", "info", "warn", "error")

MTU_MINIMUM, MTU_MAXIMUM = 68, 65535  # RFC 791: every internet module forwards 68 bytes unfragmented

SMALLEST_POOL_NETWORK = 30  # a /31 has no room for a gateway beside a container
POOL_NETWORKS_LOG2 = 24  # a pool may not be cut into more than 2**24 networks: beyond that a size is a typing error

SOCKET_PATH_BYTES = 107  # sizeof(sockaddr_un.sun_path) less the closing zero, unix(7)
INTERFACE_NAME_BYTES = 15  # IFNAMSIZ less the closing zero, linux/if.h

RESERVED_LABELS = ("com.docker.", "io.docker.", "org.dockerproject.")

# Directories that netengine would fill, or empty on --cleanup, and that belong to the whole system.
SYSTEM_DIRECTORIES = frozenset(
    """
    / /bin /boot /dev /etc /home /lib /lib64 /media /mnt /opt /proc /root /run /run/netns /sbin /srv /sys /tmp /usr
    /usr/bin /usr/lib /usr/local /usr/sbin /usr/share /var /var/cache /var/lib /var/log /var/run /var/tmp
    """.split()  # noqa: SIM905 (a list of words reads as such)
)

_DOMAIN = re.compile(r"(?=.{1,255}$)(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-))*\.?")
_GROUP = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}")
_INTERFACE = re.compile(rf"[^/:\s\x00-\x1f\x7f]{{1,{INTERFACE_NAME_BYTES}}}")


class AddressPool(msgspec.Struct, frozen=True):
    """A range for networks without a subnet of their own: `base` is cut into networks of prefix length `size`."""

    base: IPv4Network
    size: int


class Directive(msgspec.Struct, frozen=True):
    """One key: the attribute of `Config` that it sets, and its check, which raises `Invalid` without naming the key."""

    attribute: str
    parse: Callable[[object], object]


def quote(value: object) -> str:
    """Show a value as it stands in the file, cut to a length that leaves the message readable."""
    text = json.dumps(value, ensure_ascii=True)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _kind(value: object) -> str:
    names: dict[type, str] = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "a list"}
    return "null" if value is None else names.get(type(value), "an object")


def _expect(value: object, wanted: str) -> Invalid:
    return Invalid(f"{quote(value)} is {_kind(value)}; it must be {wanted}")


def _text(value: object, wanted: str = "a string") -> str:
    if not isinstance(value, str):
        raise _expect(value, wanted)
    return value


def _boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise _expect(value, "true or false")
    return value


def _integer(value: object, wanted: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _expect(value, wanted)
    return value


def _texts(check: Callable[[str], str]) -> Callable[[object], tuple[str, ...]]:
    """A check of a list of strings from the check of one of them; a repeated value is kept once, as Docker does."""

    def parse(value: object) -> tuple[str, ...]:
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise _expect(value, "a list of strings")
        return tuple(dict.fromkeys(check(item) for item in value))

    return parse


def _address(value: object) -> IPv4Address:
    wanted = "an IPv4 address such as 192.0.2.1"
    text = _text(value, wanted)
    try:
        return IPv4Address(text)
    except ValueError as error:
        raise Invalid(f"{quote(value)} is not {wanted} ({error})") from error


def _network(value: object, wanted: str) -> IPv4Network:
    """Host bits are cut off, as Docker does in daemon.json."""
    text = _text(value, wanted)
    if "/" not in text:
        raise Invalid(f"{quote(value)} has no prefix length; it must be {wanted}")
    try:
        return IPv4Network(text, strict=False)
    except ValueError as error:
        raise Invalid(f"{quote(value)} is not {wanted} ({error})") from error


def _unusable(network: IPv4Network) -> str | None:
    """Why containers can never live in this range, or None."""
    for name, taken in (
        ("multicast", IPv4Network("224.0.0.0/4")),
        ("loopback", IPv4Network("127.0.0.0/8")),
        ('"this network", RFC 791', IPv4Network("0.0.0.0/8")),
        ("reserved, RFC 1112", IPv4Network("240.0.0.0/4")),
    ):
        if network.overlaps(taken):
            return f"overlaps {taken} ({name})"
    return None


def _bip(value: object) -> IPv4Interface:
    wanted = "the bridge's address with its prefix length, such as 172.17.0.1/16"
    network = _network(value, wanted)
    interface = IPv4Interface(str(value))
    if network.prefixlen > SMALLEST_POOL_NETWORK:
        raise Invalid(f"{quote(value)} leaves no room for containers; the prefix length must be /30 or shorter")
    if interface.ip in (network.network_address, network.broadcast_address):
        which = "network" if interface.ip == network.network_address else "broadcast"
        raise Invalid(
            f"{quote(value)} is the {which} address of {network}, not a host's; "
            f"use {network.network_address + 1}/{network.prefixlen}"
        )
    if reason := _unusable(network):
        raise Invalid(f"{quote(value)} {reason}; choose a private range, RFC 1918")
    return interface


def _fixed_cidr(value: object) -> IPv4Network:
    return _network(value, "a range inside the bridge's network, such as 172.17.8.0/24")


def _mtu(value: object) -> int:
    wanted = f"{MTU_MINIMUM} to {MTU_MAXIMUM} bytes, or 0 for the default of 1500"
    mtu = _integer(value, wanted)
    if mtu != 0 and not MTU_MINIMUM <= mtu <= MTU_MAXIMUM:
        raise Invalid(f"{mtu} is out of range; it must be {wanted}")
    return mtu


def _nameserver(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError as error:
        raise Invalid(f"{quote(text)} is not an IP address of a name server, such as 192.0.2.53") from error


def _search_domain(text: str) -> str:
    if text != "." and not _DOMAIN.fullmatch(text):
        raise Invalid(f'{quote(text)} is not a domain name, such as example.com ("." alone means: no search list)')
    return text


def _dns_option(text: str) -> str:
    if not text or any(character.isspace() or not character.isprintable() for character in text):
        raise Invalid(f"{quote(text)} is not an option of resolv.conf(5), such as ndots:2")
    return text


def _pool(value: object) -> AddressPool:
    wanted = 'an object such as {"base": "172.30.0.0/16", "size": 24}'
    if not isinstance(value, dict):
        raise _expect(value, wanted)
    if missing := {"base", "size"} - value.keys():
        raise Invalid(f"{quote(value)} lacks {' and '.join(sorted(missing))}; it must be {wanted}")
    if unknown := value.keys() - {"base", "size"}:
        raise Invalid(f"{quote(value)} has the unknown {', '.join(sorted(unknown))}; it must be {wanted}")
    base = _network(value["base"], "a base range such as 172.30.0.0/16")
    size = _integer(value["size"], "a prefix length such as 24")
    if base.prefixlen > SMALLEST_POOL_NETWORK:
        raise Invalid(f"base {base} is too small; its prefix length must be {SMALLEST_POOL_NETWORK} or shorter")
    if not base.prefixlen <= size <= SMALLEST_POOL_NETWORK:
        raise Invalid(
            f"size {size} does not fit base {base}; it must be a prefix length"
            f" from {base.prefixlen} to {SMALLEST_POOL_NETWORK}"
        )
    if size - base.prefixlen > POOL_NETWORKS_LOG2:
        raise Invalid(
            f"size {size} cuts base {base} into more than 2**{POOL_NETWORKS_LOG2} networks; use a shorter one"
        )
    if reason := _unusable(base):
        raise Invalid(f"base {base} {reason}; choose a private range, RFC 1918")
    return AddressPool(base, size)


def _pools(value: object) -> tuple[AddressPool, ...]:
    if not isinstance(value, list):
        raise _expect(value, 'a list of objects such as {"base": "172.30.0.0/16", "size": 24}')
    pools = tuple(_pool(item) for item in value)
    ordered = sorted(pools, key=lambda pool: (pool.base.network_address, pool.base.prefixlen))
    for low, high in itertools.pairwise(ordered):
        if low.base.overlaps(high.base):
            raise Invalid(f"the bases {low.base} and {high.base} overlap; an address may belong to one pool only")
    return pools


def _bridge(value: object) -> str:
    name = _text(value, 'the name of an interface, or "none"')
    if name and (not _INTERFACE.fullmatch(name) or name in (".", "..") or len(name.encode()) > INTERFACE_NAME_BYTES):
        raise Invalid(
            f'{quote(value)} is not the name of an interface (1 to {INTERFACE_NAME_BYTES} bytes without "/", ":" or '
            'blanks); "none" switches the default network off'
        )
    return name


def _binding(value: object) -> IPv4Address:
    address = _address(value)
    if address.is_multicast or address == IPv4Address("255.255.255.255"):
        raise Invalid(
            f"{quote(value)} is not an address that a port can be published on; 0.0.0.0 means all of the host's"
        )
    return address


def _labels(value: object) -> tuple[str, ...]:
    labels = _texts(_label)(value)
    seen: dict[str, str] = {}
    for label in labels:
        key = label.partition("=")[0]
        if key in seen:
            raise Invalid(f"the labels {quote(seen[key])} and {quote(label)} conflict; a key may stand once")
        seen[key] = label
    return labels


def _label(text: str) -> str:
    key, separator, _ = text.partition("=")
    if not separator or not key or any(character.isspace() for character in key):
        raise Invalid(f"{quote(text)} is not a label; it must be key=value")
    if key.lower().startswith(RESERVED_LABELS):
        raise Invalid(
            f"{quote(text)} is not allowed: the namespaces com.docker.*, io.docker.* and"
            " org.dockerproject.* are reserved"
        )
    return text


def _host(text: str) -> str:
    scheme, separator, rest = text.partition("://")
    if separator and scheme == "fd":
        return text
    if not separator or scheme != "unix":
        raise Invalid(
            f"{quote(text)} cannot be listened on; it must be unix:///absolute/path, or fd:// for a socket of systemd"
            + ("; TCP would hand root to everyone who can connect" if scheme in ("tcp", "http", "https") else "")
        )
    path = _absolute(rest)
    if len(os.fsencode(path)) > SOCKET_PATH_BYTES:
        raise Invalid(f"{quote(text)} is too long; the path of a unix socket has at most {SOCKET_PATH_BYTES} bytes")
    return f"unix://{path}"


def _hosts(value: object) -> tuple[str, ...]:
    hosts = _texts(_host)(value)
    if not hosts:
        raise Invalid("[] would leave the daemon without a socket; name one, or leave the key out")
    return hosts


def _absolute(value: object) -> Path:
    text = _text(value, "an absolute path")
    if not text.startswith("/") or "\0" in text:
        raise Invalid(f"{quote(value)} is not an absolute path")
    return Path(os.path.normpath("/" + text.lstrip("/")))


def _directory(value: object) -> Path:
    path = _absolute(value)
    if str(path) in SYSTEM_DIRECTORIES:
        raise Invalid(
            f"{quote(value)} belongs to the system; give netengine a directory of its own, such as {path}/netengine"
        )
    return path


def _group(value: object) -> str:
    name = _text(value, "the name of a group")
    if not _GROUP.fullmatch(name):
        raise Invalid(f"{quote(value)} is not the name of a group")
    return name


def _log_level(value: object) -> str:
    level = _text(value)
    if level not in LOG_LEVELS:
        raise Invalid(f"{quote(value)} is not a level; it must be one of {', '.join(LOG_LEVELS)}")
    return level


DIRECTIVES: Mapping[str, Directive] = {
    "bip": Directive("bip", _bip),
    "bridge": Directive("bridge", _bridge),
    "data-root": Directive("data_root", _directory),
    "default-address-pools": Directive("default_address_pools", _pools),
    "default-gateway": Directive("default_gateway", _address),
    "dns": Directive("dns", _texts(_nameserver)),
    "dns-opts": Directive("dns_opts", _texts(_dns_option)),
    "dns-search": Directive("dns_search", _texts(_search_domain)),
    "exec-root": Directive("exec_root", _directory),
    "fixed-cidr": Directive("fixed_cidr", _fixed_cidr),
    "group": Directive("group", _group),
    "hosts": Directive("hosts", _hosts),
    "icc": Directive("icc", _boolean),
    "ip": Directive("ip", _binding),
    "ip-forward": Directive("ip_forward", _boolean),
    "ip-masq": Directive("ip_masq", _boolean),
    "labels": Directive("labels", _labels),
    "log-level": Directive("log_level", _log_level),
    "mtu": Directive("mtu", _mtu),
    "pidfile": Directive("pidfile", _absolute),
}

# Docker's other keys: told apart from typing errors, since a file written for Docker may well hold them.
DOCKER_ONLY = frozenset(
    """
    allow-direct-routing bip6 bridge-accept-fwmark debug default-gateway-v6 default-network-opts default-runtime
    exec-opts experimental features firewall-backend fixed-cidr-v6 host-gateway-ip host-gateway-ips insecure-registries
    ip-forward-no-drop ip6tables iptables ipv6 live-restore log-driver log-opts min-api-version
    network-control-plane-mtu registry-mirrors resolv-conf runtimes storage-driver storage-opts
    swarm-default-advertise-addr tls tlscacert tlscert tlskey tlsverify userland-proxy userland-proxy-path
    """.split()  # noqa: SIM905 (a list of words reads as such)
)
