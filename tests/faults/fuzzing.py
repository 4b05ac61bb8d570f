"""Fuzzing of every route: requests made from the API's own description, and what must be true of the answers.

A request may be refused, but not by a fault of the daemon's: an internal error, no answer, the end of the process. At the end
nothing may be left that removing everything does not remove: `Lab.reset` compares links, routes, nftables elements, namespaces,
mounts, processes and control groups with the beginning.
"""

from __future__ import annotations

import http.client
import re
import socket
import sys
import time
from collections import Counter
from typing import Any

from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from hypothesis import strategies as st

from tests.clients.lab import Lab
from tests.faults.schema_requests import Call, Strategies

STREAM_SECONDS = 0.3
"""How long a stream is listened to: it has an answer's head by then, or none to give."""

_DEEPER = (
    "/networks/create",
    "/networks/{id}/connect",
    "/networks/{id}/disconnect",
    "/containers/create",
    "/containers/{id}/start",
    "/containers/{id}/exec",
)
"""Routes that get more than their share: those with bodies, and the way to something that runs."""
_CALLS = 16
"""Requests between two clearings."""

# What a daemon may well answer 5xx for, as Docker does: the host's state is in the way, or the runtime said no.
REFUSED = re.compile(
    r"Bind for .* failed: |cannot assign requested address|OCI runtime|failed to create task|netengine does not|"
    r"no available network|not supported by this version|exec failed|Cannot kill container|cannot start|could not find an "
    r"available|not a swarm manager|part of a swarm|services are not there yet|autolock is not|external CA is not|"
    r"no manager answers|install the package etcd-server|participating as a manager"
)


class Faults(AssertionError):
    """The daemon did what no request may make it do."""


def send(lab: Lab, call: Call) -> int:
    """Send the request and judge the answer; its status, or 0 for a stream that had not begun in time."""
    headers = {"Content-Type": call.content_type} if call.raw is not None else {}
    timeout = STREAM_SECONDS if call.streams else 20.0
    try:
        answer = lab.api(call.method, call.path, raw=call.raw, headers=headers, timeout=timeout)
    except TimeoutError:
        if call.streams:
            return 0
        raise Faults(f"{call}: no answer within {timeout} s") from None
    except (OSError, http.client.HTTPException) as e:
        if call.streams and not isinstance(e, ConnectionRefusedError):
            return 0
        raise Faults(f"{call}: {type(e).__name__}: {e}") from e
    if answer.status >= 500:
        message = str(answer.json.get("message"))
        if "internal error" in message or not REFUSED.search(message):
            raise Faults(f"{call}: {answer.status} {message}")
    elif answer.status >= 400:
        assert answer.json["message"], f"{call}: {answer.status} says nothing"
    return answer.status


def prepare(lab: Lab) -> None:
    """Something for requests to hit: a network, a sandbox on it that runs, one that is stopped."""
    lab.api("POST", "/networks/create", {"Name": "net-a", "IPAM": {"Config": [{"Subnet": "10.99.0.0/24"}]}})
    for name in ("one", "two"):
        lab.api("POST", f"/containers/create?name={name}", {"Image": "sandbox", "HostConfig": {"NetworkMode": "net-a"}})
    lab.api("POST", "/containers/one/start")


def clear(lab: Lab) -> None:
    """Remove all that requests made."""
    if lab.api("GET", "/info").json["Swarm"]["LocalNodeState"] != "inactive":
        answer = lab.api("POST", "/swarm/leave?force=1", timeout=60)
        if answer.status != 200:
            raise Faults(f"the cluster cannot be left: {answer.body!r}")
    for container in lab.api("GET", "/containers/json?all=1").json:
        answer = lab.api("DELETE", f"/containers/{container['Id']}?force=1", timeout=60)
        if answer.status not in (204, 404):
            raise Faults(f"container {container['Names']} cannot be removed: {answer.body!r}")
    for network in lab.api("GET", "/networks").json:
        if network["Name"] not in ("bridge", "host", "none"):
            answer = lab.api("DELETE", f"/networks/{network['Id']}")
            if answer.status not in (204, 404):
                raise Faults(f"network {network['Name']} cannot be removed: {answer.body!r}")


def fuzz(lab: Lab, seconds: float, *, rounds: int = sys.maxsize, first_seed: int = 0) -> Counter[tuple[str, str, int]]:
    """Send sequences of requests for about so many seconds, or so many rounds of them; how often each route gave each status.
    Raises Faults.

    Rounds have the seeds first_seed, first_seed + 1 and so on: a fault names the one that shows it again.
    """
    strategies = Strategies(lab.api("GET", "/netengine/openapi.json").json)
    by_route = {route: strategies.call(*route) for route in strategies.routes()}
    deeper = [route for route in by_route if route[1] in _DEEPER]
    routes = st.sampled_from([*deeper * 4, *by_route])
    calls = routes.flatmap(lambda route: by_route[route].map(lambda call: (route, call)))
    each = st.tuples(*(by_route[route].map(lambda call, route=route: (route, call)) for route in by_route))
    sequences = st.lists(calls, min_size=_CALLS, max_size=_CALLS)
    seen: Counter[tuple[str, str, int]] = Counter()
    end = time.monotonic() + seconds

    def sequence(chosen: list[tuple[tuple[str, str], Call]]) -> None:
        if time.monotonic() > end:
            return
        prepare(lab)
        for route, call in chosen:
            seen[(*route, send(lab, call))] += 1
        if lab.daemon.process is None or lab.daemon.process.popen.poll() is not None:
            raise Faults(f"the daemon ended after {chosen}")
        clear(lab)

    number = first_seed
    while time.monotonic() < end and number < first_seed + rounds:
        # Small rounds: hypothesis grows and mutates examples within one, and cannot be told to stop in it.
        once = settings(
            max_examples=20,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],
            verbosity=Verbosity.quiet,
        )
        try:
            if number == first_seed:
                seed(number)(settings(once, max_examples=2)(given(each)(sequence)))()
            seed(number)(once(given(sequences)(sequence)))()
        except Faults as e:
            raise Faults(f"seed {number}: {e}") from e
        number += 1
    return seen


def every_route(lab: Lab) -> Any:
    """The routes that the description has, as (method, path)."""
    return Strategies(lab.api("GET", "/netengine/openapi.json").json).routes()


def nonsense(lab: Lab, data: bytes) -> bytes:
    """What comes back for bytes that are no HTTP; the connection must end, and the daemon go on."""
    with lab.daemon.connect() as connection:
        out = b""
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while piece := connection.recv(4096):
                out += piece
        except (BrokenPipeError, ConnectionResetError):
            pass  # it has seen enough
    return out
