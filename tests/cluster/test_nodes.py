"""Changes of nodes beside a real etcd."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from netengine.cluster import keys
from netengine.cluster.records import NodeRecord, StatusRecord
from netengine.cluster.session import Place, Session
from netengine.engine.swarm.nodes import Nodes
from netengine.engine.swarm.requests import NodeSpec
from netengine.errors import Conflict
from netengine.store.etcd import Compare, Etcd, Outcome, Step
from tests.cluster.etcd_members import inside, single


class _AskedTwice(Etcd):
    """Etcd that carries a change out and does not answer in time, so that another member is asked for it."""

    async def transact(
        self, compare: Sequence[Compare], then: Sequence[Step], otherwise: Sequence[Step] = ()
    ) -> Outcome:
        await super().transact(compare, then, otherwise)
        return await super().transact(compare, then, otherwise)


class _Managing:
    """A manager's membership."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def managing(self) -> Session:
        return self._session

    async def dismiss(self, record: NodeRecord) -> None:
        raise AssertionError("nobody is demoted")

    async def forget_node(self, record: NodeRecord) -> None:
        raise AssertionError("nobody is removed")


async def _nobody(call: str, payload: Any) -> Any:
    raise AssertionError(f"nobody is asked for {call}")


def test_a_change_that_etcd_made_and_did_not_answer_is_made(tmp_path: Path) -> None:
    async def body() -> None:
        session = Session(Place("n1", "manager", "192.0.2.1"), etcd, _nobody, StatusRecord(data_path="192.0.2.1"))
        await session.start()
        version = await etcd.put(keys.node("n2"), msgspec.json.encode(NodeRecord(id="n2", name="two")))
        await session.mirror.reached(version)
        nodes = Nodes(_Managing(session))
        await nodes.update("n2", version, NodeSpec(role="manager", availability="active"))
        held = session.mirror.node("n2")
        assert held is not None and held.record.role == "manager"
        with pytest.raises(Conflict, match="out of sequence"):  # another user's version is old all the same
            await nodes.update("n2", version, NodeSpec(role="manager", availability="drain"))
        await session.close()

    with single("nodes", tmp_path) as member:
        etcd = _AskedTwice([member.url])
        inside(member, body)
