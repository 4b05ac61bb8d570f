"""/containers: decode, call the engine, encode."""

from __future__ import annotations

import re
from contextlib import aclosing
from datetime import UTC, datetime

from netengine.api import compatibility, stdcopy, unsupported, wire
from netengine.api.http import (
    body_object,
    boolean,
    decode,
    engine_of,
    filters,
    flag,
    matches_labels,
    moment,
    number,
    reply,
    version_of,
)
from netengine.api.selection import Pruning, matches
from netengine.api.streams import MULTIPLEXED, RAW, HijackedConnection, hijack, parse_detach_keys, pump
from netengine.engine import Engine
from netengine.engine.ports import parse_port
from netengine.engine.requests import ContainerRequest
from netengine.errors import Invalid, NetengineError
from netengine.http import Answer, Request, Response
from netengine.model import Container

_FILTERS = (
    "ancestor", "before", "expose", "exited", "health", "id", "is-task", "label", "name", "network", "publish", "since",
    "status", "volume",
)  # fmt: skip
_STATUSES = ("created", "running", "paused", "restarting", "removing", "exited", "dead")
_PRUNE_FILTERS = ("until", "label", "label!")


def _container(request: Request) -> Container:
    return engine_of(request).state.container(request.variables["id"])


# -- list and inspect -------------------------------------------------------------------------------------------------


async def list_containers(request: Request) -> Response:
    engine = engine_of(request)
    wanted = filters(request, _FILTERS)
    limit = number(request, "limit") or 0
    everything = flag(request, "all") or limit > 0 or bool(wanted.keys() & {"status", "exited"})
    newest_first = sorted(engine.state.containers.values(), key=lambda c: c.created, reverse=True)
    found = [c for c in newest_first if (everything or c.running) and _matches(engine, c, wanted)]
    version = version_of(request)
    return reply(wire.summaries(engine, found[:limit] if limit > 0 else found, version))


def _matches(engine: Engine, container: Container, wanted: dict[str, list[str]]) -> bool:
    return all(_matches_one(engine, container, name, values) for name, values in wanted.items())


def _matches_one(engine: Engine, c: Container, name: str, values: list[str]) -> bool:
    match name:
        case "id":
            return any(c.id.startswith(v) for v in values)
        case "name":
            return matches(values, c.name) or matches(values, f"/{c.name}")
        case "status":
            for value in values:
                if value not in _STATUSES:
                    raise Invalid(f"invalid filter 'status={value}'")
            return c.state.status in values
        case "label":
            return matches_labels(c.config.labels or {}, values)
        case "network":
            return any(engine.state.network(v).id in c.attachments for v in values)
        case "exited":
            return c.state.status == "exited" and str(c.state.exit_code) in values
        case "ancestor":
            return any(v in (c.image, c.image_id, c.image.removesuffix(":latest")) for v in values)
        case "publish":
            return any((p.container_port, p.protocol) == parse_port(v) for p in c.ports for v in values)
        case "expose":
            exposed = {parse_port(spec) for spec in c.config.exposed_ports or {}}
            return any(parse_port(v) in exposed for v in values)
        case "before":
            return c.created < min(engine.state.container(v).created for v in values)
        case "since":
            return c.created > max(engine.state.container(v).created for v in values)
        case "volume":
            return any(v in (m["Source"], m["Destination"]) for m in wire.mounts(c) for v in values)
        case "is-task":
            return not boolean(values, "is-task")
        case _:
            return values == ["none"]


async def inspect(request: Request) -> Response:
    return reply(wire.container(engine_of(request), _container(request), version_of(request)))


async def top(request: Request) -> Response:
    titles, rows = await engine_of(request).containers.top(request.variables["id"], request.query.get("ps_args", ""))
    return reply({"Titles": titles, "Processes": rows})


# -- create and life --------------------------------------------------------------------------------------------------


async def create(request: Request) -> Response:
    body = await body_object(request)
    warnings = unsupported.check(body)
    asked = decode(body, ContainerRequest)
    warnings += compatibility.honour(asked, version_of(request))
    container, more = await engine_of(request).containers.create(request.query.get("name", ""), asked)
    return reply({"Id": container.id, "Warnings": warnings + more}, 201)


async def start(request: Request) -> Response:
    await engine_of(request).containers.start(request.variables["id"])
    return Response(204)


async def stop(request: Request) -> Response:
    await engine_of(request).containers.stop(request.variables["id"], number(request, "t"))
    return Response(204)


async def restart(request: Request) -> Response:
    await engine_of(request).containers.restart(request.variables["id"], number(request, "t"))
    return Response(204)


async def kill(request: Request) -> Response:
    await engine_of(request).containers.kill(request.variables["id"], request.query.get("signal", ""))
    return Response(204)


async def pause(request: Request) -> Response:
    await engine_of(request).containers.pause(request.variables["id"], True)
    return Response(204)


