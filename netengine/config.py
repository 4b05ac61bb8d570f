"""The daemon's configuration: `Config`, and how flags and daemon.json become one.

Here live the defaults, the reading of the file, the merge with the flags and the checks that need two values at once.
The check of a single value lives in `directives.py` and `addressvalues.py`. A configuration is whole, or it is refused
with *every* problem named; nothing is guessed, and the kernel is not asked, so that `netengined --validate` works anywhere.
"""

from __future__ import annotations

import codecs
import difflib
import errno
import json
import os
import stat
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from netengine.addressvalues import IPV6_MTU, AddressPool
from netengine.directives import DIRECTIVES, DOCKER_INSTEAD, DOCKER_ONLY
from netengine.errors import Invalid
from netengine.storeaddress import StoreAddress
from netengine.values import quote

__all__ = ["DEFAULT_CONFIG_FILE", "AddressPool", "Config", "load"]

DEFAULT_CONFIG_FILE = Path("/etc/netengine/daemon.json")
DEFAULT_HOST = "unix:///run/netengine/netengine.sock"
FILE_LIMIT = 1 << 20  # bytes; a daemon.json of more than 1 MiB is some other file

# The directives that are flags as well: what is wrong with one is said under the name that the user typed.
FLAGS: Mapping[str, str] = {
    "data-root": "--data-root",
    "exec-root": "--exec-root",
    "group": "--group",
    "hosts": "--host",
    "log-level": "--log-level",
    "pidfile": "--pidfile",
    "store": "--store",
    "store-cacert": "--store-cacert",
    "store-cert": "--store-cert",
    "store-key": "--store-key",
    "store-password-file": "--store-password-file",
    "store-user": "--store-user",
    "tlscacert": "--tlscacert",
    "tlscert": "--tlscert",
    "tlskey": "--tlskey",
    "tlsverify": "--tlsverify",
}


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """What the daemon was told: flags and daemon.json as one, checked and typed. Defaults are Docker's."""

    # the daemon itself
    hosts: tuple[str, ...] = (DEFAULT_HOST,)
    data_root: Path = Path("/var/lib/netengine")
    exec_root: Path = Path("/run/netengine")
    pidfile: Path = Path("/run/netengine/netengined.pid")
    group: str = "netengine"
    log_level: str = "info"
    labels: tuple[str, ...] = ()
    tlsverify: bool = False
    tlscacert: Path | None = None
    tlscert: Path | None = None
    tlskey: Path | None = None

    # a cluster that keeps what it knows in an etcd of its user's
    store: StoreAddress | None = None
    store_cacert: Path | None = None  # None: who the host trusts anyway
    store_cert: Path | None = None
    store_key: Path | None = None
    store_user: str = ""
    store_password_file: Path | None = None

    # the default network
    bridge: str = ""  # an existing bridge to use; "none": no default network; "": netengine's own
    bip: IPv4Interface | None = None
    bip6: IPv6Interface | None = None
    fixed_cidr: IPv4Network | None = None
    fixed_cidr_v6: IPv6Network | None = None
    default_gateway: IPv4Address | None = None
    default_gateway_v6: IPv6Address | None = None
    ipv6: bool = False
    mtu: int = 0  # bytes; 0: the default of 1500
    icc: bool = True
    ip: IPv4Address | IPv6Address = IPv4Address("0.0.0.0")  # everywhere, IPv6 included
    ip_masq: bool = True

    # all networks
    ip_forward: bool = True
    ip_forward_no_drop: bool = False  # forward everything, not netengine's own alone, where it turned forwarding on
    allow_direct_routing: bool = False
    ip6tables: bool = True  # Docker's; there is nothing to switch off
    default_address_pools: tuple[AddressPool, ...] = ()  # of a family that it leaves out: Docker's default pools
    default_network_opts: Mapping[str, Mapping[str, str]] = {}  # by driver
    host_gateway_ips: tuple[str, ...] = ()  # empty: the addresses of the default network's bridge
    dns: tuple[str, ...] = ()
    dns_search: tuple[str, ...] = ()
    dns_opts: tuple[str, ...] = ()


