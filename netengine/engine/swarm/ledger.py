"""What managers keep in etcd beside what all nodes see: the authority, the tokens; and how records of nodes are changed there.

Reads are of etcd itself, never of the mirror: who decides by them must not be behind.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

import msgspec

from netengine.cluster import blocks, keys, member, members, users
from netengine.cluster.records import MANAGER, NO_MEMBER, WORKER, ClusterRecord, NodeRecord
from netengine.engine.core import now
from netengine.engine.swarm import specs
from netengine.errors import Conflict, NetengineError, NotFound, Unavailable
from netengine.store.etcd import Compare, Delete, Entry, Etcd, Put, Step

if TYPE_CHECKING:
    from netengine.cluster.certificates import Authority

log = logging.getLogger(__name__)

AUTHORITY = keys.SECRET + "authority"
TOKENS = keys.SECRET + "tokens"
TRIES = 5
_ELECTION_SECONDS = 15.0
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


class Tokens(msgspec.Struct, kw_only=True):
    """The secrets of the join tokens."""

    worker: str
    manager: str

    def __repr__(self) -> str:
        return "<Tokens>"


def new_id() -> str:
    """An id of a node or cluster, in Docker's form: 25 digits of base 36."""
    return "".join(secrets.choice(_DIGITS) for _ in range(25))


async def authority(etcd: Etcd) -> Authority:
    from netengine.cluster.certificates import Authority

    entry = await etcd.get(AUTHORITY)
    if entry is None:
        raise Unavailable("the cluster's store has no root certificate: it was emptied by somebody")
    return msgspec.json.decode(entry.value, type=Authority)


async def tokens(etcd: Etcd) -> Tokens:
    entry = await etcd.get(TOKENS)
    if entry is None:
        raise Unavailable("the cluster's store has no join tokens: it was emptied by somebody")
    return msgspec.json.decode(entry.value, type=Tokens)


async def cluster(etcd: Etcd) -> ClusterRecord:
    entry = await etcd.get(keys.CLUSTER)
    if entry is None:
        raise Unavailable("the cluster's store has no record of the cluster: it was emptied by somebody")
    return msgspec.json.decode(entry.value, type=ClusterRecord)


async def node(etcd: Etcd, node_id: str) -> NodeRecord:
    """Raises NotFound."""
    entry = await etcd.get(keys.node(node_id))
    if entry is None:
        raise NotFound(f"node {node_id} not found")
    return msgspec.json.decode(entry.value, type=NodeRecord)


async def amend(etcd: Etcd, node_id: str, change: Callable[[NodeRecord], None]) -> NodeRecord:
    """Change a node's record, whoever else does so at the same time. Raises NotFound, Conflict."""
    key = keys.node(node_id)
    for _ in range(TRIES):
        entry = await etcd.get(key)
        if entry is None:
            raise NotFound(f"node {node_id} not found")
        record = msgspec.json.decode(entry.value, type=NodeRecord)
        change(record)
        record.updated = now()
        value = msgspec.json.encode(record)
        if (await etcd.transact([Compare(key, "MOD", entry.modified)], [Put(key, value)])).succeeded:
            return record
    raise Conflict(f"the record of node {node_id} is changed by others all the time: try again")


OUT_OF_SEQUENCE = "update out of sequence"


async def seen(etcd: Etcd, key: str, version: int, what: Callable[[bytes], object]) -> Entry:
    """The record as it is, of which a user saw that version. What the cluster itself has changed since (a certificate, the
    number of a member) does not make it another; `what` is the part that users change. Raises Conflict."""
    entry = await etcd.get(key)
    if entry is None:
        raise Conflict(OUT_OF_SEQUENCE)
    if entry.modified != version:
        try:
            then = await etcd.get(key, version) if version > 0 else None
        except NotFound:
            then = None
        if then is None or then.modified != version or what(then.value) != what(entry.value):
            raise Conflict(OUT_OF_SEQUENCE)
    return entry


