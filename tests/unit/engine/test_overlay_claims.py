"""What the store says of this host's own endpoints, and what the host does about it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from netengine.cluster import keys
from netengine.cluster.mirror import Mirror
from netengine.cluster.records import EndpointRecord
from netengine.engine.overlay import claims
from netengine.engine.overlay.claims import Claims
from netengine.engine.state import State
from netengine.store.etcd import Delete, Step

NET, HERE, ADDRESS = "n" * 64, "n1", "10.0.9.5"


class Story:
    """A host whose only container has 10.0.9.4 (endpoint e4)."""

    def __init__(self) -> None:
        self.done: list[Step] = []
        self.mirror = Mirror(None)  # type: ignore[arg-type]
        session: Any = SimpleNamespace(
            etcd=self, place=SimpleNamespace(node_id=HERE, is_manager=True), mirror=self.mirror, check=lambda: None
        )
        self.tasks: list[asyncio.Task[Any]] = []
        owners = {"10.0.9.4": "e4"}
        core: Any = SimpleNamespace(
            state=State(),
            addresses=SimpleNamespace(owner=lambda network, address: owners.get(address)),
            background=self.tasks.append,
        )
        self.claims = Claims(core, session)

    async def transact(self, conditions: object, steps: list[Step]) -> None:
        self.done += steps

    async def says(self, node: str, address: str, endpoint: str) -> None:
        """The store has an endpoint."""
        record = EndpointRecord(id=endpoint, container_id="c", name="late", mac="", address=f"{address}/24")
        change = (keys.endpoint(node, NET, address), msgspec.json.encode(record), self.mirror.revision + 1)
        await self.mirror._take([change], self.mirror.revision + 1)

    async def settled(self) -> None:
        await asyncio.sleep(0)
        for _ in range(3):
            await asyncio.sleep(0.001)
            await asyncio.gather(*self.tasks)


@pytest.mark.parametrize(
    ("node", "address", "endpoint", "goes"),
    [(HERE, ADDRESS, "e5", True), (HERE, "10.0.9.4", "e4", False), ("n2", ADDRESS, "e5", False)],
    ids=["nobody's", "a container's", "another host's"],
)
def test_what_was_published_late_is_withdrawn(
    monkeypatch: pytest.MonkeyPatch, node: str, address: str, endpoint: str, goes: bool
) -> None:
    monkeypatch.setattr(claims, "_AGAIN", 0.0)

    async def story() -> None:
        told = Story()
        await told.says(node, address, endpoint)
        await told.settled()
        assert told.done == ([Delete(keys.endpoint(HERE, NET, ADDRESS))] if goes else [])
        told.claims.close()
        assert not told.mirror.listeners

    asyncio.run(story())