async def unpause(request: Request) -> Response:
    await engine_of(request).containers.pause(request.variables["id"], False)
    return Response(204)


async def rename(request: Request) -> Response:
    await engine_of(request).containers.rename(request.variables["id"], request.query.get("name", ""))
    return Response(204)


async def remove(request: Request) -> Response:
    if flag(request, "link"):
        raise Invalid("links are not supported by this version of netengine; nothing was removed")
    await engine_of(request).containers.remove(request.variables["id"], flag(request, "force"))
    return Response(204)


async def prune(request: Request) -> Response:
    engine = engine_of(request)
    wanted = Pruning.of(filters(request, _PRUNE_FILTERS))
    removed = []
    for container in list(engine.state.containers.values()):
        if not container.running and wanted.takes(container.created, container.config.labels or {}):
            await engine.containers.remove(container.id, False)
            removed.append(container.id)
    engine.events.publish("container", "prune", "", reclaimed="0")
    return reply({"ContainersDeleted": removed or None, "SpaceReclaimed": 0})


async def wait(request: Request) -> Answer:
    condition = request.query.get("condition", "") or "not-running"
    if condition not in ("not-running", "next-exit", "removed"):
        raise Invalid(f"invalid condition: {condition[:40]!r}")
    future = engine_of(request).containers.lifecycle.when(_container(request), condition)
    # The client starts the container only after it has seen the headers.
    response = request.stream({"Content-Type": "application/json"})
    try:
        code = await future
    finally:
        future.cancel()
    await response.write(reply({"StatusCode": code}).body)
    return response


# -- streams ----------------------------------------------------------------------------------------------------------


async def attach(request: Request) -> Answer:
    engine, container = engine_of(request), _container(request)
    wants_input = flag(request, "stdin") and container.config.open_stdin
    outputs = frozenset({n for n, name in ((1, "stdout"), (2, "stderr")) if flag(request, name)})
    streaming, replay = flag(request, "stream"), flag(request, "logs")
    tty = container.config.tty
    keys = parse_detach_keys(request.query.get("detachKeys") or "ctrl-p,ctrl-q") if tty else None
    if streaming and container.state.status == "exited":
        raise Invalid("You cannot attach to a stopped container, start it first")
    if streaming and container.state.status == "paused":
        raise Invalid("You cannot attach to a paused container, unpause it first")
    if streaming and not engine.containers.lifecycle.has_process(container):
        await engine.containers.attach(container.id)  # raises: there is no process

    async def session(connection: HijackedConnection) -> None:
        if replay:
            lines = engine.containers.logs(container, follow=False, since_ns=None, until_ns=None, tail=None)
            async for line in lines:
                await connection.send(line.stream, line.data)
        if not streaming:
            return
        try:
            stream = await engine.containers.attach(container.id)
        except NetengineError:
            return  # the start failed: its own answer says why
        try:
            await pump(connection, stream, stdin=wants_input, outputs=outputs, detach_keys=keys)
        finally:
            await stream.close()

    engine.containers.lifecycle.publish(container, "attach")
    return await hijack(request, tty=tty, session=session, multiplexed_type=version_of(request) >= (1, 42))


async def resize(request: Request) -> Response:
    height, width = number(request, "h"), number(request, "w")
    if height is None or width is None:
        raise Invalid("invalid terminal size: give h and w")
    await engine_of(request).containers.resize(request.variables["id"], height, width)
    return Response(200)


async def logs(request: Request) -> Answer:
    engine, container = engine_of(request), _container(request)
    outputs = {n for n, name in ((1, "stdout"), (2, "stderr")) if flag(request, name)}
    if not outputs:
        raise Invalid("Bad parameters: you must choose at least one stream")
    follow, stamped = flag(request, "follow"), flag(request, "timestamps")
    lines = engine.containers.logs(
        container,
        follow=follow,
        since_ns=moment(request, "since"),
        until_ns=moment(request, "until") or None,
        tail=_tail(request),
    )
    tty = container.config.tty
    kind = RAW if tty or version_of(request) < (1, 42) else MULTIPLEXED
    response = request.stream({"Content-Type": kind})
    fresh = {1: True, 2: True}
    async with aclosing(lines) as opened:  # type: ignore[type-var]  # an async generator behind AsyncIterator
        async for line in opened:
            if line.stream not in outputs:
                continue
            data = line.data
            if stamped and fresh[line.stream]:
                data = f"{_stamp(line.time_ns)} ".encode() + data
            fresh[line.stream] = not line.continues
            await response.write(data if tty else stdcopy.frame(line.stream, data))
    return response


def _tail(request: Request) -> int | None:
    text = request.query.get("tail", "")
    return int(text) if re.fullmatch("[0-9]{1,9}", text) else None


def _stamp(time_ns: int) -> str:
    seconds, fraction = divmod(time_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{fraction:09d}Z"
