"""/netengine/containers/{id}/publish and unpublish: ports of a container that runs. Docker's API has no such call."""

from __future__ import annotations

from netengine.api.http import body_object, decode, engine_of, reply
from netengine.engine.requests import PublishRequest
from netengine.http import Request, Response
from netengine.model import PublishedPort


def _answer(ports: list[PublishedPort]) -> Response:
    """The ports as in NetworkSettings.Ports of a container."""
    out: dict[str, list[dict[str, str]]] = {}
    for p in ports:
        binding = {"HostIp": p.host_ip, "HostPort": str(p.host_port)}
        out.setdefault(f"{p.container_port}/{p.protocol}", []).append(binding)
    return reply({"Ports": out})


async def publish(request: Request) -> Response:
    asked = decode(await body_object(request), PublishRequest)
    return _answer(await engine_of(request).publishing.publish(request.variables["id"], asked.port_bindings))


async def unpublish(request: Request) -> Response:
    asked = decode(await body_object(request), PublishRequest)
    return _answer(await engine_of(request).publishing.unpublish(request.variables["id"], asked.port_bindings))
