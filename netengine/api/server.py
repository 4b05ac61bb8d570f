"""The HTTP server: which path leads to which handler, and the life of the daemon around it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from functools import partial

from netengine import engine as engines
from netengine.api import (
    audit,
    containers,
    execs,
    http,
    images,
    networks,
    nodes,
    openapi,
    policies,
    publishing,
    swarm,
    system,
    tls,
)
from netengine.config import Config
from netengine.engine import Engine
from netengine.http import Answer, Handler, Request, Response, Server


async def _document(request: Request) -> Response:
    """GET /netengine/openapi.json: made when somebody asks for it."""
    return http.reply(openapi.describe((method, path) for method, path, _ in _ROUTES))


_ROUTES: tuple[tuple[str, str, Handler], ...] = (
    ("GET", "/_ping", system.ping),
    ("HEAD", "/_ping", system.ping),
    ("GET", "/version", system.version),
    ("GET", "/info", system.info),
    ("GET", "/events", system.events),
    ("GET", "/networks", networks.list_networks),
    ("GET", "/networks/", networks.list_networks),
    ("POST", "/networks/create", networks.create),
    ("POST", "/networks/prune", networks.prune),
    ("GET", "/networks/{id:.+}", networks.inspect),
    ("POST", "/networks/{id:.+}/connect", networks.connect),
    ("POST", "/networks/{id:.+}/disconnect", networks.disconnect),
    ("DELETE", "/networks/{id:.+}", networks.remove),
    ("GET", "/containers/json", containers.list_containers),
    ("POST", "/containers/create", containers.create),
    ("POST", "/containers/prune", containers.prune),
    ("GET", "/containers/{id}/json", containers.inspect),
    ("GET", "/containers/{id}/top", containers.top),
    ("GET", "/containers/{id}/logs", containers.logs),
    ("POST", "/containers/{id}/start", containers.start),
    ("POST", "/containers/{id}/stop", containers.stop),
    ("POST", "/containers/{id}/restart", containers.restart),
    ("POST", "/containers/{id}/kill", containers.kill),
    ("POST", "/containers/{id}/pause", containers.pause),
    ("POST", "/containers/{id}/unpause", containers.unpause),
    ("POST", "/containers/{id}/rename", containers.rename),
    ("POST", "/containers/{id}/wait", containers.wait),
    ("POST", "/containers/{id}/attach", containers.attach),
    ("POST", "/containers/{id}/resize", containers.resize),
    ("POST", "/containers/{id}/exec", execs.create),
    ("DELETE", "/containers/{id}", containers.remove),
    ("POST", "/exec/{id}/start", execs.start),
    ("POST", "/exec/{id}/resize", execs.resize),
    ("GET", "/exec/{id}/json", execs.inspect),
    ("GET", "/images/json", images.list_images),
    ("POST", "/images/prune", images.prune),
    ("POST", "/images/create", images.create),
    ("GET", "/images/{name:.+}/json", images.inspect),
    ("POST", "/images/{name:.+}/tag", images.tag),
    ("DELETE", "/images/{name:.+}", images.remove),
    ("GET", "/swarm", swarm.inspect),
    ("POST", "/swarm/init", swarm.init),
    ("POST", "/swarm/join", swarm.join),
    ("POST", "/swarm/leave", swarm.leave),
    ("POST", "/swarm/update", swarm.update),
    ("GET", "/swarm/unlockkey", swarm.unlock_key),
    ("POST", "/swarm/unlock", swarm.unlock),
    ("GET", "/nodes", nodes.list_nodes),
    ("GET", "/nodes/{id}", nodes.inspect),
    ("POST", "/nodes/{id}/update", nodes.update),
    ("DELETE", "/nodes/{id}", nodes.remove),
    ("GET", "/services", nodes.list_services),
    ("POST", "/services/create", nodes.create_service),
    ("GET", "/services/{id}", nodes.no_such_service),
    ("GET", "/tasks", nodes.list_tasks),
    ("GET", "/tasks/{id}", nodes.no_such_task),
    ("POST", "/netengine/containers/{id}/publish", publishing.publish),
    ("POST", "/netengine/containers/{id}/unpublish", publishing.unpublish),
    ("GET", "/netengine/policies", policies.list_policies),
    ("POST", "/netengine/policies", policies.add),
    ("GET", "/netengine/policies/{id}", policies.inspect),
    ("DELETE", "/netengine/policies/{id}", policies.remove),
    ("GET", "/netengine/explain", system.explain_reference),
    ("GET", "/netengine/doctor", system.doctor),
    ("POST", "/netengine/doctor", system.doctor_fix),
    ("GET", "/netengine/dns/stats", system.dns_stats),
    ("GET", "/netengine/dns/query", system.dns_query),
    ("GET", "/netengine/audit", system.audit),
    ("GET", openapi.PATH, _document),
)
_SHUTDOWN_SECONDS = 3.0


def build(engine: Engine) -> Server:
    """The server: every route bare and under /v1.NN."""
    resolve = http.resolver(_ROUTES)

    async def answer(request: Request) -> Answer:
        handler = resolve(request)
        answering = http.docker_semantics(request, handler)
        return await audit.audited(request, answering, astray=handler is http.not_found)

    return Server(answer, app=engine, headers=http.HEADERS, refused=partial(audit.malformed, engine.audit))


async def serve(
    config: Config, listeners: list[socket.socket], on_ready: Callable[[], None], stop: asyncio.Event
) -> None:
    """Run the daemon on sockets that listen already, until `stop`; networks and containers run on afterwards."""
    secured = tls.context(config)
    engine = Engine(config)
    try:
        await engine.start()
        server = build(engine)
        remote = []
        for listener in listeners:
            if listener.family == socket.AF_UNIX:
                await server.listen(listener)
                continue
            if secured is None:
                raise ValueError(f"{listener.getsockname()} is not local, and nothing secures it")
            remote.append(tls.TlsSite(server, listener, secured))
            remote[-1].start()
        on_ready()
        await stop.wait()
        engine.events.close()
        engine.audit.close()
        await asyncio.gather(*(site.close() for site in remote))
        await server.close(_SHUTDOWN_SECONDS)
    finally:
        await engine.close()


def cleanup(config: Config) -> list[str]:
    """Remove every trace of netengine on this host; answers what was removed, a line each."""
    return asyncio.run(engines.cleanup(config))
