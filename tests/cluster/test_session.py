"""A session and its mirror beside a real etcd: what is read, what is told, and what is kept while nobody answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from netengine.cluster import keys
from netengine.cluster.mirror import Change, Mirror
from netengine.cluster.records import BlockRecord, ClusterRecord, EndpointRecord, NodeRecord, StatusRecord
from netengine.cluster.session import Place, Session
from netengine.errors import Unavailable
from netengine.store.etcd import Etcd
from tests.cluster.etcd_members import EtcdMember, inside, single
from tests.patience import patient


@pytest.fixture
def member(tmp_path: Path) -> Iterator[EtcdMember]:
    with single("session", tmp_path) as member:
        yield member


async def nobody(call: str, payload: Mapping[str, Any]) -> Any:
    raise Unavailable(f"no manager for {call}")


def session(member: EtcdMember, file: Path | None = None, node: str = "n1") -> Session:
    etcd = Etcd([member.url], time_limit=1.0)
    return Session(Place(node, "manager", "192.0.2.1"), etcd, nobody, StatusRecord(data_path="192.0.2.1"), file)


@asynccontextmanager
async def following(mirror: Mirror) -> AsyncIterator[None]:
    task = asyncio.create_task(mirror.follow())
    try:
        yield
    finally:
        task.cancel()


def encoded(record: msgspec.Struct) -> bytes:
    return msgspec.json.encode(record)


def test_what_another_node_writes_is_told_with_what_was_there_before(member: EtcdMember) -> None:
    async def body() -> None:
        async with Etcd([member.url]) as etcd:
            await etcd.put(keys.node("n1"), encoded(NodeRecord(id="n1", name="one")))
            mirror = Mirror(etcd)
            told: list[Change] = []
            mirror.listeners.append(told.extend)
            await mirror.load()
            assert [(c.kind, c.parts, c.before) for c in told] == [("nodes", ("n1",), None)]
            told.clear()
            async with following(mirror):
                at = await etcd.put(keys.node("n1"), encoded(NodeRecord(id="n1", name="uno")))
                await mirror.reached(at)
                assert [(c.before.name, c.after.name) for c in told] == [("one", "uno")]
                held = mirror.node("n1")
                assert held is not None and held.revision == at
                endpoint = EndpointRecord(id="e", container_id="c", name="web", mac="02:42:0a:00:00:02")
                at = await etcd.put(keys.endpoint("n1", "net", "10.0.0.2"), encoded(endpoint))
                at = await etcd.put(keys.block("net", "10.0.0.0/28"), encoded(BlockRecord(node="n1")))
                await mirror.reached(at)
                assert [(n, net, ip, e.name) for n, net, ip, e in mirror.endpoints("net")] == [
                    ("n1", "net", "10.0.0.2", "web")
                ]
                assert [(cidr, b.record.node) for cidr, b in mirror.blocks("net").items()] == [("10.0.0.0/28", "n1")]
                await mirror.reached(await etcd.delete(keys.SHARED, prefix=True))
                assert not mirror.nodes() and not list(mirror.endpoints())

    inside(member, body)


@pytest.mark.parametrize("value", [b"", b"{", b"\xff\xfe", b"[]", b'{"id": 1}'])
def test_a_damaged_value_is_as_none(member: EtcdMember, value: bytes) -> None:
    async def body() -> None:
        async with Etcd([member.url]) as etcd:
            mirror = Mirror(etcd)
            await etcd.put(keys.node("n1"), value)
            await etcd.put(keys.SHARED + "unheard/of", value)
            await mirror.load()
            assert not mirror.nodes()

    inside(member, body)


def test_a_start_without_etcd_knows_what_was_known(member: EtcdMember, tmp_path: Path) -> None:
    file = tmp_path / "mirror.json"

    async def before() -> None:
        one = session(member, file)
        await one.start()
        await one.mirror.reached(await one.etcd.put(keys.node("n2"), encoded(NodeRecord(id="n2", name="two"))))
        assert one.connected and one.mirror.is_alive("n1")
        await one.close()

    async def after() -> None:
        two = session(member, file)
        await two.start()
        assert [n.record.name for n in two.mirror.nodes()] == ["two"]
        with pytest.raises(Unavailable, match="majority"):
            two.check()
        told: list[Change] = []
        two.mirror.listeners.append(told.extend)
        member.start()
        async with asyncio.timeout(patient(20)):
            while not two.connected:
                await asyncio.sleep(0.05)
        assert not [c for c in told if c.kind == "nodes"], "nothing had changed"
        await two.close(leaving=True)

    inside(member, before)
    member.kill()
    inside(member, after)


def test_a_start_that_knows_nothing_fails(member: EtcdMember, tmp_path: Path) -> None:
    member.kill()

    async def body() -> None:
        with pytest.raises(Unavailable):
            await session(member, tmp_path / "mirror.json").start()

    inside(member, body)


def cluster_of(heartbeat: int) -> bytes:
    """A cluster whose nodes say so often, in seconds, that they are up."""
    spec = {"Dispatcher": {"HeartbeatPeriod": heartbeat * 10**9}}
    return encoded(ClusterRecord(id="c", created="2026-01-01T00:00:00Z", spec=spec))


class Watchers:
    """What is told of signs of life: by the store, and by a host's mirror."""

    def __init__(self, watching: Session) -> None:
        self.gone: set[str] = set()
        """Nodes whose sign of life went from the store."""
        self.down: list[str] = []
        """Those of which the host believes it."""
        watching.mirror.on_missed.append(self.gone.add)
        watching.mirror.listeners.append(self._hear)

    def _hear(self, changes: list[Change]) -> None:
        self.down += [c.parts[0] for c in changes if c.kind == "alive" and c.after is None]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(patient(30)):
        while not condition():
            await asyncio.sleep(0.02)


