"""Many clients at once: nothing fails, and nothing is more afterwards than before. `scripts/soak --churn` does it at length."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.churn import Client, figures, networks, one_round, rounds, sandbox
from tests.faults.harness import FaultLab

MEMORY = 12 << 10
"""KiB by which a process may grow while it gets to its working size."""


@pytest.fixture
def churned(fault_lab: FaultLab) -> Iterator[FaultLab]:
    with networks(fault_lab, "churn-a", "churn-b"):
        yield fault_lab


def test_sixteen_clients_come_and_go_and_leave_nothing(churned: FaultLab) -> None:
    lost = churned.flow.lost()
    assert rounds(churned, 40, 16) == []  # until every path has been taken once
    churned.here.await_burials()
    before = figures(churned)
    assert rounds(churned, 80, 16) == []
    churned.here.await_burials()
    assert figures(churned).grown(before, MEMORY) == []
    assert churned.doctor() == []
    assert churned.flow.lost() == lost


def test_a_hundred_endpoints_with_ports_change_no_figure_for_good(churned: FaultLab) -> None:
    """And a look at all of them costs memory for as long as it takes only."""
    before = figures(churned)

    def fill(client: Client, who: int, number: int) -> None:
        first = 20000 + 10 * number
        ports = [(f"{inner}/tcp", str(first + inner)) for inner in range(1, 11)]
        client("POST", *sandbox(f"s{number}", "churn-a", *ports))
        client("POST", f"/containers/s{number}/start")

    def empty(client: Client, who: int, number: int) -> None:
        client("DELETE", f"/containers/s{number}?force=1")

    assert rounds(churned, 100, 8, fill) == []
    full = figures(churned)
    assert churned.doctor() == []
    assert rounds(churned, 10, 8, one_round) == []
    assert churned.doctor() == []
    churned.here.await_burials()
    now = figures(churned)
    assert now.grown(full, MEMORY) == []
    # The promise is 80 MiB for 300 idle endpoints; here are 100 with 1,000 ports, just looked at, and by several at once.
    assert now.memory < 100 << 10, "far more than the promise"
    assert rounds(churned, 100, 8, empty) == []
    churned.here.await_burials()
    # 100 sandboxes and 1,000 ports are some megabytes of Python objects, whose arenas are kept for the next ones.
    assert figures(churned).grown(before, 16 << 10) == []
