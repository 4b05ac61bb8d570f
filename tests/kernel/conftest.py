"""Machines for tests of the kernel layer. Each must be left, by the inverse of what was applied, as it was before."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.kernel.machine import Machine, cable


@pytest.fixture
def make_machine() -> Iterator[Callable[[str], Machine]]:
    machines: list[Machine] = []

    def make(name: str) -> Machine:
        machines.append(Machine(name))
        return machines[-1]

    yield make
    try:
        for machine in machines:
            machine.undo_everything()
    finally:
        for machine in machines:
            machine.close()


@pytest.fixture
def machine(make_machine: Callable[[str], Machine]) -> Machine:
    """A machine of one's own."""
    return make_machine("alpha")


@pytest.fixture
def outside(machine: Machine, make_machine: Callable[[str], Machine]) -> Machine:
    """Another machine behind a cable: 192.0.2.2, `machine` being 192.0.2.1."""
    other = make_machine("beta")
    cable(machine, other)
    return other
