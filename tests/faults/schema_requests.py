"""Requests made from the daemon's own description of its API (GET /netengine/openapi.json), as hypothesis strategies.

The shape of a body comes from its schema. What stands in its fields is mostly of the kind that the field is for, so that a good
part of the requests gets past the first check, and otherwise anything.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from hypothesis import strategies as st

NETWORKS = ("net-a", "net-b", "bridge", "host", "none")
CONTAINERS = ("one", "two", "three", "gone")
IMAGES = ("sandbox", "sandbox", "host", "made:1", "nosuch")

HOSTILE = (
    "", " ", "\0", "\n", "..", "../../etc/passwd", "/", "a" * 300, "é" * 130, "💥", "%00", "%2e%2e", "$(reboot)", "`id`",
    "; drop", "br0} ; flush ruleset #", '"', "'", "\\", "-1", "0", "1e9", "9" * 30, "0x10", "NaN", "null", "[]", "{}",
    "\u202e", "\ud7ff", "²", "²s", "９",
)  # fmt: skip
ADDRESSES = (
    "10.99.0.5", "10.99.0.0", "10.99.0.255", "0.0.0.0", "255.255.255.255", "224.0.0.1", "127.0.0.1", "192.0.2.1",
    "10.99.0.1/24", "::1", "fd00::5", "fe80::1%eth0", "fd00::1%x }; flush ruleset #", "010.0.0.1", "1.2.3", "1.2.3.4.5",
)  # fmt: skip
PREFIXES = (
    "10.99.0.0/24", "10.98.0.0/29", "10.97.0.0/31", "10.96.0.1/32", "10.99.0.7/24", "0.0.0.0/0", "0.0.0.0/24", "127.0.0.0/8",
    "224.0.0.0/4", "192.0.2.0/24", "10.0.0.0/-1", "10.0.0.0/33", "fd00::/64", "::/0", "10.99.0.0",
)  # fmt: skip
MACS = (
    "02:42:ac:11:00:02",
    "00:00:00:00:00:00",
    "ff:ff:ff:ff:ff:ff",
    "01:00:5e:00:00:01",
    "02-42-ac-11-00-02",
    "0242.ac11.0002",
    "2:4",
)
PORTS = (
    "80/tcp",
    "80",
    "53/udp",
    "99/sctp",
    "0/tcp",
    "65535/tcp",
    "65536/tcp",
    "-1",
    "80/icmp",
    "80-90/tcp",
    "80/tcp/udp",
    "1e1",
)
OPTIONS = (
    "com.docker.network.bridge.name", "com.docker.network.bridge.enable_icc",
    "com.docker.network.bridge.enable_ip_masquerade", "com.docker.network.bridge.host_binding_ipv4",
    "com.docker.network.driver.mtu", "com.docker.network.ipam.serial", "mtu", "parent",
    "com.docker.network.bridge.gateway_mode_ipv4", "vxlanid", "macvlan_mode", "anti_spoof",
)  # fmt: skip
SYSCTLS = (
    "net.ipv4.ip_forward",
    "net.core.somaxconn",
    "net.ipv4.conf.all.rp_filter",
    "net...",
    "net.ipv4/../../kernel.x",
    "kernel.shmmax",
)
COMMANDS = (["true"], ["sleep", "60"], ["false"], [], [""], ["/nonexistent"], ["true", "\0"])
"""Commands are chosen from these alone: what runs, runs on the machine's files."""
BINDS = (
    "/run/fuzz-source:/mnt",
    "/run/fuzz-source:/mnt:ro",
    "relative:/mnt",
    "/run/fuzz-source",
    "/tmp/../run/fuzz-source:/etc/x",
    ":",
    "::",
)

