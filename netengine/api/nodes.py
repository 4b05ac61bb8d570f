"""/nodes: decode, call the engine, encode. Services are not there yet: their routes and those of tasks say so."""

from __future__ import annotations

from netengine.api import swarm_wire
from netengine.api.http import body_object, decode, engine_of, filters, flag, matches_labels, reply
from netengine.api.selection import matches
from netengine.engine.swarm.nodes import NodeView
from netengine.engine.swarm.requests import NodeSpec
from netengine.errors import Invalid, NotFound, Unsupported
from netengine.http import Request, Response

_FILTERS = ("id", "label", "membership", "name", "node.label", "role")
_TASK_FILTERS = ("id", "name", "service", "node", "label", "desired-state", "_up-to-date", "runtime")
_SERVICE_FILTERS = ("id", "label", "mode", "name", "runtime")


async def list_nodes(request: Request) -> Response:
    engine = engine_of(request)
    wanted = filters(request, _FILTERS)
    found = [n for n in await engine.swarm.nodes.list() if _matches(n, wanted)]
    cluster = await engine.swarm.inspect()
    return reply([swarm_wire.node(n, cluster) for n in found])


def _matches(node: NodeView, wanted: dict[str, list[str]]) -> bool:
    for name, values in wanted.items():
        match name:
            case "id":
                ok = any(node.record.id.startswith(v) for v in values)
            case "name":
                ok = matches(values, node.record.name)
            case "role":
                if unknown := set(values) - {"manager", "worker"}:
                    raise Invalid(f"invalid role filter: '{min(unknown)[:60]}'")
                ok = node.record.role in values
            case "membership":
                if unknown := set(values) - {"accepted", "pending"}:
                    raise Invalid(f"invalid membership filter: '{min(unknown)[:60]}'")
                ok = "accepted" in values
            case "node.label":
                ok = matches_labels(node.record.labels, values)
            case _:
                ok = not values  # of the engine, which has none
        if not ok:
            return False
    return True


async def inspect(request: Request) -> Response:
    engine = engine_of(request)
    node = await engine.swarm.nodes.inspect(request.variables["id"])
    return reply(swarm_wire.node(node, await engine.swarm.inspect()))


async def update(request: Request) -> Response:
    asked = decode(await body_object(request), NodeSpec)
    version = swarm_wire.version(request.query.get("version", ""), "node")
    await engine_of(request).swarm.nodes.update(request.variables["id"], version, asked)
    return Response(200)


async def remove(request: Request) -> Response:
    await engine_of(request).swarm.nodes.remove(request.variables["id"], force=flag(request, "force"))
    return Response(200)


# -- what is not there yet --------------------------------------------------------------------------------------------


async def list_services(request: Request) -> Response:
    """GET /services: there are none."""
    filters(request, _SERVICE_FILTERS)
    engine_of(request).swarm.managing()
    return reply([])


async def list_tasks(request: Request) -> Response:
    """GET /tasks: there are none."""
    filters(request, _TASK_FILTERS)
    engine_of(request).swarm.managing()
    return reply([])


async def no_such_service(request: Request) -> Response:
    engine_of(request).swarm.managing()
    raise NotFound(f"service {request.variables['id']} not found")


async def no_such_task(request: Request) -> Response:
    engine_of(request).swarm.managing()
    raise NotFound(f"task {request.variables['id']} not found")


async def create_service(request: Request) -> Response:
    engine_of(request).swarm.managing()
    raise Unsupported(
        "services are not there yet in netengine: run containers on the nodes themselves (docker run --network ...)"
    )
