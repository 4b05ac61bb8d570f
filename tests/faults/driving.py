"""Runs of the state machine for a bounded time."""

from __future__ import annotations

import sys
import time

from hypothesis import HealthCheck, Phase, Verbosity, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.clients.lab import Lab
from tests.faults.state_machine import Machine


def drive(
    lab: Lab, seconds: float, *, rounds: int = sys.maxsize, first_seed: int = 0, steps: int = 25
) -> tuple[int, int]:
    """Run machines with the seeds first_seed, first_seed + 1 and so on, so many or until the time is up; how many requests were
    made and faults done. Raises AssertionError with the seed and what was done."""
    once = settings(
        max_examples=8,  # the first of a round is the simplest there is, always the same
        stateful_step_count=steps,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
        verbosity=Verbosity.quiet,
        print_blob=False,
    )
    bound = type("Machine", (Machine,), {"lab": lab, "flushes": []})
    end, number = time.monotonic() + seconds, first_seed
    while time.monotonic() < end and number < first_seed + rounds:
        try:
            run_state_machine_as_test(seed(number)(bound), settings=once)
        except Exception as e:
            raise AssertionError(f"seed {number}:\n{bound.first_failure or e}") from e
        number += 1
    return bound.requests, bound.faults