_FITTING: dict[str, tuple[Any, ...]] = {
    "Name": (*NETWORKS, *CONTAINERS), "name": (*CONTAINERS, *NETWORKS), "Container": CONTAINERS, "from": CONTAINERS, "id":
    (*CONTAINERS, *NETWORKS), "Network": NETWORKS, "ref": (*CONTAINERS, *NETWORKS), "Image": IMAGES, "Driver": ("", "bridge",
    "default", "host", "null", "macvlan", "overlay"), "Scope": ("", "local", "swarm"), "Subnet": PREFIXES, "IPRange":
    PREFIXES, "Gateway": ADDRESSES, "IPv4Address": ADDRESSES, "IPv6Address": ADDRESSES, "LinkLocalIPs": ADDRESSES,
    "MacAddress": MACS, "HostIp": ADDRESSES, "HostPort": ("", "0", "18080", "18080-18082", "90-80"), "NetworkMode": ("",
    "default", *NETWORKS, "container:one", "container:two", "container:three", "container:", "net-a:x"), "Dns": ADDRESSES,
    "ExtraHosts": ("db:10.0.0.5", "db:host-gateway", "db=1.2.3.4", "db"), "Aliases": ("web", "db", "a.b", "*"), "Links":
    ("one:x", "two", "x:y:z"), "CapAdd": ("NET_ADMIN", "CAP_NET_RAW", "ALL", "SYS_NOSUCH"), "CapDrop": ("ALL", "NET_RAW",
    "x"), "Env": ("A=1", "PATH=/bin", "=x"), "StopSignal": ("SIGTERM", "9", "SIGRTMIN+3", "SIGNOSUCH"), "signal": ("SIGTERM",
    "KILL", "9", "0", "64", "65", "HUP"), "User": ("0", "nobody", "1:2", "x:y"), "t": ("0", "1"), "h": ("24", "0"), "w":
    ("80", "70000"), "condition": ("not-running", "next-exit", "removed"), "repo": ("made", "x/y", "A"), "tag": ("1",
    "latest"), "fromSrc": ("-", "http://x"), "changes": ("CMD true", "ENV a=b", "RUN x", "EXPOSE 80"), "type": ("A", "AAAA",
    "PTR", "ANY"), "tail": ("all", "0", "5"), "scope": ("local", "swarm"), "until": ("0", "1700000000", "10m",
    "0001-01-01T00:00:00"), "since": ("0", "1"), "ps_args": ("", "aux"), "WorkingDir": ("", "/", "/tmp", "relative"),
    "AdvertiseAddr": ("192.0.2.1", "up0", "", *ADDRESSES[:4]), "ListenAddr": ("", "0.0.0.0:2377", "0.0.0.0:1"),
    "DataPathAddr": ("", "192.0.2.1", "up0"), "DefaultAddrPool": PREFIXES, "Availability": ("active", "drain", "x"), "Role":
    ("worker", "manager"), "JoinToken": (f"SWMTKN-1-{'1' * 50}-{'2' * 25}", "SWMTKN-1-x-y"), "version": ("1", "10", "99"),
    "role": ("worker", "manager"), "Hostname": ("", "box", "a b"), "PidMode": ("", "host", "container:one"), "IpcMode": ("",
    "private", "host"), "UTSMode": ("", "host"), "SecurityOpt": ("no-new-privileges", "seccomp=unconfined", "apparmor=x"),
    "detachKeys": ("ctrl-p,ctrl-q", "ctrl-@,x", "zz"),
}  # fmt: skip
_KEYS: dict[str, tuple[str, ...]] = {
    "Options": OPTIONS, "DriverOpts": OPTIONS, "ExposedPorts": PORTS, "PortBindings": PORTS, "Sysctls": SYSCTLS,
    "EndpointsConfig": NETWORKS, "Tmpfs": ("/run", "/x", "relative"), "Labels": ("a", "b"), "AuxiliaryAddresses": ("r1",
    "r2"),
}  # fmt: skip
_WHOLE: dict[str, st.SearchStrategy[Any]] = {
    "Cmd": st.sampled_from(COMMANDS),
    "Entrypoint": st.sampled_from((None, [], ["env"])),
    "Binds": st.lists(st.sampled_from(BINDS), max_size=2),
    "Mounts": st.just([])
    | st.just([{"Type": "bind", "Source": "/run/fuzz-source", "Target": "/mnt"}, {"Type": "volume"}]),
    "Privileged": st.just(False),
    "CgroupParent": st.just(""),
    # Nobody listens there: a join is refused at once.
    "RemoteAddrs": st.sampled_from(([], ["127.0.0.1:1"], ["127.0.0.1:1", "[::1]:1"], ["a b"], ["127.0.0.1:99999"])),
    "StopTimeout": st.sampled_from((0, 1, None)),
    "Memory": st.sampled_from((0, 1, 64 << 20, -1, 1 << 62)),
    "ShmSize": st.sampled_from((0, 1 << 20, -1)),
}
_ALWAYS = frozenset({"Image", "Name", "Container", "Subnet", "Cmd", "HostConfig", "NetworkMode"})
"""Without these a request seldom gets anywhere."""
_VALUES = ("true", "false", "1400", "68", "1", *ADDRESSES[:4], "fuzz0", *HOSTILE)

anything = st.sampled_from(HOSTILE) | st.text(max_size=12)
_JUNK: st.SearchStrategy[Any] = (
    st.none() | st.booleans() | st.integers() | anything | st.just([]) | st.just({}) | st.just([[None]])
)


@dataclass(frozen=True)
class Call:
    """One request. `raw` is sent as the body when it is not None."""

    method: str
    path: str
    raw: bytes | None
    content_type: str
    streams: bool

    def __repr__(self) -> str:
        return f"{self.method} {self.path} {self.raw!r}"


def _mostly(values: tuple[Any, ...]) -> st.SearchStrategy[Any]:
    """One of the values, or once in eight times anything. (A choice among equal strategies would be taken for one.)"""
    usual = st.sampled_from(values)
    return st.integers(0, 7).flatmap(lambda n: anything if n == 7 else usual)


def _texts(name: str) -> st.SearchStrategy[str]:
    fitting = _FITTING.get(name)
    return anything if fitting is None else _mostly(fitting)


