"""/netengine/policies: decode, call the engine, encode. Docker's API has no such thing."""

from __future__ import annotations

from netengine.api.http import body_object, decode, engine_of, reply
from netengine.api.wire import Json
from netengine.engine import Engine
from netengine.engine.policy_rules import named, traffic
from netengine.engine.requests import PolicyRequest
from netengine.http import Request, Response
from netengine.model import Policy
from netengine.observe.explain import explain


def _shown(engine: Engine, policy: Policy, *, detail: bool = False) -> Json:
    """A policy; `detail`: with the commands that would add its elements, as they are now."""
    elements = engine.policies.elements(policy)
    out: Json = {
        "Id": policy.id,
        "Created": policy.created,
        "Action": policy.action,
        "From": named(policy.source),
        "To": named(policy.target),
        "Traffic": traffic(policy),
        "Active": bool(elements),
    }
    if detail:
        out["Elements"] = [step.command for step in explain(elements)]
    return out


async def list_policies(request: Request) -> Response:
    engine = engine_of(request)
    return reply([_shown(engine, policy) for policy in engine.policies.list()])


async def inspect(request: Request) -> Response:
    engine = engine_of(request)
    return reply(_shown(engine, engine.policies.find(request.variables["id"]), detail=True))


async def add(request: Request) -> Response:
    asked = decode(await body_object(request), PolicyRequest)
    policy = await engine_of(request).policies.add(asked)
    return reply({"Id": policy.id}, 201)


async def remove(request: Request) -> Response:
    await engine_of(request).policies.remove(request.variables["id"])
    return Response(204)