def load(flags: Mapping[str, object], config_file: Path | None = None) -> Config:
    """Merge the flags with the configuration file.

    `flags` holds the directives given on the command line, unchecked, by their names in the file: `hosts`, not `host`.
    `config_file` is the file that the user named: it must exist; None means the default one, which need not.
    Raises `Invalid` with all problems, one a line.
    """
    path = DEFAULT_CONFIG_FILE if config_file is None else config_file
    directives = _read(path, required=config_file is not None)

    problems: list[str] = []
    from_file = _check(directives, problems, {})
    from_flags = _check(flags, problems, FLAGS)
    problems += _specified_twice(directives, from_file, flags, from_flags)
    values = from_file | from_flags
    # The pid file follows the run directory, so that two daemons with a run directory each do not share one.
    values.setdefault("pidfile", values.get("exec_root", Config().exec_root) / "netengined.pid")
    config = Config(**values)
    problems += _contradictions(config)
    if problems:
        source = f" with file {path}" if directives else ""
        raise Invalid(
            f"unable to configure the netengine daemon{source}:\n" + "\n".join(f"  {line}" for line in problems)
        )
    return config


def _check(raw: Mapping[str, object], problems: list[str], names: Mapping[str, str]) -> dict[str, Any]:
    """Typed values by attribute of `Config`; what is wrong goes to `problems` under the name that the user typed."""
    values: dict[str, Any] = {}
    for key, value in raw.items():
        directive = DIRECTIVES.get(key)
        if directive is None:
            problems.append(_unknown(key))
            continue
        try:
            values[directive.attribute] = directive.parse(value)
        except Invalid as error:
            problems.append(f"{names.get(key, key)}: {error.message}")
    return values


def _unknown(key: str) -> str:
    if key in DOCKER_ONLY:
        instead = DOCKER_INSTEAD.get(key, "remove it")
        return f"{key}: a directive of Docker that netengine does not have; {instead}"
    near = difflib.get_close_matches(key.lower().replace("_", "-"), DIRECTIVES, n=1)
    advice = f"did you mean {near[0]}?" if near else f"known are {', '.join(DIRECTIVES)}"
    return f"{quote(key)[1:-1]}: unknown directive; {advice}"


def _specified_twice(
    file: Mapping[str, object], from_file: Mapping[str, Any], flags: Mapping[str, object], from_flags: Mapping[str, Any]
) -> list[str]:
    """Docker's rule: neither flag nor file wins where they differ, since either choice would surprise somebody."""
    clashes = [
        f"{key}: (from flag: {_plain(flags[key])}, from file: {_plain(file[key])})"
        for key in sorted(file.keys() & flags.keys())
        if from_file.get(attribute := DIRECTIVES[key].attribute) != from_flags.get(attribute)
    ]
    if not clashes:
        return []
    text = ", ".join(clashes)
    return [f"the following directives are specified both as a flag and in the configuration file: {text}"]


def _plain(value: object) -> str:
    return f"[{', '.join(str(item) for item in value)}]" if isinstance(value, list) else str(value)


def _contradictions(config: Config) -> list[str]:
    """What is fine alone and impossible together."""
    found: list[str] = []
    if config.bip and config.bridge:
        found.append(
            f"bip, bridge: {quote(str(config.bip))} and {quote(config.bridge)} are mutually exclusive options: a"
            " bridge of your own already has its address; please specify only one"
        )
    if config.bip6 and config.bridge:
        found.append(
            f"bip6, bridge: {quote(str(config.bip6))} and {quote(config.bridge)} are mutually exclusive options: a"
            " bridge of your own already has its address; please specify only one"
        )
    if config.bip:
        found += _outside(config, config.bip)
    if config.bip6:
        found += _outside_v6(config, config.bip6)
    if config.ipv6 and 0 < config.mtu < IPV6_MTU:
        found.append(f"ipv6, mtu: IPv6 needs an MTU of {IPV6_MTU} bytes, and it is {config.mtu}")
    found += _tls(config) + _store(config)
    if config.data_root == config.exec_root:
        found.append(f"data-root, exec-root: both are {config.data_root}; one is kept over a reboot, the other is not")
    elif config.exec_root in config.data_root.parents:
        found.append(f"data-root: {config.data_root} lies inside exec-root {config.exec_root}, which a reboot empties")
    return found


def _tls(config: Config) -> list[str]:
    """Whoever reaches a TCP socket and is let in is root here: without certificates on both sides there is none."""
    files = {"tlscacert": config.tlscacert, "tlscert": config.tlscert, "tlskey": config.tlskey}
    if config.tlsverify:
        missing = [name for name, path in files.items() if path is None]
        return [f"tlsverify: needs {', '.join(missing)} too"] if missing else []
    found = [f"{name}: is of no use without tlsverify" for name, path in files.items() if path is not None]
    for host in config.hosts:
        if host.startswith("tcp://"):
            found.append(
                f"hosts: {host} would hand root to everyone who can connect; add tlsverify, tlscacert, tlscert and tlskey"
            )
    return found


