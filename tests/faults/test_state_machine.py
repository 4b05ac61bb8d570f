"""The API at random beside a model of it, with faults in between. `scripts/soak --random` does it for longer."""

from __future__ import annotations

import math

from tests.clients.lab import Lab
from tests.faults.driving import drive

ROUNDS = 5


def test_daemon_and_kernel_do_what_the_model_does(api_lab: Lab) -> None:
    requests, faults = drive(api_lab, math.inf, rounds=ROUNDS, first_seed=1)
    api_lab.reset()
    assert requests > 500 and faults > 20, "it hardly did anything"
