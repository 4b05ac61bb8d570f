"""/networks: decode, call the engine, encode."""

from __future__ import annotations

from netengine.api import wire
from netengine.api.http import body_object, boolean, decode, engine_of, filters, matches_labels, reply, version_of
from netengine.api.selection import Pruning, matches
from netengine.engine import Engine
from netengine.engine.requests import ConnectRequest, DisconnectRequest, NetworkRequest
from netengine.errors import Invalid, NotFound
from netengine.http import Request, Response
from netengine.model import Network

_FILTERS = ("dangling", "driver", "id", "label", "name", "scope", "type")
_PRUNE_FILTERS = ("until", "label", "label!")


async def list_networks(request: Request) -> Response:
    engine = engine_of(request)
    wanted = filters(request, _FILTERS)
    found = [n for n in engine.state.networks.values() if _matches(engine, n, wanted)]
    return reply([wire.network(engine, n, detail=False) for n in sorted(found, key=lambda n: n.created)])


def _matches(engine: Engine, network: Network, wanted: dict[str, list[str]]) -> bool:
    for name, values in wanted.items():
        match name:
            case "driver":
                ok = network.driver in values
            case "scope":
                ok = network.scope in values
            case "id":
                ok = matches(values, network.id)
            case "name":
                ok = matches(values, network.name)
            case "label":
                ok = matches_labels(network.labels, values)
            case "type":
                if not set(values) <= {"builtin", "custom"}:
                    raise Invalid(f"invalid filter: 'type'='{values[0]}'")
                ok = ("builtin" if network.predefined else "custom") in values
            case _:
                unused = not network.predefined and not engine.networks.has_users(network)
                ok = unused == boolean(values, "dangling")
        if not ok:
            return False
    return True


async def inspect(request: Request) -> Response:
    engine = engine_of(request)
    network = engine.state.network(request.variables["id"])
    scope = request.query.get("scope", "")
    if scope and scope != network.scope:
        raise NotFound(f"network {request.variables['id']} not found")
    verbose = "verbose" in request.query and boolean([request.query["verbose"]], "verbose")
    return reply(wire.network(engine, network, detail=True, verbose=verbose))


async def create(request: Request) -> Response:
    body = await body_object(request)
    asked = decode(body, NetworkRequest)
    if version_of(request) < (1, 48):
        asked.enable_ipv4 = None
    network, warning = await engine_of(request).networks.create(asked)
    return reply({"Id": network.id, "Warning": warning}, 201)


async def connect(request: Request) -> Response:
    asked = decode(await body_object(request), ConnectRequest)
    if asked.endpoint_config is not None and version_of(request) < (1, 48):
        asked.endpoint_config.gw_priority = 0
    await engine_of(request).networks.connect(request.variables["id"], asked)
    return Response(200)


async def disconnect(request: Request) -> Response:
    asked = decode(await body_object(request), DisconnectRequest)
    await engine_of(request).networks.disconnect(request.variables["id"], asked.container, asked.force)
    return Response(200)


async def remove(request: Request) -> Response:
    await engine_of(request).networks.remove(request.variables["id"])
    return Response(204)


async def prune(request: Request) -> Response:
    engine = engine_of(request)
    wanted = Pruning.of(filters(request, _PRUNE_FILTERS))
    removed = []
    for network in list(engine.state.networks.values()):
        if (
            network.predefined
            or network.config_only
            or network.overlay is not None  # other hosts may use it: a manager removes it by name
            or engine.networks.has_users(network)
            or not wanted.takes(network.created, network.labels)
        ):
            continue
        await engine.networks.remove(network.id)
        removed.append(network.name)
    engine.events.publish("network", "prune", "", reclaimed="0")
    return reply({"NetworksDeleted": removed or None})
