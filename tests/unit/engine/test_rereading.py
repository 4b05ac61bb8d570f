"""Whose sysctls are read again, and when. That they are put back is shown by tests/faults/test_sysctls.py."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from netengine.engine import rereading
from netengine.engine.rereading import Rereading
from netengine.model import Container, ContainerConfig, ContainerState, HostConfig


def container(number: int, *caps: str, running: bool = True) -> Container:
    return Container(
        id=f"{number:064x}",
        name=f"c{number}",
        created="",
        image="host",
        image_id="",
        config=ContainerConfig(),
        host_config=HostConfig(cap_add=list(caps)),
        state=ContainerState(pid=number if running else 0),
        sandbox_id=f"s{number}" if running else "",
    )


def turns(monkeypatch: pytest.MonkeyPatch, containers: list[Container], times: int) -> list[list[str]]:
    monkeypatch.setattr(rereading, "_AT_ONCE", 3)
    core: Any = SimpleNamespace(state=SimpleNamespace(containers={c.id: c for c in containers}))
    reading: Any = Rereading(core, lambda found: pytest.fail("nothing to mend"))
    return [[c.name for c in reading._next()] for _ in range(times)]


def test_each_sandbox_has_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    assert turns(monkeypatch, [container(n) for n in range(1, 6)], 4) == [
        ["c1", "c2", "c3"],
        ["c4", "c5"],
        ["c1", "c2", "c3"],
        ["c4", "c5"],
    ]


def test_a_container_that_may_change_its_network_and_one_without_a_sandbox_are_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    containers = [container(1, "NET_ADMIN"), container(2), container(3, running=False)]
    assert turns(monkeypatch, containers, 2) == [["c2"], ["c2"]]


def test_without_any_nothing_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    assert turns(monkeypatch, [], 2) == [[], []]
