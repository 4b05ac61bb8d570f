"""/_ping, /version, /info, /events, and netengine's own /netengine/… routes."""

from __future__ import annotations

import os
import platform
import socket
from contextlib import aclosing
from typing import Any

import msgspec

import netengine
from netengine.api import swarm_wire
from netengine.api.http import (
    API_VERSION,
    MIN_API_VERSION,
    engine_of,
    filters,
    machine,
    moment,
    reply,
    text_of,
    version_of,
)
from netengine.drivers import DRIVERS
from netengine.engine import Engine
from netengine.engine.checkup import Diagnosis
from netengine.engine.core import now
from netengine.engine.events import Event
from netengine.engine.sandbox import needs_names
from netengine.errors import Conflict, Invalid
from netengine.http import Answer, Request, Response
from netengine.ipam import DEFAULT_POOLS
from netengine.observe.doctor import Finding
from netengine.observe.explain import explain

_PING_HEADERS = {
    "Builder-Version": "2",
    "Cache-Control": "no-cache, no-store, must-revalidate",
    "Pragma": "no-cache",
}
_EVENT_FILTERS = (
    "config", "container", "daemon", "event", "image", "label", "network", "node", "plugin", "scope", "secret", "service",
    "type", "volume",
)  # fmt: skip


async def ping(request: Request) -> Response:
    swarm = engine_of(request).swarm
    role = ("/manager" if swarm.is_manager else "/worker") if swarm.state == "active" else ""
    headers = _PING_HEADERS | {"Content-Type": "text/plain; charset=utf-8", "Swarm": swarm.state + role}
    if request.method == "HEAD":
        return Response(200, b"", headers)
    return Response(200, b"OK", headers)


async def version(request: Request) -> Response:
    release = platform.release()
    details = {
        "ApiVersion": text_of(API_VERSION),
        "Arch": machine(),
        "KernelVersion": release,
        "MinAPIVersion": text_of(MIN_API_VERSION),
        "Os": "linux",
    }
    return reply(
        {
            "Platform": {"Name": "netengine"},
            "Components": [{"Name": "Engine", "Version": netengine.__version__, "Details": details}],
            "Version": netengine.__version__,
            **details,
            "GitCommit": "",
            "GoVersion": "",
            "BuildTime": "",
        }
    )


async def info(request: Request) -> Response:
    engine = engine_of(request)
    containers = list(engine.state.containers.values())
    swarm = engine.swarm.host()
    states = [c.state.status for c in containers]
    pools = engine.config.default_address_pools or DEFAULT_POOLS
    return reply(
        {
            "ID": engine.identity,
            "Name": socket.gethostname(),
            "ServerVersion": netengine.__version__,
            "Containers": len(containers),
            "ContainersRunning": states.count("running"),
            "ContainersPaused": states.count("paused"),
            "ContainersStopped": len(states) - states.count("running") - states.count("paused"),
            "Images": len(engine.images.list()),
            "Driver": "overlayfs",
            "DriverStatus": [],
            "Plugins": {"Volume": [], "Network": sorted(DRIVERS), "Authorization": None, "Log": ["json-file"]},
            "MemoryLimit": True,
            "SwapLimit": False,
            "PidsLimit": True,
            "IPv4Forwarding": True,
            "Debug": engine.config.log_level == "debug",
            "NFd": len(os.listdir("/proc/self/fd")),
            "NGoroutines": 0,
            "NEventsListener": 0,
            "SystemTime": now(),
            "LoggingDriver": "json-file",
            "CgroupDriver": "cgroupfs",
            "CgroupVersion": "2" if os.path.exists("/sys/fs/cgroup/cgroup.controllers") else "1",
            "KernelVersion": platform.release(),
            "OperatingSystem": _operating_system(),
            "OSType": "linux",
            "OSVersion": "",
            "Architecture": platform.machine(),
            "NCPU": os.cpu_count() or 1,
            "MemTotal": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "IndexServerAddress": "",
            "RegistryConfig": None,
            "GenericResources": None,
            "DockerRootDir": str(engine.config.data_root),
            "HttpProxy": "",
            "HttpsProxy": "",
            "NoProxy": "",
            "Labels": list(engine.config.labels),
            "ExperimentalBuild": False,
            "Runtimes": {"runc": {"path": "runc"}},
            "DefaultRuntime": "runc",
            "Swarm": swarm_wire.info(swarm),
            "LiveRestoreEnabled": True,
            "Isolation": "",
            "InitBinary": "",
            "SecurityOptions": ["name=seccomp,profile=builtin"],
            "DefaultAddressPools": [{"Base": str(p.base), "Size": p.size} for p in pools],
            "FirewallBackend": {"Driver": "nftables", "Info": [["Table", "ip netengine"]]},
            "Warnings": list(swarm.warnings),
        }
    )


