"""From the model to what the Docker Engine API shows. Pure; field names and forms are those of API v1.51."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import msgspec

from netengine.drivers.addresses import MTU
from netengine.drivers.overlay import VNIS
from netengine.engine import Engine, links
from netengine.engine.core import moment_of
from netengine.engine.files import hostname_of
from netengine.engine.spec import words
from netengine.engine.surroundings import FALLBACK_MTU
from netengine.model import Attachment, Container, Endpoint, Network
from netengine.runtime import Image

Json = dict[str, Any]
NEVER = "0001-01-01T00:00:00Z"
MOST = 2**64 - 1
"""The largest number that Docker's clients read; an IPv6 subnet may have more addresses."""


# -- networks ---------------------------------------------------------------------------------------------------------


def network(engine: Engine, network: Network, *, detail: bool, verbose: bool = False) -> Json:
    """A network for the list, or for inspect (`detail`: with its containers; `verbose`: with those of other hosts)."""
    out: Json = {
        "Name": network.name,
        "Id": network.id,
        "Created": network.created,
        "Scope": network.scope,
        "Driver": network.driver,
        "EnableIPv4": network.enable_ipv4,
        "EnableIPv6": network.enable_ipv6,
        "IPAM": {
            "Driver": network.ipam_driver,
            "Options": network.ipam_options or None,
            "Config": [_subnet(s.subnet, s.ip_range, s.gateway, s.aux) for s in network.template or network.subnets],
        },
        "Internal": network.internal,
        "Attachable": network.attachable,
        "Ingress": network.ingress,
        "ConfigFrom": {"Network": network.config_from},
        "ConfigOnly": network.config_only,
        "Containers": {},
        "Options": _options(network),
        "Labels": network.labels,
    }
    if detail:
        out["Containers"] = {c.id: _member(c, e) for c, e in engine.networks.endpoints(network)}
        out["Status"] = {
            "IPAM": {
                "Subnets": {
                    subnet: {"IPsInUse": min(used, MOST), "DynamicIPsAvailable": min(left, MOST)}
                    for subnet, used, left in engine.pool_figures(network)
                }
            }
        }
    if network.overlay is not None:
        out["Options"] = network.options | {VNIS: str(network.overlay.vni)}
        out |= engine.overlay.view(network, verbose=verbose) if detail else {}
    return out


def _options(network: Network) -> dict[str, str]:
    """What was asked for, and the MTU that a network got from the host's uplink where that is not the usual one."""
    bridge = network.bridge
    if bridge is None or bridge.mtu == FALLBACK_MTU or {"mtu", MTU} & network.options.keys():
        return network.options
    return network.options | {MTU: str(bridge.mtu)}


def _subnet(subnet: str, ip_range: str, gateway: str, aux: dict[str, str]) -> Json:
    out: Json = {"Subnet": subnet}
    if ip_range:
        out["IPRange"] = ip_range
    if gateway:
        out["Gateway"] = gateway
    if aux:
        out["AuxiliaryAddresses"] = aux
    return out


def _member(container: Container, endpoint: Endpoint) -> Json:
    return {
        "Name": container.name,
        "EndpointID": endpoint.id,
        "MacAddress": endpoint.mac,
        "IPv4Address": endpoint.address,
        "IPv6Address": endpoint.address6,
    }


# -- containers -------------------------------------------------------------------------------------------------------


def endpoint_settings(engine: Engine, container: Container, wish: Attachment, version: tuple[int, int]) -> Json:
    """EndpointSettings: what was asked for, and what the live endpoint got."""
    live = container.endpoints.get(wish.network_id)
    network = engine.state.networks[wish.network_id]
    aliases = list(wish.aliases)
    names = []
    if not network.predefined:
        names = [container.name, *aliases, container.id[:12]]
        if hostname_of(container) not in names:
            names.append(hostname_of(container))
        if version < (1, 45):
            aliases.append(container.id[:12])
    address, _, length = (live.address if live else "").partition("/")
    address6, _, length6 = (live.address6 if live else "").partition("/")
    return {
        "IPAMConfig": _ipam_wish(wish),
        "Links": None if network.predefined else wish.links or None,
        "Aliases": aliases or None,
        "MacAddress": live.mac if live else wish.mac,
        "DriverOpts": wish.driver_opts or None,
        "GwPriority": wish.gw_priority,
        "NetworkID": wish.network_id,
        "EndpointID": live.id if live else "",
        "Gateway": live.gateway if live else "",
        "IPAddress": address,
        "IPPrefixLen": int(length or 0),
        "IPv6Gateway": live.gateway6 if live else "",
        "GlobalIPv6Address": address6,
        "GlobalIPv6PrefixLen": int(length6 or 0),
        "DNSNames": names or None,
    }


