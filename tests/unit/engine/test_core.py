"""Operations: what is on disk at each step, for the start after a crash in between, and what is taken back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from netengine.config import Config
from netengine.engine.core import Core, Operation
from netengine.errors import KernelRefused
from netengine.kernel.host import Kernel
from netengine.model import Container
from netengine.store import Store
from tests.unit.engine import model

NET = model.network("net")
OWNER = "e" * 64


class RefusingKernel:
    """Says when it is asked to change something, and refuses it."""

    graves = unfinished = False

    def __init__(self, asked: Callable[[], None]) -> None:
        self._asked = asked

    def is_brief(self, *_: object) -> bool:
        return True

    def apply(self, want: frozenset[Any], have: frozenset[Any]) -> None:
        self._asked()
        raise KernelRefused("no")

    def release(self, ports: list[Any]) -> None:
        assert ports == []


class Disk:
    """What another daemon would find at each step."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self) -> tuple[list[str], list[str], list[str]]:
        """(names of containers, owners of leases, operations under way)."""
        store = Store(self._path)
        try:
            names = [c.name for c in store.load("container", Container)]
            return names, [owner for *_, owner in store.leases()], [i.what for i in store.intents()]
        finally:
            store.close()


def attempt(path: Path, first: Callable[[Operation], None]) -> tuple[object, object]:
    """What is on disk when the kernel is asked and when it has refused a change of a container, which renames it here."""
    disk = Disk(path)
    store = Store(path)
    box = model.container("before")
    with store.transaction() as t:
        t.put("container", box.id, box)
    seen: list[object] = []

    async def main() -> None:
        kernel = cast(Kernel, RefusingKernel(lambda: seen.append(disk())))
        core = Core(Config(), store, kernel, cast(Any, None), cast(Any, None))
        core.addresses.add(NET)
        async with core.operation("rename") as operation:
            operation.lease(NET, OWNER, 4)
            box.name = "after"
            operation.change(lambda: setattr(box, "name", "before"))
            operation.put(box)
            first(operation)
            await operation.apply(())

    with pytest.raises(KernelRefused):
        asyncio.run(main())
    store.close()
    return seen[0], disk()


def test_an_intent_is_on_disk_before_the_kernel_is_asked_and_gone_when_it_has_refused(tmp_path: Path) -> None:
    asked, refused = attempt(tmp_path / "state.db", lambda operation: None)
    assert asked == (["before"], [OWNER], ["rename"])
    assert refused == (["before"], [], [])


def test_an_outcome_that_was_committed_first_is_taken_back_when_the_kernel_refuses(tmp_path: Path) -> None:
    asked, refused = attempt(tmp_path / "state.db", lambda operation: operation.commit())
    assert asked == (["after"], [OWNER], [])
    assert refused == (["before"], [], [])


def test_where_something_goes_as_well_an_intent_comes_first_after_all(tmp_path: Path) -> None:
    def first(operation: Operation) -> None:
        operation.release(NET.id, [], "another")
        operation.commit()

    asked, refused = attempt(tmp_path / "state.db", first)
    assert asked == (["before"], [OWNER], ["rename"])
    assert refused == (["before"], [], [])