@asynccontextmanager
async def two_nodes(member: EtcdMember, heartbeat: int) -> AsyncIterator[tuple[Session, Session, Watchers]]:
    """Of one cluster, and what the second is told."""
    async with Etcd([member.url]) as etcd:
        await etcd.put(keys.CLUSTER, cluster_of(heartbeat))
        for node in ("n1", "n2"):
            await etcd.put(keys.node(node), encoded(NodeRecord(id=node, name=node)))
    one, two = session(member, node="n1"), session(member, node="n2")
    await one.start()
    await two.start()
    try:
        await until(lambda: two.mirror.is_alive("n1"))
        yield one, two, Watchers(two)
    finally:
        await one.close()
        await two.close()


def test_leases_that_end_while_etcd_hangs_make_no_host_down(
    member: EtcdMember, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once it goes on, etcd revokes what it did not hear of before it listens."""
    monkeypatch.setattr("netengine.cluster.session._RETURN", 60.0)  # on whatever machine

    async def body() -> None:
        async with two_nodes(member, heartbeat=1) as (one, two, told):
            lease_over = time.monotonic() + 4
            await asyncio.to_thread(member.pause, True)
            try:
                await until(lambda: not one.connected and not two.connected and time.monotonic() > lease_over)
            finally:
                await asyncio.to_thread(member.pause, False)
            await until(lambda: told.gone == {"n1", "n2"})
            async with Etcd([member.url]) as etcd:
                await until(lambda: one.connected and two.connected)
                for node in ("n1", "n2"):
                    at = await etcd.get(keys.alive(node))
                    assert at is not None, f"{node} has not written itself anew"
                    await two.mirror.reached(at.modified)
            assert not told.down

    inside(member, body)


def test_a_lease_that_is_revoked_by_mistake_is_had_anew_at_once(member: EtcdMember) -> None:
    """As a leader does whose disk hung while the others had elected another."""

    async def body() -> None:
        async with two_nodes(member, heartbeat=600) as (_, two, told), Etcd([member.url]) as etcd:
            before = await etcd.get(keys.alive("n1"))
            assert before is not None
            await etcd.revoke(before.lease)
            async with asyncio.timeout(patient(20)):
                while (now := await etcd.get(keys.alive("n1"))) is None:
                    await asyncio.sleep(0.02)
            await two.mirror.reached(now.modified)
            assert told.gone == {"n1"}

    inside(member, body)


def test_a_node_is_believed_to_be_up_until_patience_ends(member: EtcdMember, tmp_path: Path) -> None:
    async def body() -> None:
        patience = 3600.0
        async with Etcd([member.url]) as etcd:
            for node in ("n1", "n2", "n3"):
                await etcd.put(keys.node(node), encoded(NodeRecord(id=node, name=node)))
                await etcd.put(keys.alive(node), b"{}")
            mirror = Mirror(etcd, tmp_path / "mirror.json", lambda: patience)
            told: list[Change] = []
            await mirror.load()
            mirror.listeners.append(told.extend)
            async with following(mirror):
                await mirror.reached(await etcd.delete(keys.alive("n"), prefix=True))
                assert all(mirror.is_alive(n) for n in ("n1", "n2", "n3")) and not told
                await mirror.reached(await etcd.put(keys.alive("n1"), b"{}"))
                assert [(c.kind, c.parts, c.before is not None) for c in told] == [("alive", ("n1",), True)]
                await mirror.reached(await etcd.delete(keys.node("n2")))
                assert not mirror.is_alive("n2"), "it is no node of the cluster any more"
            mirror.close()
            # Whoever starts in the middle of it has as much patience.
            mirror = Mirror(etcd, tmp_path / "mirror.json", lambda: patience)
            await mirror.restore()
            await mirror.load()
            assert mirror.is_alive("n1") and mirror.is_alive("n3")
            patience = 0.0
            async with following(mirror):
                await mirror.reached(await etcd.put(keys.node("n1"), encoded(NodeRecord(id="n1", name="uno"))))
                assert mirror.is_alive("n1") and not mirror.is_alive("n3")
            mirror.close()

    inside(member, body)


def test_a_node_that_leaves_is_down_at_once(member: EtcdMember) -> None:
    async def body() -> None:
        async with Etcd([member.url]) as etcd:
            await etcd.put(keys.node("n2"), encoded(NodeRecord(id="n2", name="two")))
        one, two = session(member, node="n1"), session(member, node="n2")
        await one.start()
        await two.start()
        await one.mirror.reached(two.mirror.revision)
        assert one.mirror.is_alive("n2")
        told = Watchers(one)
        await two.close(leaving=True)
        await until(lambda: not one.mirror.is_alive("n2"))
        assert not told.gone, "nobody waits for it"
        await one.close()

    inside(member, body)


def test_a_node_that_is_let_in_no_more_says_why() -> None:
    lonely = Session(
        Place("n1", "worker", "192.0.2.1"), Etcd(["http://h:1"]), nobody, StatusRecord(data_path="192.0.2.1")
    )
    with pytest.raises(Unavailable, match="store does not answer: a majority of the managers must be up"):
        lonely.check()
    lonely.refusal = "the certificate has expired"
    with pytest.raises(Unavailable, match=r"^the certificate has expired; what runs goes on$"):
        lonely.check()