def _ipam_wish(wish: Attachment) -> Json | None:
    asked = {"IPv4Address": wish.ip, "IPv6Address": wish.ip6, "LinkLocalIPs": wish.link_local_ips}
    return {name: value for name, value in asked.items() if value} or None


def networks_of(engine: Engine, container: Container, version: tuple[int, int]) -> Json:
    return {
        engine.state.networks[network_id].name: endpoint_settings(engine, container, wish, version)
        for network_id, wish in container.attachments.items()
        if network_id in engine.state.networks
    }


def port_map(container: Container) -> Json:
    """NetworkSettings.Ports: bindings by "80/tcp", null for a port that is only exposed."""
    if not container.running:
        return {}
    out: dict[str, list[Json] | None] = {}
    for spec in container.config.exposed_ports or {}:
        out[spec if "/" in spec else f"{spec}/tcp"] = None
    for p in container.ports:
        key = f"{p.container_port}/{p.protocol}"
        bindings = out.get(key) or []
        out[key] = [*bindings, {"HostIp": p.host_ip, "HostPort": str(p.host_port or "")}]
    return out


def container(engine: Engine, container: Container, version: tuple[int, int]) -> Json:
    """GET /containers/{id}/json."""
    config = msgspec.to_builtins(container.config)
    config |= {"Hostname": hostname_of(container), "Cmd": words(container.config.cmd), "Volumes": None, "OnBuild": None}
    host = msgspec.to_builtins(container.host_config)
    host |= {"Links": links.shown(engine.state, container) or host["Links"]}
    host |= {"LogConfig": {"Type": "json-file", "Config": {}}, "Runtime": "runc", "CgroupnsMode": "private"}
    args = (words(container.config.entrypoint) or []) + (words(container.config.cmd) or [])
    files = engine.files_of(container)
    return {
        "Id": container.id,
        "Created": container.created,
        "Path": args[0] if args else "",
        "Args": args[1:],
        "State": state(container),
        "Image": container.image_id,
        "ResolvConfPath": files["/etc/resolv.conf"],
        "HostnamePath": files["/etc/hostname"],
        "HostsPath": files["/etc/hosts"],
        "LogPath": "",
        "Name": f"/{container.name}",
        "RestartCount": container.state.restart_count,
        "Driver": "overlayfs",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": engine.execs.of(container) or None,
        "HostConfig": host,
        "GraphDriver": {"Name": "overlayfs", "Data": None},
        "Mounts": mounts(container),
        "Config": config,
        "NetworkSettings": network_settings(engine, container, version),
    }


def state(container: Container) -> Json:
    s = container.state
    return {
        "Status": s.status,
        "Running": container.running,
        "Paused": s.status == "paused",
        "Restarting": False,
        "OOMKilled": s.oom_killed,
        "Dead": False,
        "Pid": s.pid,
        "ExitCode": s.exit_code,
        "Error": s.error,
        "StartedAt": s.started_at or NEVER,
        "FinishedAt": s.finished_at or NEVER,
    }


def network_settings(engine: Engine, container: Container, version: tuple[int, int]) -> Json:
    default = engine.state.network_named("bridge")
    live = container.endpoints.get(default.id) if default else None
    address, _, length = (live.address if live else "").partition("/")
    address6, _, length6 = (live.address6 if live else "").partition("/")
    return {
        "Bridge": "",
        "SandboxID": container.sandbox_id,
        "SandboxKey": engine.sandbox_path(container),
        "Ports": port_map(container),
        "HairpinMode": False,
        "LinkLocalIPv6Address": "",
        "LinkLocalIPv6PrefixLen": 0,
        "SecondaryIPAddresses": None,
        "SecondaryIPv6Addresses": None,
        # Of the default bridge alone; clients of API 1.51 and older still read them.
        "EndpointID": live.id if live else "",
        "Gateway": live.gateway if live else "",
        "GlobalIPv6Address": address6,
        "GlobalIPv6PrefixLen": int(length6 or 0),
        "IPAddress": address,
        "IPPrefixLen": int(length or 0),
        "IPv6Gateway": live.gateway6 if live else "",
        "MacAddress": live.mac if live else "",
        "Networks": networks_of(engine, container, version),
    }


def mounts(container: Container) -> list[Json]:
    out = []
    for text in container.host_config.binds or []:
        source, _, rest = text.partition(":")
        target, _, mode = rest.partition(":")
        out.append(_mount(source, target, mode, "ro" not in mode.split(",")))
    for mount in container.host_config.mounts or []:
        if mount.get("Type") == "bind":
            out.append(_mount(str(mount.get("Source")), str(mount.get("Target")), "", not mount.get("ReadOnly")))
    return out


