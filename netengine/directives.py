"""The directives of daemon.json, one by one: key, attribute of `Config`, and the check that makes JSON a typed value.

Here lives what can be said about one value alone. What two values mean together, where values come from (flags, file)
and the `Config` itself live in `config.py`. Nothing here reads a file, a socket or the kernel.

Keys and meanings are those of Docker's daemon.json: a file written for Docker works where its keys are known here.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from pathlib import Path

import msgspec

from netengine import addressvalues, storeaddress
from netengine.errors import Invalid
from netengine.values import boolean, expect, integer, quote, string, texts

LOG_LEVELS = ("debug", "info", "warn", "error")

MTU_MINIMUM, MTU_MAXIMUM = 68, 65535  # RFC 791: every internet module forwards 68 bytes unfragmented

SOCKET_PATH_BYTES = 107  # sizeof(sockaddr_un.sun_path) less the closing zero, unix(7)
INTERFACE_NAME_BYTES = 15  # IFNAMSIZ less the closing zero, linux/if.h

TLS_PORT = 2376  # Docker's port for TLS, IANA "docker-s"

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


class Directive(msgspec.Struct, frozen=True):
    """One key: the attribute of `Config` that it sets, and its check, which raises `Invalid` without naming the key."""

    attribute: str
    parse: Callable[[object], object]


def _mtu(value: object) -> int:
    wanted = f"{MTU_MINIMUM} to {MTU_MAXIMUM} bytes, or 0 for the default of 1500"
    mtu = integer(value, wanted)
    if mtu != 0 and not MTU_MINIMUM <= mtu <= MTU_MAXIMUM:
        raise Invalid(f"{mtu} is out of range; it must be {wanted}")
    return mtu


def _nameserver(text: str) -> str:
    try:
        if not re.fullmatch("[0-9A-Fa-f:.]+(%[A-Za-z0-9_.-]{1,15})?", text):  # a zone may hold a line's end
            raise ValueError("the zone is not the name of a link")
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


def _bridge(value: object) -> str:
    name = string(value, 'the name of an interface, or "none"')
    named = _INTERFACE.fullmatch(name) and name not in (".", "..") and name.isprintable()  # a lone surrogate is not
    if name and (not named or len(name.encode()) > INTERFACE_NAME_BYTES):
        raise Invalid(
            f'{quote(value)} is not the name of an interface (1 to {INTERFACE_NAME_BYTES} bytes without "/", ":" or '
            'blanks); "none" switches the default network off'
        )
    return name


def _network_opts(value: object) -> dict[str, dict[str, str]]:
    wanted = 'options by driver, such as {"bridge": {"com.docker.network.driver.mtu": "1400"}}'
    if not isinstance(value, dict):
        raise expect(value, wanted)
    for driver, options in value.items():
        if not isinstance(options, dict) or not all(isinstance(v, str) for v in options.values()):
            raise Invalid(f"{quote({driver: options})} is not {wanted}")
    return value


def _always(value: object) -> bool:
    if boolean(value):
        return True
    raise Invalid("false is not possible: the rules are a table of netengine's own that no other program's rules meet")


def _labels(value: object) -> tuple[str, ...]:
    labels = texts(_label)(value)
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
    if separator and scheme == "tcp":
        return _tcp(text, rest)
    if not separator or scheme != "unix":
        raise Invalid(
            f"{quote(text)} cannot be listened on; it must be unix:///absolute/path, fd:// for a socket of systemd, or, with"
            " tlsverify, tcp://address:port"
        )
    path = _absolute(rest)
    if len(os.fsencode(path)) > SOCKET_PATH_BYTES:
        raise Invalid(f"{quote(text)} is too long; the path of a unix socket has at most {SOCKET_PATH_BYTES} bytes")
    return f"unix://{path}"


def _tcp(text: str, rest: str) -> str:
    """`tcp://address:port` whole: no address means all of the host's, no port Docker's for TLS."""
    address, colon, port = rest.rpartition(":") if not rest.endswith("]") else (rest, "", "")
    if not colon:
        address, port = rest, str(TLS_PORT)
    try:
        ip = ip_address(address.removeprefix("[").removesuffix("]") or "0.0.0.0")
        number = int(port) if re.fullmatch("[0-9]{1,5}", port) else 0
        if not 0 < number < 65536 or (ip.version == 6) != address.startswith("["):
            raise ValueError(port)
    except ValueError:
        raise Invalid(
            f"{quote(text)} is not tcp://address:port with an IP address of the host, such as tcp://192.0.2.1:{TLS_PORT} or"
            f" tcp://[2001:db8::1]:{TLS_PORT}"
        ) from None
    return f"tcp://[{ip}]:{number}" if ip.version == 6 else f"tcp://{ip}:{number}"


def _hosts(value: object) -> tuple[str, ...]:
    hosts = texts(_host)(value)
    if not hosts:
        raise Invalid("[] would leave the daemon without a socket; name one, or leave the key out")
    return hosts


def _absolute(value: object) -> Path:
    text = string(value, "an absolute path")
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
    name = string(value, "the name of a group")
    if not _GROUP.fullmatch(name):
        raise Invalid(f"{quote(value)} is not the name of a group")
    return name


def _store_user(value: object) -> str:
    name = string(value, "the name of a user of etcd")
    if not 0 < len(name) <= 255 or not name.isprintable():
        raise Invalid(f"{quote(value)} is not the name of a user of etcd")
    return name


def _log_level(value: object) -> str:
    level = string(value)
    if level not in LOG_LEVELS:
        raise Invalid(f"{quote(value)} is not a level; it must be one of {', '.join(LOG_LEVELS)}")
    return level


DIRECTIVES: Mapping[str, Directive] = {
    "allow-direct-routing": Directive("allow_direct_routing", boolean),
    "bip": Directive("bip", addressvalues.bip),
    "bip6": Directive("bip6", addressvalues.bip6),
    "bridge": Directive("bridge", _bridge),
    "data-root": Directive("data_root", _directory),
    "default-address-pools": Directive("default_address_pools", addressvalues.pools),
    "default-gateway": Directive("default_gateway", addressvalues.address_v4),
    "default-gateway-v6": Directive("default_gateway_v6", addressvalues.address_v6),
    "default-network-opts": Directive("default_network_opts", _network_opts),
    "dns": Directive("dns", texts(_nameserver)),
    "dns-opts": Directive("dns_opts", texts(_dns_option)),
    "dns-search": Directive("dns_search", texts(_search_domain)),
    "exec-root": Directive("exec_root", _directory),
    "fixed-cidr": Directive("fixed_cidr", addressvalues.fixed_cidr),
    "fixed-cidr-v6": Directive("fixed_cidr_v6", addressvalues.fixed_cidr_v6),
    "group": Directive("group", _group),
    "host-gateway-ips": Directive("host_gateway_ips", addressvalues.host_gateways),
    "hosts": Directive("hosts", _hosts),
    "icc": Directive("icc", boolean),
    "ip": Directive("ip", addressvalues.binding),
    "ip-forward": Directive("ip_forward", boolean),
    "ip-forward-no-drop": Directive("ip_forward_no_drop", boolean),
    "ip-masq": Directive("ip_masq", boolean),
    "ip6tables": Directive("ip6tables", _always),
    "ipv6": Directive("ipv6", boolean),
    "labels": Directive("labels", _labels),
    "log-level": Directive("log_level", _log_level),
    "mtu": Directive("mtu", _mtu),
    "pidfile": Directive("pidfile", _absolute),
    "store": Directive("store", storeaddress.parse),
    "store-cacert": Directive("store_cacert", _absolute),
    "store-cert": Directive("store_cert", _absolute),
    "store-key": Directive("store_key", _absolute),
    "store-password-file": Directive("store_password_file", _absolute),
    "store-user": Directive("store_user", _store_user),
    "tlscacert": Directive("tlscacert", _absolute),
    "tlscert": Directive("tlscert", _absolute),
    "tlskey": Directive("tlskey", _absolute),
    "tlsverify": Directive("tlsverify", boolean),
}

# Docker's other keys: told apart from typing errors, since a file written for Docker may well hold them.
DOCKER_ONLY = frozenset(
    """
    bridge-accept-fwmark cluster-advertise cluster-store cluster-store-opts debug default-runtime
    exec-opts experimental features firewall-backend host-gateway-ip insecure-registries
    iptables live-restore log-driver log-opts min-api-version
    network-control-plane-mtu registry-mirrors resolv-conf runtimes storage-driver storage-opts
    swarm-default-advertise-addr tls userland-proxy userland-proxy-path
    """.split()  # noqa: SIM905 (a list of words reads as such)
)

DOCKER_INSTEAD: Mapping[str, str] = {
    "cluster-advertise": "say --advertise-addr to docker swarm init or join",
    "cluster-store": "an etcd of your own is named with store, and used by docker swarm init",
    "cluster-store-opts": "its files are store-cacert, store-cert and store-key",
    "bridge-accept-fwmark": (
        "add a rule to the chain user-forward in its place: nft add rule ip netengine user-forward meta mark 1 accept"
    ),
}
"""What to do in place of some of them."""
