"""Changes of the cluster's store taken into the model, the kernel and the name server, batch by batch.

The work grows with what changed: of a new endpoint elsewhere a forwarding entry and a neighbour are made here, and its names
told. Changes wait in a queue while an operation is under way.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

from netengine import failpoints
from netengine.cluster import keys
from netengine.cluster.mirror import Change
from netengine.cluster.records import BlockRecord, EndpointRecord
from netengine.cluster.session import Session
from netengine.drivers.overlay import mac_for
from netengine.drivers.underlay import Peer
from netengine.engine import reconcile
from netengine.engine.core import Core
from netengine.engine.names import Names
from netengine.engine.overlay import fabric
from netengine.engine.overlay.encryption import host_of
from netengine.engine.overlay.fabric import Place
from netengine.engine.overlay.peers import peer_of
from netengine.errors import NetengineError
from netengine.kernel import gratuitous
from netengine.kernel.resources import Resource
from netengine.model import Network

log = logging.getLogger(__name__)

_WORDS = 256  # at once: each goes to every sandbox of its network
_AGAIN = 1.0  # seconds until what could not be taken in is tried again

Key = tuple[str, str, str]
"""Network, node, address."""


@dataclass
class _Delta:
    """What a batch means."""

    want: set[Resource] = field(default_factory=set)
    have: set[Resource] = field(default_factory=set)
    named: dict[str, dict[str, EndpointRecord | None]] = field(default_factory=dict)
    """By network and endpoint; None for one that is gone."""
    words: list[gratuitous.Word] = field(default_factory=list)
    """What sandboxes here may have asked for already."""


class Following:
    """Follows one session's mirror. `networks_changed` takes new and gone networks into the model, under the writer lock."""

    def __init__(
        self,
        core: Core,
        names: Names,
        session: Session,
        networks_changed: Callable[[set[str]], Awaitable[None]],
    ) -> None:
        self._core = core
        self._names = names
        self._session = session
        self._networks_changed = networks_changed
        self._queue: list[Change] = []
        self._heard = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._missed = False
        self._blocks: dict[str, dict[str, BlockRecord]] = {}
        self._records: dict[Key, EndpointRecord] = {}
        """Those of peers that are believed and up."""
        self._macs: dict[str, dict[str, Place]] = {}
        self._task: asyncio.Task[None] | None = None

    def take_all(self) -> None:
        """Fill the model with the mirror as it is, before or instead of the first batch. The kernel is somebody else's."""
        mirror = self._session.mirror
        self._core.state.fabric.peers.clear()
        self._core.state.fabric.named.clear()
        for network_id in {n.record.network.id for n in mirror.networks()}:
            self._blocks[network_id] = {cidr: held.record for cidr, held in mirror.blocks(network_id).items()}
        self._core.state.fabric.hosts.clear()
        self._take_hosts(_Delta(), {held.record.id for held in mirror.nodes()})
        self._settle(_Delta(), [(network, node, address) for node, network, address, _ in mirror.endpoints()])

    def begin(self) -> None:
        self._session.mirror.listeners.append(self.hear)
        self._task = asyncio.create_task(self._run(), name="overlay")

    async def end(self) -> None:
        if self.hear in self._session.mirror.listeners:
            self._session.mirror.listeners.remove(self.hear)
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def hear(self, changes: list[Change]) -> None:
        self._queue += changes
        self._idle.clear()
        self._heard.set()

    async def caught_up(self, revision: int) -> None:
        """Return when the model has what the store had in that revision."""
        await self._session.mirror.reached(revision)
        await self._idle.wait()

    async def _run(self) -> None:
        while True:
            await self._heard.wait()
            self._heard.clear()
            try:
                await self._next()
            except Exception as e:  # a full disk, say: what was lost of the batch is looked up in the mirror
                known = isinstance(e, NetengineError)
                log.error("changes in the cluster cannot be taken in now, and will be: %s", e, exc_info=not known)
                self._missed = True
                await asyncio.sleep(_AGAIN)
                self._heard.set()
            if not self._queue and not self._missed:
                self._idle.set()

    async def _next(self) -> None:
        async with self._core.lock:
            batch, self._queue = self._queue, []
            if self._missed:
                batch += self._everything()
            await self._networks_changed({c.parts[0] for c in batch if c.kind == "networks"})
            delta = _Delta()
            if nodes := {c.parts[0] for c in batch if c.kind == "status" and _matters(c)}:
                self._take_hosts(delta, nodes)
            self._settle(delta, self._affected(batch))
            await self._apply(delta)
            failpoints.reach("overlay: changes taken in")
            self._missed = False
        for network_id, entries in delta.named.items():
            network = self._core.state.networks.get(network_id)
            if network is not None:
                await self._names.elsewhere(network, entries)

    async def _apply(self, delta: _Delta) -> None:
        if not delta.want and not delta.have:
            return
        core = self._core
        try:
            await core.on_kernel(core.kernel.apply, delta.want, delta.have)
            if delta.words:
                await core.on_kernel(gratuitous.say, core.kernel, delta.words[:_WORDS])
        except NetengineError as e:
            log.warning("the way to endpoints on other hosts is put right as a whole: %s", e)
            for problem in await reconcile.mend(core, await reconcile.host_difference(core)):
                log.error("%s", problem)
            core.look_around()

    def _everything(self) -> list[Change]:
        """As if all had just come, and what is no longer there had just gone."""
        mirror, shared = self._session.mirror, [n for n in self._core.state.networks.values() if n.overlay is not None]
        out = [Change("networks", (n.record.network.id,), None, n.record) for n in mirror.networks()]
        out += [Change("networks", (n.id,), n, None) for n in shared if mirror.network(n.id) is None]
        out += [Change("status", (n.record.id,), None, mirror.status(n.record.id)) for n in mirror.nodes()]
        out += [Change("endpoints", (node, net, a), None, record) for node, net, a, record in mirror.endpoints()]
        out += [Change("endpoints", (node, net, a), record, None) for (net, node, a), record in self._records.items()]
        for network_id in (n.record.network.id for n in mirror.networks()):
            self._blocks[network_id] = {cidr: held.record for cidr, held in mirror.blocks(network_id).items()}
        return out

    # -- what a batch is about ----------------------------------------------------------------------------------------

    def _affected(self, batch: list[Change]) -> list[Key]:
        """The endpoints to be looked at anew. Blocks are noted on the way."""
        own, mirror = self._session.place.node_id, self._session.mirror
        out: dict[Key, None] = {}
        for change in batch:
            match change.kind, change.parts:
                case "blocks", (network_id, part):
                    cidr = keys.block_cidr(part)
                    if change.after is None:
                        self._blocks.get(network_id, {}).pop(cidr, None)
                    else:
                        self._blocks.setdefault(network_id, {})[cidr] = change.after
                case "endpoints", (node, network_id, address) if node != own:
                    out[network_id, node, address] = None
                case (("alive" | "status"), (node,)) if node != own and _matters(change):
                    out |= {(net, n, address): None for n, net, address, _ in mirror.endpoints(node_id=node)}
                case "networks", (network_id,):
                    out |= {(network_id, n, address): None for n, _, address, _ in mirror.endpoints(network_id)}
                    out |= {key: None for key in self._records if key[0] == network_id}
        return list(out)

    def _take_hosts(self, delta: _Delta, nodes: set[str]) -> None:
        """Note the keys of other hosts, and what that means to a WireGuard link that is here."""
        state = self._core.state
        hosts = state.fabric.hosts
        before = fabric.common(state.fabric, state.networks, state.containers)
        for node in nodes - {self._session.place.node_id}:
            status = self._session.mirror.status(node)
            hosts.pop(node, None)
            if status is None or not status.wireguard_key:
                continue
            try:
                hosts[node] = host_of(node, status.wireguard_key, status.data_path, status.wireguard_port, hosts)
            except (NetengineError, ValueError) as e:
                log.warning("node %s has no way to encrypted networks here: %s", node, e)
        after = fabric.common(state.fabric, state.networks, state.containers)
        delta.have |= before - after
        delta.want |= after - before

    def _settle(self, delta: _Delta, affected: Iterable[Key]) -> None:
        """Make the peers in the model what the records say, and note what that means to the kernel and the name server."""
        current = {(net, n, a): record for n, net, a, record in self._wanted(affected)}
        for key in affected:
            network_id, node, address = key
            place = (node, address)
            peers = self._core.state.fabric.peers.setdefault(network_id, {})
            network = self._core.state.networks.get(network_id)
            record = current.get(key)
            before, after = peers.get(place), self._peer(network, place, record)
            known = self._records.get(key)
            self._note(network_id, place, before, after)
            if after is not None and record is not None:
                peers[place], self._records[key] = after, record
            else:
                peers.pop(place, None)
                self._records.pop(key, None)
            if network is not None and before != after and self._is_here(network):
                delta.have |= fabric.ways(self._core.state.fabric, network, [before] if before else [])
                delta.want |= fabric.ways(self._core.state.fabric, network, [after] if after else [])
                if after is not None and network.overlay is not None:
                    delta.words += [gratuitous.Word(network.overlay.link, after.mac, a) for a in after.addresses]
            self._name(delta, network_id, known, record if after is not None else None)

    def _name(
        self, delta: _Delta, network_id: str, before: EndpointRecord | None, after: EndpointRecord | None
    ) -> None:
        if before == after:
            return
        named, told = self._core.state.fabric.named.setdefault(network_id, {}), delta.named.setdefault(network_id, {})
        if before is not None and (after is None or before.id != after.id):
            named.pop(before.id, None)
            told.setdefault(before.id, None)
        if after is not None:
            named[after.id] = told[after.id] = after

    def _wanted(self, affected: Iterable[Key]) -> Iterable[tuple[str, str, str, EndpointRecord]]:
        mirror, own = self._session.mirror, self._session.place.node_id
        for network_id, node, address in affected:
            if node != own and mirror.is_alive(node):
                record = mirror.endpoint(node, network_id, address)
                if record is not None:
                    yield node, network_id, address, record

    def _peer(self, network: Network | None, place: Place, record: EndpointRecord | None) -> Peer | None:
        if network is None or record is None:
            return None
        status = self._session.mirror.status(place[0])
        try:
            blocks, macs = self._blocks.get(network.id, {}), self._macs.get(network.id, {})
            cluster = self._session.mirror.cluster
            return peer_of(network, blocks, place, record, status, macs, cluster.record.id if cluster else "")
        except (NetengineError, ValueError) as e:
            log.warning("node %s says that it has endpoint %.80s on network %s, and is not believed: %s",
                        place[0], record.name, network.name, e)  # fmt: skip
            return None

    def _note(self, network_id: str, place: Place, before: Peer | None, after: Peer | None) -> None:
        """Keep the account of MACs that were wished for."""
        macs = self._macs.setdefault(network_id, {})
        if before is not None and macs.get(before.mac) == place:
            del macs[before.mac]
        if after is not None and (":" in after.addresses[0] or after.mac != mac_for(after.addresses[0])):
            macs[after.mac] = place

    def _is_here(self, network: Network) -> bool:
        return any(network.id in c.endpoints for c in self._core.state.containers.values())


def _matters(change: Change) -> bool:
    """Whether a node has come, gone or moved: that it says the same again, or something about its memory, is nothing."""
    if change.kind == "alive":
        return (change.before is None) != (change.after is None)
    before, after = change.before, change.after
    fields = ("data_path", "wireguard_key", "wireguard_port")
    return any(getattr(before, f, None) != getattr(after, f, None) for f in fields)