def traces(node_id: str) -> list[Step]:
    """Deletes all that etcd has of a node."""
    return [
        Delete(keys.node(node_id)),
        Delete(keys.status(node_id)),
        Delete(keys.alive(node_id)),
        Delete(keys.endpoints(node_id), prefix=True),
    ]


async def forget_node(etcd: Etcd, record: NodeRecord) -> None:
    """The node is none any more: its member of etcd, its record and what it has said, its user."""
    await dismiss(etcd, record)
    await etcd.transact((), traces(record.id))
    await shut_out(etcd, record.id)


async def shut_out(etcd: Etcd, node_id: str) -> None:
    """The node speaks to etcd no more, and what it had there is free."""
    if (await cluster(etcd)).store_users:
        await users.dismiss(etcd, node_id)
    await blocks.forget(etcd, node_id)


async def demote(etcd: Etcd, record: NodeRecord) -> None:
    """A manager becomes a worker: out of etcd first, so that it never ends while the others still count it."""
    await dismiss(etcd, record)
    await amend(etcd, record.id, _as_worker)


def _as_worker(record: NodeRecord) -> None:
    record.role, record.member = WORKER, ""


def as_manager(record: NodeRecord) -> None:
    """In an etcd outside of the cluster: it has become what it was promoted to, unless it was demoted meanwhile."""
    if record.role == MANAGER:
        record.member = NO_MEMBER


async def dismiss(etcd: Etcd, record: NodeRecord) -> None:
    """Take the node's members out of etcd: the one that its record names, and one that was added and never heard of.

    Raises Unavailable where the others could not go on without it. The members of an etcd outside of the cluster are not ours.
    """
    if etcd.foreign:
        return
    peer, gone = member.urls_of(record.address).peer, False
    for one in await etcd.members():
        if f"{one.id:x}" == record.member or one.name == record.id or peer in one.peer_urls:
            await members.remove(etcd, one)
            gone = True
    if gone:
        await _answering(etcd)


async def _answering(etcd: Etcd) -> None:
    """Wait until etcd answers: the member that went may have been its leader, and another is elected within seconds."""
    deadline = time.monotonic() + _ELECTION_SECONDS
    while True:
        try:
            await etcd.get(keys.CLUSTER)
            return
        except Unavailable:
            if time.monotonic() > deadline:
                raise
        await asyncio.sleep(0.1)


async def forget_quietly(etcd: Etcd, record: NodeRecord) -> None:
    try:
        await forget_node(etcd, record)
    except NetengineError as e:
        log.warning("what was made for node %s could not be taken back: %s", record.id, e.message)


async def keep_only(etcd: Etcd, node_id: str) -> None:
    """One manager is left, and etcd has its member alone: all others are workers, once they come back."""
    entries, _ = await etcd.read(keys.node(""))
    for entry in entries:
        record = msgspec.json.decode(entry.value, type=NodeRecord)
        if record.id != node_id and (record.role == MANAGER or record.member):
            await amend(etcd, record.id, _as_worker)


# -- certificates -----------------------------------------------------------------------------------------------------


def issue(
    authority: Authority, cluster: ClusterRecord, record: NodeRecord, request: str, addresses: Sequence[str]
) -> str:
    """A certificate for the node, valid for as long as the cluster's specification says; fills in the record."""
    from netengine.cluster import certificates

    life = timedelta(seconds=specs.certificate_seconds(cluster.spec))
    made = certificates.issue(
        authority, request, record.id, record.role, cluster.id, [a for a in addresses if a], life=life
    )
    record.serial = certificates.read(made).serial
    record.issuer = certificates.digest(authority.certificate).hex()
    return made


async def note_certificate(etcd: Etcd, node_id: str, certificate: str, authority: Authority) -> None:
    from netengine.cluster import certificates

    serial, issuer = certificates.read(certificate).serial, certificates.digest(authority.certificate).hex()

    def change(record: NodeRecord) -> None:
        record.serial, record.issuer = serial, issuer

    await amend(etcd, node_id, change)
