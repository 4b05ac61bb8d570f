"""/swarm: decode, call the engine, encode."""

from __future__ import annotations

from aiohttp import web

from netengine.api import swarm_wire
from netengine.api.http import body_object, decode, engine_of, flag, reply
from netengine.engine.swarm.requests import InitRequest, JoinRequest, SwarmSpec, UnlockRequest


async def inspect(request: web.Request) -> web.Response:
    swarm = engine_of(request).swarm
    found = await swarm.inspect()
    worker, manager = await swarm.tokens()
    return reply(swarm_wire.swarm(found, worker, manager))


async def init(request: web.Request) -> web.Response:
    asked = decode(await body_object(request), InitRequest)
    return reply(await engine_of(request).swarm.init(asked))


async def join(request: web.Request) -> web.Response:
    asked = decode(await body_object(request), JoinRequest)
    await engine_of(request).swarm.join(asked)
    return web.Response(status=200)


async def leave(request: web.Request) -> web.Response:
    await engine_of(request).swarm.leave(force=flag(request, "force"))
    return web.Response(status=200)


async def update(request: web.Request) -> web.Response:
    asked = decode(await body_object(request), SwarmSpec)
    version = swarm_wire.version(request.query.get("version", ""), "swarm")
    await engine_of(request).swarm.update(
        version,
        asked,
        rotate_worker=flag(request, "rotateWorkerToken"),
        rotate_manager=flag(request, "rotateManagerToken"),
        rotate_unlock_key=flag(request, "rotateManagerUnlockKey"),
    )
    return web.Response(status=200)


async def unlock_key(request: web.Request) -> web.Response:
    """GET /swarm/unlockkey: there is none, since managers are not locked; Docker shows an empty one then."""
    engine_of(request).swarm.managing()
    return reply({"UnlockKey": ""})


async def unlock(request: web.Request) -> web.Response:
    decode(await body_object(request), UnlockRequest)
    engine_of(request).swarm.unlock()
    return web.Response(status=200)
