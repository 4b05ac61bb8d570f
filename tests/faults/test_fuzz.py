"""Every route under requests made from the API's own description. `scripts/soak --random` makes others."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from tests.clients.lab import Lab
from tests.faults import fuzzing
from tests.faults.schema_requests import Call

CORPUS = Path(__file__).parent.parent / "corpus" / "requests.txt"
ROUNDS = 2


def test_requests_that_once_were_trouble_are_answered(api_lab: Lab) -> None:
    fuzzing.prepare(api_lab)
    for line in CORPUS.read_text().splitlines():
        if line and not line.startswith("#"):
            method, path, body, *_ = [*line.split(" ", 2), "", ""]
            raw = body.encode() if body else None
            fuzzing.send(api_lab, Call(method, path, raw, "application/json", streams="logs" in path))
    fuzzing.clear(api_lab)
    api_lab.reset()


NONSENSE = {
    "zeros": b"\0" * 100,
    "cut short": b"GET",
    "version": b"GET / HTTP/9.9\r\n\r\n",
    "no line": b"A" * 100_000,
    "headers": b"GET /info HTTP/1.1\r\n" + b"x: y\r\n" * 50_000,
    "TLS": b"\x16\x03\x01\x02\x00",
}


@pytest.mark.parametrize("data", NONSENSE.values(), ids=NONSENSE)
def test_what_is_not_http_is_refused_and_the_daemon_goes_on(api_lab: Lab, data: bytes) -> None:
    answer = fuzzing.nonsense(api_lab, data)
    assert answer == b"" or answer.split(b" ")[1] == b"400"
    assert api_lab.api("GET", "/_ping").status == 200


def test_no_request_breaks_the_daemon_or_leaves_anything(api_lab: Lab) -> None:
    seen = fuzzing.fuzz(api_lab, math.inf, rounds=ROUNDS, first_seed=1)
    api_lab.reset()
    reached = {(method, path) for method, path, _ in seen}
    assert reached == set(fuzzing.every_route(api_lab)), "routes that no request went to"
    # It gets somewhere: a fuzzer that is refused at the door proves little.
    for route in (("POST", "/networks/create"), ("POST", "/containers/create"), ("POST", "/containers/{id}/start")):
        assert any(count and status < 300 for (*where, status), count in seen.items() if tuple(where) == route), route
