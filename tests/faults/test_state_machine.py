"""The API at random beside a model of it, with faults in between, for a bounded time."""

from __future__ import annotations

from tests.clients.lab import Lab
from tests.faults.driving import drive

SECONDS = 15


def test_daemon_and_kernel_do_what_the_model_does(api_lab: Lab) -> None:
    requests, faults = drive(api_lab, SECONDS, first_seed=1)
    api_lab.reset()
    assert requests > 50 and faults > 0, "it hardly did anything"
