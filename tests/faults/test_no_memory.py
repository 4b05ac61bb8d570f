"""The kernel has no memory for a request, or for its answer: at a sample of the places where netengine speaks to it."""

from __future__ import annotations

import pytest

from tests.faults.harness import SPEAKING, FaultLab, Operation, cases, exchanges, refuse_at

SAMPLE = 4
"""Places tried of each operation. `scripts/soak --no-memory` tries all of them."""


@cases(SPEAKING)
def test_an_operation_without_memory_is_refused_and_leaves_nothing(fault_lab: FaultLab, operation: Operation) -> None:
    reached = exchanges(fault_lab, operation)
    clean = fault_lab.settled()
    step = max(1, len(reached) // SAMPLE)
    for first in range(step, len(reached) + 1, step):
        refusal = refuse_at(fault_lab, operation, "ENOMEM", first, first, reached[first - 1], clean)
        assert refusal.wrong == [], f"refused at {refusal.point}: {refusal.answer}, {refusal.state}"


LONG = [o for o in SPEAKING if o.name in ("connect", "start", "remove --force")]


@pytest.mark.parametrize("operation", LONG, ids=lambda operation: operation.name)
def test_a_shortage_that_lasts_is_over_when_there_is_memory_again(fault_lab: FaultLab, operation: Operation) -> None:
    """What could not even be taken back meanwhile is found by a look at everything, without anybody asking for one."""
    reached = exchanges(fault_lab, operation)
    clean = fault_lab.settled()
    for first in (1, max(1, len(reached) // 2)):
        refusal = refuse_at(fault_lab, operation, "ENOBUFS", first, first + 60, reached[first - 1], clean)
        assert refusal.wrong == [], f"refused from {refusal.point} on: {refusal.answer}, {refusal.state}"
