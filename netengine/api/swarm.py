"""/swarm: decode, call the engine, encode."""

from __future__ import annotations

from netengine.api import swarm_wire
from netengine.api.http import body_object, decode, engine_of, flag, reply
from netengine.engine.swarm.requests import InitRequest, JoinRequest, SwarmSpec, UnlockRequest
from netengine.http import Request, Response


async def inspect(request: Request) -> Response:
    swarm = engine_of(request).swarm
    found = await swarm.inspect()
    worker, manager = await swarm.tokens()
    return reply(swarm_wire.swarm(found, worker, manager))


async def init(request: Request) -> Response:
    asked = decode(await body_object(request), InitRequest)
    return reply(await engine_of(request).swarm.init(asked))


async def join(request: Request) -> Response:
    asked = decode(await body_object(request), JoinRequest)
    await engine_of(request).swarm.join(asked)
    return Response(200)


async def leave(request: Request) -> Response:
    await engine_of(request).swarm.leave(force=flag(request, "force"))
    return Response(200)


async def update(request: Request) -> Response:
    asked = decode(await body_object(request), SwarmSpec)
    version = swarm_wire.version(request.query.get("version", ""), "swarm")
    await engine_of(request).swarm.update(
        version,
        asked,
        rotate_worker=flag(request, "rotateWorkerToken"),
        rotate_manager=flag(request, "rotateManagerToken"),
        rotate_unlock_key=flag(request, "rotateManagerUnlockKey"),
    )
    return Response(200)


async def unlock_key(request: Request) -> Response:
    """GET /swarm/unlockkey: there is none, since managers are not locked; Docker shows an empty one then."""
    engine_of(request).swarm.managing()
    return reply({"UnlockKey": ""})


async def unlock(request: Request) -> Response:
    decode(await body_object(request), UnlockRequest)
    engine_of(request).swarm.unlock()
    return Response(200)