def _operating_system() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    except OSError:
        return "Linux"


# -- events -----------------------------------------------------------------------------------------------------------


async def events(request: Request) -> Answer:
    engine = engine_of(request)
    wanted = filters(request, _EVENT_FILTERS)
    legacy = version_of(request) < (1, 52)
    since, until = moment(request, "since"), moment(request, "until")
    response = request.stream({"Content-Type": "application/json" if legacy else "application/jsonl"})
    async with aclosing(engine.events.listen(since, until)) as stream:  # type: ignore[type-var]  # an async generator
        async for event in stream:
            if _matches(event, wanted):
                await response.write(msgspec.json.encode(event.as_wire(legacy)) + b"\n")
    return response


async def audit(request: Request) -> Answer:
    """GET /netengine/audit: who asked for which change, past and live, in the form of events."""
    engine = engine_of(request)
    since, until = moment(request, "since"), moment(request, "until")
    response = request.stream({"Content-Type": "application/jsonl"})
    async with aclosing(engine.audit.listen(since, until)) as stream:  # type: ignore[type-var]  # an async generator
        async for event in stream:
            await response.write(msgspec.json.encode(event.as_wire(False)) + b"\n")
    return response


def _matches(event: Event, wanted: dict[str, list[str]]) -> bool:
    for name, values in wanted.items():
        match name:
            case "type":
                ok = event.kind in values
            case "event":
                ok = any(event.action == v or event.action.startswith(f"{v}:") for v in values)
            case "label":
                ok = all(
                    event.attributes.get(key) == value if sep else key in event.attributes
                    for key, sep, value in (v.partition("=") for v in values)
                )
            case "scope":
                ok = event.scope in values
            case "container" | "network" | "image" | "node":
                ok = event.kind == name and any(
                    event.id.startswith(v) or event.attributes.get("name") == v or event.attributes.get("image") == v
                    for v in values
                )
                if name == "container" and event.kind == "network":
                    ok = any(event.attributes.get("container", "").startswith(v) for v in values)
            case _:
                ok = event.kind == name
        if not ok:
            return False
    return True


async def dns_stats(request: Request) -> Response:
    """GET /netengine/dns/stats: the name server's counters, by sandbox."""
    engine = engine_of(request)
    found = await engine.names.stats()
    by_sandbox = {c.sandbox_id: c.name for c in engine.state.containers.values() if c.sandbox_id}
    rows = [
        {"Container": by_sandbox.get(identity, ""), "Sandbox": identity, **msgspec.to_builtins(counters)}
        for identity, counters in found.sandboxes.items()
    ]
    return reply({"Sandboxes": rows, "MemoryKiB": found.memory_kib})


async def dns_query(request: Request) -> Response:
    """GET /netengine/dns/query?name=NAME&from=CONTAINER&type=A: what the container is answered, and why."""
    engine = engine_of(request)
    name, kind = request.query.get("name", ""), request.query.get("type", "") or "A"
    if not name:
        raise Invalid("give the name to look up as name")
    container = engine.state.container(request.query.get("from", ""))
    if not needs_names(engine.state, container):
        raise Conflict(
            f"container {container.name} has no name server: it is not running, or on no user-defined network"
        )
    found = await engine.names.explain(container, name, kind)
    return reply({"Rcode": found.rcode, "Records": found.records, "Lines": found.lines})


# -- netengine's own --------------------------------------------------------------------------------------------------


async def explain_reference(request: Request) -> Response:
    """GET /netengine/explain?ref=NAME: the kernel resources behind a network or container, as commands."""
    engine: Engine = engine_of(request)
    reference = request.query.get("ref", "")
    if not reference:
        raise Invalid("give the name or id of a network or container as ref")
    kind, thing, resources = engine.resources_of(reference)
    steps: list[dict[str, Any]] = [{"Command": s.command, "Why": s.why} for s in explain(resources)]
    return reply({"Kind": kind, "Name": thing.name, "Id": thing.id, "Steps": steps})


async def doctor(request: Request) -> Response:
    """GET /netengine/doctor: what in the kernel or the store is not as it should be."""
    return _diagnosis(await engine_of(request).doctor(fix=False))


async def doctor_fix(request: Request) -> Response:
    """POST /netengine/doctor: the same, mended."""
    return _diagnosis(await engine_of(request).doctor(fix=True))


def _diagnosis(found: Diagnosis) -> Response:
    def rows(findings: list[Finding]) -> list[dict[str, Any]]:
        return [{"State": f.state, "What": f.what, "Commands": f.commands} for f in findings]

    host = [{"Level": f.level, "What": f.what, "Remedy": f.remedy, "Without": f.without} for f in found.host]
    return reply(
        {
            "Healthy": found.healthy,
            "Differences": rows(found.findings),
            "Mended": rows(found.mended),
            "Problems": found.problems,
            "Host": host,
        }
    )