def _mount(source: str, target: str, mode: str, writable: bool) -> Json:
    return {
        "Type": "bind",
        "Source": source,
        "Destination": target,
        "Mode": mode,
        "RW": writable,
        "Propagation": "rprivate",
    }


def summaries(engine: Engine, containers: Iterable[Container], version: tuple[int, int]) -> list[Json]:
    """GET /containers/json."""
    linkers = links.all_linkers(engine.state)
    return [
        _summary(engine, c, [f"/{o.name}/{alias}" for o, alias in linkers.get(c.id, ())], version) for c in containers
    ]


def _summary(engine: Engine, container: Container, aliases: list[str], version: tuple[int, int]) -> Json:
    args = (words(container.config.entrypoint) or []) + (words(container.config.cmd) or [])
    return {
        "Id": container.id,
        "Names": [f"/{container.name}", *aliases],
        "Image": container.image,
        "ImageID": container.image_id,
        "Command": shlex.join(args),
        "Created": int(moment_of(container.created).timestamp()),
        "Ports": ports(container),
        "Labels": container.config.labels or {},
        "State": container.state.status,
        "Status": status(container),
        "HostConfig": {"NetworkMode": container.host_config.network_mode},
        "NetworkSettings": {"Networks": networks_of(engine, container, version)},
        "Mounts": mounts(container),
    }


def ports(container: Container) -> list[Json]:
    if not container.running:
        return []
    published: list[Json] = [
        {"IP": p.host_ip, "PrivatePort": p.container_port, "PublicPort": p.host_port, "Type": p.protocol}
        for p in container.ports
        if p.host_port
    ]
    bound = {(p.container_port, p.protocol) for p in container.ports if p.host_port}
    for port in sorted({(p.container_port, p.protocol) for p in container.ports} - bound):
        # Reached by the container's own address: the network is routed.
        published.append({"PrivatePort": port[0], "Type": port[1]})
        bound.add(port)
    for spec in container.config.exposed_ports or {}:
        number, _, protocol = spec.partition("/")
        if number.isdigit() and (int(number), protocol or "tcp") not in bound:
            published.append({"PrivatePort": int(number), "Type": protocol or "tcp"})
    return published


def _ago(text: str) -> str:
    """How long ago, in Docker's words."""
    seconds = int((datetime.now(UTC) - moment_of(text)).total_seconds())
    if seconds < 1:
        return "Less than a second"
    if seconds == 1:
        return "1 second"
    if seconds < 60:
        return f"{seconds} seconds"
    minutes = seconds // 60
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    hours = round(seconds / 3600)
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    if hours < 24 * 14:
        return f"{hours // 24} days"
    if hours < 24 * 60:
        return f"{hours // 24 // 7} weeks"
    if hours < 24 * 365 * 2:
        return f"{hours // 24 // 30} months"
    return f"{hours // 24 // 365} years"


def status(container: Container) -> str:
    s = container.state
    if s.status == "running":
        return f"Up {_ago(s.started_at)}"
    if s.status == "paused":
        return f"Up {_ago(s.started_at)} (Paused)"
    if s.status == "exited":
        return f"Exited ({s.exit_code}) {_ago(s.finished_at)} ago" if s.finished_at else f"Exited ({s.exit_code})"
    return "Created"


# -- images -----------------------------------------------------------------------------------------------------------


def image_summary(image: Image, containers: int) -> Json:
    return {
        "Id": image.id,
        "ParentId": "",
        "RepoTags": list(image.repo_tags),
        "RepoDigests": [],
        "Created": int(image.created.timestamp()),
        "Size": image.size,
        "SharedSize": -1,
        "Labels": image.config.labels or None,
        "Containers": containers,
    }


def image(image: Image) -> Json:
    config: Json = msgspec.to_builtins(image.config)
    config.setdefault("Env", [])
    config.setdefault("Cmd", None)
    config.setdefault("Entrypoint", None)
    config.setdefault("Labels", None)
    return {
        "Id": image.id,
        "RepoTags": list(image.repo_tags),
        "RepoDigests": [],
        "Parent": "",
        "Comment": image.comment,
        "Created": image.created.isoformat().replace("+00:00", "Z"),
        "Config": config,
        "Architecture": "",
        "Os": "linux",
        "Size": image.size,
        "GraphDriver": {"Name": "overlayfs", "Data": None},
        "RootFS": {"Type": "layers", "Layers": [image.id]},
        "Metadata": {"LastTagTime": NEVER},
    }
