"""The shared part of a cluster's state in memory: read once, then followed by one watch.

What is told to listeners, and what crosses the network, grows with what changed and not with what exists. While etcd does
not answer the mirror stays as it was: nobody can say what changed. It is kept in a file too (keeping.py), so that a daemon that
starts meanwhile knows what the kernel was told by the one before it.

A node whose sign of life goes from the store is believed to be up for a while yet: leases end by mistake when a store comes
back from a disk that hung, and who is up writes itself anew as soon as it sees that (session.py).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from netengine.cluster import keys
from netengine.cluster.keeping import Keeping
from netengine.cluster.records import (
    BlockRecord,
    ClusterRecord,
    EndpointRecord,
    NetworkRecord,
    NodeRecord,
    StatusRecord,
)
from netengine.errors import NetengineError
from netengine.store.etcd import Compacted, Etcd

log = logging.getLogger(__name__)

T = TypeVar("T")

_DECODERS: dict[str, msgspec.json.Decoder[Any]] = {
    kind: msgspec.json.Decoder(record)
    for kind, record in {
        "cluster": ClusterRecord,
        "nodes": NodeRecord,
        "status": StatusRecord,
        "alive": Any,
        "networks": NetworkRecord,
        "vnis": Any,
        "blocks": BlockRecord,
        "endpoints": EndpointRecord,
    }.items()
}
_PARTS = {"cluster": 0, "blocks": 2, "endpoints": 3}
"""How many parts a key of a kind has besides; 1 where none is named."""
_JUDGE_LEAST = 0.02  # seconds between two looks at those that are missed


@dataclass(frozen=True, slots=True)
class Held(Generic[T]):
    """A record with the revision of its last change (mod_revision), for the transactions that must find it unchanged."""

    record: T
    revision: int


@dataclass(frozen=True, slots=True)
class Change:
    """One key came (`before` is None), changed, or went (`after` is None). `parts` are those of its key after the kind."""

    kind: str
    parts: tuple[str, ...]
    before: Any
    after: Any


Listener = Callable[[list[Change]], None]

FAREWELL: Any = {"leaves": True}
"""What a node that leaves writes as its sign of life, before that goes: nobody needs to wait for another."""


class Mirror:
    """The state below keys.SHARED. Used on the event loop; whoever reads it must not change what he reads."""

    def __init__(self, etcd: Etcd, file: Path | None = None, patience: Callable[[], float] = lambda: 0.0) -> None:
        """`patience` says for how many seconds a node is believed to be up whose sign of life has gone; asked ever anew."""
        self._etcd = etcd
        self._kept = Keeping(file, lambda: (self._revision, self._raw)) if file else None
        self._patience = patience
        self._missed: dict[str, float] = {}
        """Since when (monotonic) the store has no sign of life of nodes that are believed to be up."""
        self._judging: asyncio.TimerHandle | None = None
        self._held: dict[str, dict[tuple[str, ...], Held[Any]]] = {kind: {} for kind in _DECODERS}
        self._raw: dict[str, tuple[bytes, int]] = {}
        self._revision = 0
        self._loaded = False  # what a file has may lack what it was too early to believe
        self._changed = asyncio.Condition()
        self.listeners: list[Listener] = []
        """Called in turn with each batch of changes, on the event loop."""
        self.on_missed: list[Callable[[str], None]] = []
        """Called with the id of a node whose sign of life has just gone, whatever is believed of it."""

    # -- what is there ------------------------------------------------------------------------------------------------

    @property
    def revision(self) -> int:
        """Of etcd, up to which everything is here; 0 before anything was read."""
        return self._revision

    @property
    def cluster(self) -> Held[ClusterRecord] | None:
        return self._held["cluster"].get(())

    def node(self, node_id: str) -> Held[NodeRecord] | None:
        return self._held["nodes"].get((node_id,))

    def status(self, node_id: str) -> StatusRecord | None:
        held = self._held["status"].get((node_id,))
        return held.record if held else None

    def is_alive(self, node_id: str) -> bool:
        """Whether a node is believed to be up."""
        return (node_id,) in self._held["alive"]

    def network(self, network_id: str) -> Held[NetworkRecord] | None:
        return self._held["networks"].get((network_id,))

    def nodes(self) -> list[Held[NodeRecord]]:
        return [held for _, held in self._of("nodes")]

    def networks(self) -> list[Held[NetworkRecord]]:
        return [held for _, held in self._of("networks")]

    def blocks(self, network_id: str) -> dict[str, Held[BlockRecord]]:
        """The blocks of a network by CIDR."""
        return {keys.block_cidr(p[1]): held for p, held in self._of("blocks") if p[0] == network_id}

    def endpoints(self, network_id: str = "", node_id: str = "") -> Iterator[tuple[str, str, str, EndpointRecord]]:
        """(node, network, address, record) of each endpoint, or of those on one network or node."""
        for (node, network, address), held in self._of("endpoints"):
            if network_id in ("", network) and node_id in ("", node):
                yield node, network, address, held.record

    def endpoint(self, node_id: str, network_id: str, address: str) -> EndpointRecord | None:
        held = self._held["endpoints"].get((node_id, network_id, address))
        return held.record if held else None

    def _of(self, kind: str) -> list[tuple[tuple[str, ...], Held[Any]]]:
        return list(self._held[kind].items())

    # -- following ----------------------------------------------------------------------------------------------------

    async def load(self) -> None:
        """Read everything. What differs from before is told to the listeners. Raises Unavailable."""
        entries, revision = await self._etcd.read(keys.SHARED)
        self._revision = min(self._revision, revision)  # a store that was begun anew is at an earlier one
        found = {e.key: (e.value, e.modified) for e in entries}
        gone = [key for key in self._raw if key not in found]
        await self._take([*((key, *found[key]) for key in found), *((key, None, revision) for key in gone)], revision)
        self._loaded = True

    async def follow(self) -> None:
        """Keep up with etcd until cancelled. Raises nothing: while there is no answer it waits for one."""
        while True:
            try:
                if not self._loaded:
                    await self.load()
                async for changes, revision in self._etcd.watch(keys.SHARED, self._revision):
                    entries = ((c.entry.key, None if c.deleted else c.entry.value, c.entry.modified) for c in changes)
                    await self._take(entries, revision)
            except Compacted:
                with suppress(NetengineError):
                    await self.load()
                await asyncio.sleep(0.1)
            except NetengineError as e:
                log.debug("the cluster's state cannot be read: %s", e)
                await asyncio.sleep(0.5)

    async def reached(self, revision: int) -> None:
        """Wait until everything up to a revision is here: what this host wrote itself is then read back."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._revision >= revision)

    async def _take(self, entries: Iterable[tuple[str, bytes | None, int]], revision: int) -> None:
        """Take keys over with their values, None for one that is gone."""
        changes = []
        new: dict[str, tuple[bytes, int] | None] = {}
        for key, value, modified in entries:
            if value is not None and self._raw.get(key) == (value, modified):
                continue
            kind, parts = keys.split(key)
            after = None if value is None else _decoded(key, kind, parts, value)
            held = self._held.get(kind, {})  # of a kind that is not known here nothing is held
            before = held.get(parts)
            if kind == "alive" and before is not None:
                if value is None and before.record != FAREWELL:
                    self._miss(parts[0])
                    continue
                self._missed.pop(parts[0], None)
            new[key] = None if value is None else (value, modified)
            if value is None:
                self._raw.pop(key, None)
            else:
                self._raw[key] = (value, modified)
            if after is None:
                held.pop(parts, None)
            else:
                held[parts] = Held(after, modified)
            if before is not None or after is not None:
                changes.append(Change(kind, parts, before.record if before else None, after))
        self._revision = max(self._revision, revision)
        gone = self._given_up()
        new |= {keys.alive(c.parts[0]): None for c in gone}
        if new and self._kept is not None:
            self._kept.add(self._revision, new)
        if changes or gone:
            self._tell(changes + gone)
        async with self._changed:
            self._changed.notify_all()

    # -- those that are missed ----------------------------------------------------------------------------------------

    def _miss(self, node_id: str) -> None:
        if node_id in self._missed:
            return
        self._missed[node_id] = time.monotonic()
        for told in list(self.on_missed):
            told(node_id)

    def _given_up(self) -> list[Change]:
        """Nodes that nobody believes in any more: they were missed for long enough, or are none of the cluster's. Whoever is
        left is looked at again in time."""
        changes, patience, at = [], self._patience(), time.monotonic()
        for node_id, since in list(self._missed.items()):
            if at - since >= patience or self.node(node_id) is None:
                del self._missed[node_id]
                self._raw.pop(keys.alive(node_id), None)
                held = self._held["alive"].pop((node_id,))
                changes.append(Change("alive", (node_id,), held.record, None))
        if self._judging is not None:
            self._judging.cancel()
            self._judging = None
        if self._missed:
            next_ = max(_JUDGE_LEAST, min(self._missed.values()) + patience - at)
            self._judging = asyncio.get_running_loop().call_later(next_, self._judge)
        return changes

    def _judge(self) -> None:
        self._judging = None
        if gone := self._given_up():
            if self._kept is not None:
                self._kept.add(self._revision, {keys.alive(c.parts[0]): None for c in gone})
            self._tell(gone)

    def _tell(self, changes: list[Change]) -> None:
        for listener in list(self.listeners):
            try:
                listener(changes)
            except Exception:  # one that fails must not end the following of all others
                log.exception("a change of the cluster's state could not be taken in")

    # -- the file -----------------------------------------------------------------------------------------------------

    async def restore(self) -> bool:
        """Take over what the file has; whether there was anything. Nothing is told to listeners."""
        found = self._kept.read() if self._kept is not None else None
        if found is None:
            return False
        revision, state = found
        kept, self._kept = self._kept, None
        told, self.listeners = self.listeners, []
        try:
            await self._take(((key, *value) for key, value in state.items()), revision)
        finally:
            self._kept, self.listeners = kept, told
        return True

    def close(self) -> None:
        """Let go of the file: everything is in it. A node that is missed is believed in by who starts next."""
        if self._judging is not None:
            self._judging.cancel()
            self._judging = None
        if self._kept is not None:
            self._kept.close()


def _decoded(key: str, kind: str, parts: tuple[str, ...], value: bytes) -> Any:
    """The record of a key, or None when it is not one that this version knows, or damaged: nobody is to fall over it."""
    decoder = _DECODERS.get(kind)
    if decoder is None or len(parts) != _PARTS.get(kind, 1):
        log.warning("the cluster's store has a key that nobody here knows: %.200s", key)
        return None
    try:
        return decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        log.warning("the cluster's store has a damaged value at %.200s: %s", key, e)
        return None
