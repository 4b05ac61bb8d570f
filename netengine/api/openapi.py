"""The OpenAPI 3.1 description of what the daemon serves: GET /netengine/openapi.json.

Made from the routes and from the types that bodies are decoded into, so that it cannot say anything else than the code does.
Only what the router does not know stands here: the parameters of each route's query. Tests make requests from it
(tests/faults/test_fuzz.py), and a unit test compares it with what handlers read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

import netengine
from netengine.api import containers, images, networks, nodes, system
from netengine.api.http import API_VERSION, text_of
from netengine.engine.requests import (
    ConnectRequest,
    ContainerRequest,
    DisconnectRequest,
    ExecRequest,
    ExecStart,
    NetworkRequest,
    PolicyRequest,
    PublishRequest,
)
from netengine.engine.swarm.requests import InitRequest, JoinRequest, NodeSpec, SwarmSpec, UnlockRequest

PATH = "/netengine/openapi.json"
_SCHEMAS = "#/components/schemas/{name}"
_FLAG = {"type": "string", "description": 'false is "", 0, no, false and none', "examples": ["1", "true", "0", "false"]}
_NUMBER = {"type": "string", "pattern": "^-?[0-9]{1,9}$"}
_MOMENT = {"type": "string", "pattern": r"^-?[0-9]{1,12}(\.[0-9]{1,9})?$", "description": "seconds since the epoch"}
_TEXT = {"type": "string"}
_KINDS: dict[str, dict[str, Any]] = {"flag": _FLAG, "number": _NUMBER, "moment": _MOMENT, "text": _TEXT}


@dataclass(frozen=True)
class Described:
    """What a request may carry. `query` holds `name:kind` words; `filters` the names that the parameter filters knows."""

    summary: str
    query: str = ""
    filters: tuple[str, ...] = ()
    body: type[msgspec.Struct] | Literal["tar"] | None = None
    streams: bool = False
    """The answer goes on for as long as the client listens, or the connection becomes a stream of bytes."""


DESCRIBED: dict[tuple[str, str], Described] = {
    ("GET", "/_ping"): Described("Whether the daemon is there"),
    ("HEAD", "/_ping"): Described("Whether the daemon is there"),
    ("GET", "/version"): Described("Versions of daemon, API and kernel"),
    ("GET", "/info"): Described("The daemon and its host"),
    ("GET", "/events"): Described(
        "Events, past and live", "since:moment until:moment", system._EVENT_FILTERS, streams=True
    ),
    ("GET", "/networks"): Described("List networks", filters=networks._FILTERS),
    ("GET", "/networks/"): Described("List networks", filters=networks._FILTERS),
    ("POST", "/networks/create"): Described("Create a network", body=NetworkRequest),
    ("POST", "/networks/prune"): Described("Remove networks out of use", filters=networks._PRUNE_FILTERS),
    ("GET", "/networks/{id}"): Described("Inspect a network", "scope:text verbose:flag"),
    ("POST", "/networks/{id}/connect"): Described("Connect a container", body=ConnectRequest),
    ("POST", "/networks/{id}/disconnect"): Described("Disconnect a container", body=DisconnectRequest),
    ("DELETE", "/networks/{id}"): Described("Remove a network"),
    ("GET", "/containers/json"): Described(
        "List containers", "all:flag limit:number size:flag", filters=containers._FILTERS
    ),
    ("POST", "/containers/create"): Described("Create a container", "name:text platform:text", body=ContainerRequest),
    ("POST", "/containers/prune"): Described("Remove stopped containers", filters=containers._PRUNE_FILTERS),
    ("GET", "/containers/{id}/json"): Described("Inspect a container", "size:flag"),
    ("GET", "/containers/{id}/top"): Described("The processes of a container", "ps_args:text"),
    ("GET", "/containers/{id}/logs"): Described(
        "Output of a container",
        "stdout:flag stderr:flag follow:flag timestamps:flag since:moment until:moment tail:text",
        streams=True,
    ),
    ("POST", "/containers/{id}/start"): Described("Start a container", "detachKeys:text"),
    ("POST", "/containers/{id}/stop"): Described("Stop a container", "t:number signal:text"),
    ("POST", "/containers/{id}/restart"): Described("Restart a container", "t:number signal:text"),
    ("POST", "/containers/{id}/kill"): Described("Send a container a signal", "signal:text"),
    ("POST", "/containers/{id}/pause"): Described("Freeze a container's processes"),
    ("POST", "/containers/{id}/unpause"): Described("Let a container's processes go on"),
    ("POST", "/containers/{id}/rename"): Described("Give a container another name", "name:text"),
    ("POST", "/containers/{id}/wait"): Described("Wait for a container's end", "condition:text", streams=True),
    ("POST", "/containers/{id}/attach"): Described(
        "Input and output of a container's process",
        "stdin:flag stdout:flag stderr:flag stream:flag logs:flag detachKeys:text",
        streams=True,
    ),
    ("POST", "/containers/{id}/resize"): Described("Size of a container's terminal", "h:number w:number"),
    ("POST", "/containers/{id}/exec"): Described("Prepare a command in a container", body=ExecRequest),
    ("DELETE", "/containers/{id}"): Described("Remove a container", "force:flag v:flag link:flag"),
    ("POST", "/exec/{id}/start"): Described("Run a prepared command", body=ExecStart, streams=True),
    ("POST", "/exec/{id}/resize"): Described("Size of a command's terminal", "h:number w:number"),
    ("GET", "/exec/{id}/json"): Described("Inspect a command"),
    ("GET", "/images/json"): Described("List images", "all:flag", filters=images._FILTERS),
    ("POST", "/images/prune"): Described("Remove images out of use", filters=images._PRUNE_FILTERS),
    ("POST", "/images/create"): Described(
        "Import a root file system",
        "fromImage:text fromSrc:text repo:text tag:text changes:text message:text platform:text",
        body="tar",
    ),
    ("GET", "/images/{name}/json"): Described("Inspect an image"),
    ("POST", "/images/{name}/tag"): Described("Name an image", "repo:text tag:text"),
    ("DELETE", "/images/{name}"): Described("Remove an image or a name of it", "force:flag noprune:flag"),
    ("GET", "/swarm"): Described("Inspect the cluster, with its join tokens"),
    ("POST", "/swarm/init"): Described("Begin a cluster with this host", body=InitRequest),
    ("POST", "/swarm/join"): Described("Make this host a node of a cluster", body=JoinRequest),
    ("POST", "/swarm/leave"): Described("Take this host out of its cluster", "force:flag"),
    ("POST", "/swarm/update"): Described(
        "Change the cluster's settings, tokens or root",
        "version:number rotateWorkerToken:flag rotateManagerToken:flag rotateManagerUnlockKey:flag",
        body=SwarmSpec,
    ),
    ("GET", "/swarm/unlockkey"): Described("The key of locked managers: there is none"),
    ("POST", "/swarm/unlock"): Described("Unlock a manager: none is ever locked", body=UnlockRequest),
    ("GET", "/nodes"): Described("List the nodes of the cluster", filters=nodes._FILTERS),
    ("GET", "/nodes/{id}"): Described("Inspect a node"),
    ("POST", "/nodes/{id}/update"): Described(
        "Change a node's labels, role or availability", "version:number", body=NodeSpec
    ),
    ("DELETE", "/nodes/{id}"): Described("Forget a node", "force:flag"),
    ("GET", "/services"): Described("List services: there are none", filters=nodes._SERVICE_FILTERS),
    ("POST", "/services/create"): Described("Create a service: not there yet"),
    ("GET", "/services/{id}"): Described("Inspect a service: there are none"),
    ("GET", "/tasks"): Described("List tasks: there are none", filters=nodes._TASK_FILTERS),
    ("GET", "/tasks/{id}"): Described("Inspect a task: there are none"),
    ("POST", "/netengine/containers/{id}/publish"): Described(
        "Publish ports of a container that runs", body=PublishRequest
    ),
    ("POST", "/netengine/containers/{id}/unpublish"): Described("Withdraw published ports", body=PublishRequest),
    ("GET", "/netengine/policies"): Described("List policies"),
    ("POST", "/netengine/policies"): Described("Add a policy", body=PolicyRequest),
    ("GET", "/netengine/policies/{id}"): Described("Inspect a policy"),
    ("DELETE", "/netengine/policies/{id}"): Described("Remove a policy"),
    ("GET", "/netengine/explain"): Described("The kernel resources of a network or container, as commands", "ref:text"),
    ("GET", "/netengine/doctor"): Described("What is not as it should be"),
    ("POST", "/netengine/doctor"): Described("Mend what is not as it should be"),
    ("GET", "/netengine/dns/stats"): Described("The name server's counters"),
    ("GET", "/netengine/dns/query"): Described(
        "What a container is answered, and why", "name:text from:text type:text"
    ),
    ("GET", "/netengine/audit"): Described(
        "Who asked for which change, past and live", "since:moment until:moment", streams=True
    ),
    ("GET", PATH): Described("This description"),
}


def plain(path: str) -> str:
    """A path of the router as OpenAPI writes it: without the regular expressions."""
    return re.sub(r"\{(\w+):[^}]*\}", r"{\1}", path)


def describe(routes: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """The description of these routes, (method, path of the router) each."""
    bodies = [one.body for one in DESCRIBED.values() if isinstance(one.body, type)]
    _, schemas = msgspec.json.schema_components(bodies, ref_template=_SCHEMAS)
    paths: dict[str, dict[str, Any]] = {}
    for method, path in routes:
        shown = plain(path)
        found = DESCRIBED.get((method, shown), Described(""))
        paths.setdefault(shown, {})[method.lower()] = _operation(shown, found)
    error = {"type": "object", "properties": {"message": {"type": "string"}}, "required": ["message"]}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "netengine: the Docker Engine API, and routes of its own",
            "version": text_of(API_VERSION),
            "description": f"Served by netengine {netengine.__version__}; each path also under /v1.NN.",
        },
        "paths": paths,
        "components": {"schemas": {**schemas, "Error": error}},
    }


def _operation(path: str, found: Described) -> dict[str, Any]:
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": _TEXT} for name in re.findall(r"\{(\w+)\}", path)
    ]
    for word in found.query.split():
        name, _, kind = word.partition(":")
        parameters.append({"name": name, "in": "query", "schema": _KINDS[kind]})
    if found.filters:
        values = {"type": "array", "items": {"type": "string"}}
        schema = {"type": "object", "properties": dict.fromkeys(found.filters, values), "additionalProperties": False}
        parameters.append({"name": "filters", "in": "query", "content": {"application/json": {"schema": schema}}})
    error = {"description": "refused", "content": _json({"$ref": _SCHEMAS.format(name="Error")})}
    out: dict[str, Any] = {
        "summary": found.summary,
        "parameters": parameters,
        "responses": {"2XX": {"description": "done"}, "4XX": error, "5XX": error},
        "x-streams": found.streams,
    }
    if found.body == "tar":
        out["requestBody"] = {"content": {"application/x-tar": {}}}
    elif found.body is not None:
        out["requestBody"] = {"content": _json({"$ref": _SCHEMAS.format(name=found.body.__name__)})}
    return out


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
