"""kill -9 of the daemon in the middle of an operation: a sample of the points. `scripts/soak` tries all of them."""

from __future__ import annotations

from tests.faults.harness import OPERATIONS, FaultLab, Operation, cases, die_at, points

SAMPLE = 3
"""Points tried of each operation."""


@cases(OPERATIONS)
def test_a_killed_operation_is_wholly_there_or_wholly_gone(fault_lab: FaultLab, operation: Operation) -> None:
    reached = points(fault_lab, operation)
    clean = fault_lab.settled()
    assert reached, "the operation has failpoints"
    step = max(1, len(reached) // SAMPLE)
    for number in range(step, len(reached) + 1, step):
        death = die_at(fault_lab, operation, number, reached[number - 1], clean)
        assert death.wrong == [], f"killed at point {death.point}: {death.state}"