def _store(config: Config) -> list[str]:
    files = {"store-cacert": config.store_cacert, "store-cert": config.store_cert, "store-key": config.store_key}
    who = {"store-user": config.store_user, "store-password-file": config.store_password_file}
    if config.store is None:
        return [f"{name}: is of no use without store" for name, given in (files | who).items() if given]
    found = []
    if not config.store.is_encrypted:
        found += [f"{name}: is of no use with etcd+http://" for name, path in files.items() if path]
    for one, other, given in (
        ("store-cert", "store-key", files),
        ("store-key", "store-cert", files),
        ("store-user", "store-password-file", who),
        ("store-password-file", "store-user", who),
    ):
        if given[one] and not given[other]:
            found.append(f"{one}: needs {other} too")
    return found


def _outside(config: Config, bip: IPv4Interface) -> list[str]:
    network, found = bip.network, []
    if config.fixed_cidr and not config.fixed_cidr.subnet_of(network):
        found.append(f'fixed-cidr: "{config.fixed_cidr}" is not inside {network}, the network of bip "{bip}"')
    if config.default_gateway is not None:
        if config.default_gateway not in network:
            found.append(
                f'default-gateway: "{config.default_gateway}" is not inside {network}, the network of bip "{bip}"'
            )
        else:
            found += _gateway(config.default_gateway, network)
    return found


def _outside_v6(config: Config, bip6: IPv6Interface) -> list[str]:
    network, found = bip6.network, []
    if config.fixed_cidr_v6 and not config.fixed_cidr_v6.subnet_of(network):
        found.append(f'fixed-cidr-v6: "{config.fixed_cidr_v6}" is not inside {network}, the network of bip6 "{bip6}"')
    gateway = config.default_gateway_v6
    if gateway is not None and gateway not in network and not gateway.is_link_local:
        found.append(f'default-gateway-v6: "{gateway}" is not inside {network}, the network of bip6 "{bip6}"')
    return found


def _gateway(gateway: IPv4Address, network: IPv4Network) -> list[str]:
    if gateway not in (network.network_address, network.broadcast_address):
        return []
    which = "network" if gateway == network.network_address else "broadcast"
    return [f'default-gateway: "{gateway}" is the {which} address of {network}, not a host\'s']


def _read(path: Path, *, required: bool) -> dict[str, object]:
    """The file's directives; an empty file, as Docker takes it, holds none."""
    try:
        content = _content(path)
    except FileNotFoundError:
        if not required:
            return {}
        raise Invalid(f"the configuration file {path} does not exist; create it, or leave --config-file out") from None
    except OSError as error:
        why = "is a loop of symbolic links" if error.errno == errno.ELOOP else f"cannot be read: {error.strerror}"
        raise Invalid(f"the configuration file {path} {why}") from error
    try:
        text = content.removeprefix(codecs.BOM_UTF8).decode()
        parsed: object = json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant) if text.strip() else {}
    except UnicodeDecodeError as error:
        raise Invalid(f"{path}: not UTF-8 text: byte {error.start} is {content[error.start]:#04x}") from error
    except json.JSONDecodeError as error:
        raise Invalid(f"{path}: line {error.lineno}, column {error.colno}: {error.msg}") from error
    except RecursionError as error:
        raise Invalid(f"{path}: nested too deeply for a configuration") from error
    except ValueError as error:  # an integer of more than 4,300 digits, see sys.set_int_max_str_digits
        raise Invalid(f"{path}: {error}") from error
    except Invalid as error:
        raise Invalid(f"{path}: {error.message}") from error
    if not isinstance(parsed, dict):
        raise Invalid(f'{path}: holds {quote(parsed)}; it must hold one object, such as {{"mtu": 1400}}')
    return parsed


def _content(path: Path) -> bytes:
    # O_NONBLOCK: opening a FIFO must not wait for a writer. Links are followed: /etc may be a farm of them.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        is_dev_null = stat.S_ISCHR(status.st_mode) and status.st_rdev == os.makedev(1, 3)
        if not stat.S_ISREG(status.st_mode) and not is_dev_null:
            raise Invalid(f"the configuration file {path} is not a regular file")
        content = file.read(FILE_LIMIT + 1)
    if len(content) > FILE_LIMIT:
        raise Invalid(f"the configuration file {path} is larger than {FILE_LIMIT} bytes; is it the right one?")
    return content


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """JSON allows a key twice and keeps the last: in a configuration that hides a mistake."""
    keys = [key for key, _ in pairs]
    twice = sorted({key for key in keys if keys.count(key) > 1}) if len(set(keys)) < len(keys) else []
    if twice:
        raise Invalid(f"{', '.join(twice)}: stands more than once; keep one")
    return dict(pairs)


def _no_constant(name: str) -> NoReturn:
    raise Invalid(f"{name} is not JSON")
