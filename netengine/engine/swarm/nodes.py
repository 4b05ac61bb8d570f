"""The nodes of a cluster as a manager sees and changes them: what is written here, each node itself carries out.

A change of role is a change of the node's record; the node that it is about watches its record and becomes what it says
(membership.py). What would leave etcd without a majority is refused before anything is written.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import msgspec

from netengine.cluster import keys
from netengine.cluster.mirror import Held
from netengine.cluster.records import CONTROL_PORT, MANAGER, WORKER, NodeRecord, StatusRecord
from netengine.cluster.session import Session
from netengine.engine.core import now
from netengine.engine.swarm import ledger, specs
from netengine.engine.swarm.addresses import with_port
from netengine.engine.swarm.requests import NodeSpec
from netengine.errors import Conflict, Invalid, NetengineError, NotFound
from netengine.store.etcd import Compare, Put

READY, DOWN, UNKNOWN = "ready", "down", "unknown"


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node as it is shown. `reachability` is "" for a worker."""

    record: NodeRecord
    revision: int
    status: StatusRecord | None
    state: str
    message: str
    is_leader: bool
    reachability: str

    @property
    def control(self) -> str:
        """ADDRESS:PORT of its control service."""
        return with_port(self.record.address, CONTROL_PORT)


class Membership(Protocol):
    """What is asked of this host's own membership."""

    def managing(self) -> Session:
        """Raises Unavailable on a host that is no manager."""
        ...

    async def dismiss(self, record: NodeRecord) -> None:
        """Take the node's member out of etcd, if it has one."""
        ...

    async def forget_node(self, record: NodeRecord) -> None:
        """Take back what lets a node that was removed speak to etcd."""
        ...


class Nodes:
    """The operations on nodes, on a manager."""

    def __init__(self, membership: Membership) -> None:
        self._membership = membership

    async def list(self) -> list[NodeView]:
        session = self._membership.managing()
        leader = await leader_of(session)
        held = sorted(settled(session), key=lambda h: (h.record.created, h.record.id))
        return [view(session, one, leader) for one in held]

    async def inspect(self, reference: str) -> NodeView:
        session = self._membership.managing()
        return view(session, find(session, reference), await leader_of(session))

    async def update(self, reference: str, version: int, asked: NodeSpec) -> None:
        """Replace a node's specification. Raises Conflict when it is no longer the one that the caller saw."""
        session = self._membership.managing()
        key = keys.node(find(session, reference).record.id)
        wanted = specs.node_spec(asked)
        session.check()
        for _ in range(ledger.TRIES):
            entry = await ledger.seen(session.etcd, key, version, _spec)
            record = msgspec.json.decode(entry.value, type=NodeRecord)
            demoted = record.role == MANAGER and wanted.role == WORKER
            if demoted:
                self._check_demotion(session, record)
                # Out of etcd before the node hears of it: it ends its member then, and the others must not count on that any
                # more.
                await self._membership.dismiss(record)
            changed = msgspec.structs.replace(
                record, role=wanted.role, availability=wanted.availability, labels=wanted.labels or {}, updated=now()
            )
            if demoted:
                changed.member = ""
            put = Put(key, msgspec.json.encode(changed))
            outcome = await session.etcd.transact([Compare(key, "MOD", entry.modified)], [put])
            if outcome.succeeded:
                await session.mirror.reached(outcome.revision)
                return
            # A member that did not answer in time may have done it all the same, before another was asked.
            found = await session.etcd.get(key)
            if found is not None and _spec(found.value) == _spec(put.value):
                await session.mirror.reached(found.modified)
                return
        raise Conflict(ledger.OUT_OF_SEQUENCE)

    def _check_demotion(self, session: Session, record: NodeRecord) -> None:
        managers = [h.record for h in session.mirror.nodes() if h.record.role == MANAGER]
        if len(managers) <= 1:
            raise Invalid("attempting to demote the last manager of the swarm")
        if (cluster := session.mirror.cluster) and cluster.record.store:
            return  # no manager has a vote in that one
        left = [m for m in managers if m.id != record.id]
        alive = sum(1 for m in left if session.mirror.is_alive(m.id))
        if alive <= len(left) // 2:
            raise Invalid(
                f"can't remove member from the cluster's store: this would result in a loss of quorum ({alive} of the "
                f"{len(left)} managers that would be left are up)"
            )

    async def remove(self, reference: str, *, force: bool) -> None:
        """Forget a node, and give back what it had. Raises Invalid while it is a manager, or up unless by `force`."""
        session = self._membership.managing()
        held = find(session, reference)
        record = held.record
        if record.role == MANAGER or record.member:
            raise Invalid(
                f"node {record.id} is a cluster manager and is a member of the raft cluster. It must be demoted to worker "
                "before removal"
            )
        if session.mirror.is_alive(record.id) and not force:
            raise Invalid(f"node {record.id} is not down and can't be removed")
        session.check()
        key = keys.node(record.id)
        entry = await ledger.seen(session.etcd, key, held.revision, _spec)
        outcome = await session.etcd.transact([Compare(key, "MOD", entry.modified)], ledger.traces(record.id))
        if not outcome.succeeded:
            raise Conflict(ledger.OUT_OF_SEQUENCE)
        await self._membership.forget_node(record)
        await session.mirror.reached(outcome.revision)


def _spec(value: bytes) -> object:
    """What of a node's record its users change."""
    record = msgspec.json.decode(value, type=NodeRecord)
    return record.role, record.availability, record.labels


def settled(session: Session) -> list[Held[NodeRecord]]:
    """The nodes that have said something of themselves: one that has not is about to join, or could not."""
    return [held for held in session.mirror.nodes() if session.mirror.status(held.record.id) is not None]


def find(session: Session, reference: str) -> Held[NodeRecord]:
    """By id, "self", name, or the beginning of an id. Raises NotFound, and Invalid when several match."""
    wanted = session.place.node_id if reference == "self" else reference
    exact = session.mirror.node(wanted)
    if exact is not None:
        return exact
    nodes = settled(session)
    found = [h for h in nodes if h.record.name == wanted] or [
        h for h in nodes if wanted and h.record.id.startswith(wanted)
    ]
    if not found:
        raise NotFound(f"node {reference} not found")
    if len(found) > 1:
        raise Invalid(f"node {reference} is ambiguous ({len(found)} matches found)")
    return found[0]


async def leader_of(session: Session) -> str:
    """The number of etcd's leader in hexadecimal; "" when there is none, or nobody can say."""
    cluster = session.mirror.cluster
    if not session.connected or (cluster and cluster.record.store):
        return ""
    try:
        leader = await session.etcd.leader()
    except NetengineError:
        return ""
    return f"{leader:x}" if leader else ""


def view(session: Session, held: Held[NodeRecord], leader: str) -> NodeView:
    record = held.record
    state, message = _state(session, record.id)
    reachability = ""
    if record.member:
        reachability = {READY: "reachable", DOWN: "unreachable"}.get(state, UNKNOWN)
    return NodeView(
        record=record,
        revision=held.revision,
        status=session.mirror.status(record.id),
        state=state,
        message=message,
        is_leader=bool(leader) and record.member == leader,
        reachability=reachability,
    )


def _state(session: Session, node_id: str) -> tuple[str, str]:
    """Of a node, and a word on it. While the store does not answer nobody can say of another whether it is up."""
    if node_id == session.place.node_id:
        return READY, ""
    if not session.connected:
        return UNKNOWN, "the cluster's store does not answer"
    return (READY, "") if session.mirror.is_alive(node_id) else (DOWN, "heartbeat failure")