class Strategies:
    """The strategies of one description."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._schemas = document["components"]["schemas"]
        self._document = document

    def value(self, schema: dict[str, Any], name: str = "", depth: int = 0) -> st.SearchStrategy[Any]:
        """What fits the schema; `name` is the property that it is the value of."""
        if name in _WHOLE:
            return _WHOLE[name]
        if reference := schema.get("$ref"):
            return self.value(self._schemas[reference.rpartition("/")[2]], name, depth)
        if choices := schema.get("anyOf"):
            return st.one_of([self.value(choice, name, depth) for choice in choices])
        match schema.get("type"):
            case "object" if "properties" in schema:
                properties = {key: self.value(inner, key, depth + 1) for key, inner in schema["properties"].items()}
                most = st.sets(st.sampled_from(sorted(properties)), max_size=3)
                return most.flatmap(
                    lambda chosen: st.fixed_dictionaries(
                        {k: properties[k] for k in sorted({*chosen, *_ALWAYS & {*properties}})}
                    )
                )
            case "object":
                inner = schema.get("additionalProperties", {})
                keys = (
                    st.sampled_from(_KEYS[name]) | st.sampled_from(_KEYS[name]) | anything
                    if name in _KEYS
                    else anything
                )
                values = self.value(inner, "", depth + 1) if inner.get("type") != "string" else st.sampled_from(_VALUES)
                return st.dictionaries(keys, values, max_size=3)
            case "array":
                return st.lists(self.value(schema.get("items", {}), name, depth + 1), max_size=3)
            case "integer":
                return st.sampled_from((0, 1, -1, 2**31, 2**63, -(2**63))) | st.integers(-5, 70000)
            case "boolean":
                return st.booleans()
            case "string":
                return _texts(name)
            case "null":
                return st.none()
        return _JUNK

    def _body(self, schema: dict[str, Any]) -> st.SearchStrategy[bytes]:
        good = self.value(schema)

        def spoil(pair: tuple[dict[str, Any], Any]) -> dict[str, Any]:
            body, (key, junk) = pair[0], pair[1]
            return {**body, key: junk}

        names = st.sampled_from(sorted(self._named(schema)))
        spoiled = st.tuples(good, st.tuples(names.filter(lambda n: n not in _WHOLE), _JUNK)).map(spoil)
        encoded = (
            st.integers(0, 5).flatmap(lambda n: spoiled if n == 5 else good).map(lambda body: json.dumps(body).encode())
        )
        broken = st.sampled_from(
            (b"", b"{", b"[]", b"null", b'{"a":' * 5000, b"\xff\xfe", b"{}{}", b"9" * 5000, b'{"Name": NaN}')
        )
        return st.integers(0, 15).flatmap(lambda n: broken if n == 0 else encoded)

    def _named(self, schema: dict[str, Any]) -> dict[str, Any]:
        if reference := schema.get("$ref"):
            return self._named(self._schemas[reference.rpartition("/")[2]])
        return dict(schema["properties"])

    def call(self, method: str, path: str) -> st.SearchStrategy[Call]:
        """A request to this route."""
        route = self._document["paths"][path][method.lower()]
        content = route.get("requestBody", {}).get("content", {})
        in_path, query = {}, {}
        for parameter in route["parameters"]:
            name = parameter["name"]
            if parameter["in"] == "path":
                in_path[name] = _mostly(_things(path))
            elif "content" in parameter:
                known = sorted(parameter["content"]["application/json"]["schema"]["properties"])
                one = st.dictionaries(
                    st.sampled_from(known) | anything, st.lists(_texts("id"), max_size=2) | _JUNK, max_size=2
                )
                query[name] = one.map(json.dumps) | anything
            else:
                query[name] = _texts(name)
        chosen = st.fixed_dictionaries({}, optional=query)
        body: st.SearchStrategy[bytes | None] = st.none()
        kind = "application/json"
        if "application/json" in content:
            body = self._body(content["application/json"]["schema"])
        elif content:
            body, kind = st.binary(max_size=600), "application/x-tar"

        def make(parts: tuple[dict[str, str], dict[str, str], bytes | None]) -> Call:
            words, asked, raw = parts
            target = path
            for name, value in words.items():
                target = target.replace("{" + name + "}", quote(value.encode("utf-8", "replace"), safe=""))
            if asked:
                target += "?" + urlencode({k: v.encode("utf-8", "replace") for k, v in asked.items()})
            return Call(method, target, raw, kind, route["x-streams"])

        return st.tuples(st.fixed_dictionaries(in_path), chosen, body).map(make)

    def routes(self) -> list[tuple[str, str]]:
        return [(method.upper(), path) for path, methods in self._document["paths"].items() for method in methods]


def _things(path: str) -> tuple[str, ...]:
    return NETWORKS if path.startswith("/networks") else IMAGES if path.startswith("/images") else CONTAINERS
