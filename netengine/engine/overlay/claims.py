"""Addresses got and endpoints published before an operation, without the writer lock; withdrawn after it.

An operation that connects a container to an overlay network is handed a claim: an address that the store says is this host's,
with an endpoint that the others know already. If the operation fails the claim is given up. What cannot be withdrawn at once,
because a majority of the managers is away, is withdrawn when it is back; until then nobody gets the address.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from ipaddress import ip_address, ip_network
from typing import Literal

from netengine import failpoints
from netengine.cluster import blocks, ranges
from netengine.cluster.blocks import View, addresses_of
from netengine.cluster.mirror import Change
from netengine.cluster.records import EndpointRecord
from netengine.cluster.session import Session
from netengine.drivers.overlay import mac_for
from netengine.engine.core import Core, new_id
from netengine.engine.files import hostname_of
from netengine.engine.overlay.fabric import Claim
from netengine.engine.overlay.peers import DERIVED
from netengine.engine.overlay.uplink import remedy, too_small
from netengine.errors import Forbidden, Invalid, NetengineError, NotFound, Unavailable
from netengine.ipam import random_mac
from netengine.model import Attachment, Container, Endpoint, Network

log = logging.getLogger(__name__)

_TRIES = 10
_AGAIN = 1.0  # seconds until what could not be withdrawn is tried again
_KEEP = 30.0  # seconds without an endpoint on a network after which its blocks are given back
_AT_ONCE = 100  # etcd takes 128 steps in one transaction

GONE = "this host belongs to no swarm any more: network {} is out of reach"


class Claims:
    """Those of one session."""

    def __init__(self, core: Core, session: Session) -> None:
        self._core = core
        self._session = session
        self._etcd = session.etcd
        self._node = session.place.node_id
        self._pending: set[tuple[str, str]] = set()
        """(network, address) of claims that the model does not know yet."""
        self._last: dict[tuple[str, int], str] = {}
        """The address given away last, by network and family: the next one follows it."""
        self._writing = asyncio.Lock()
        """An endpoint is not published while the one that had its address before is withdrawn."""
        self._asking = asyncio.Lock()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._told = 0
        """How many addresses the log says are given back later."""
        self._ending = self._closed = False

        session.mirror.listeners.append(self._heard)

    def close(self) -> None:
        if self._heard in self._session.mirror.listeners:
            self._session.mirror.listeners.remove(self._heard)
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self._closed = True

    # -- taking -------------------------------------------------------------------------------------------------------

    async def take(self, container: Container, network: Network, wish: Attachment) -> Claim:
        """Raises Unavailable without a majority of managers or a free address, Forbidden for an address that is taken."""
        self._check(network)
        if not self._core.state.fabric.is_possible(network):
            raise Unavailable(f"network {network.name} is encrypted, and this host has no WireGuard link (yet)")
        underlay = self._core.state.fabric.underlay
        if underlay is not None and self._core.state.fabric.lacks_ipv6(network):
            raise Unavailable(f"{too_small(network, underlay)}: {remedy(network, underlay)}")
        view = self._seen(network)
        for _ in range(_TRIES):
            picked: list[str] = []
            try:
                record = await self._pick(container, network, wish, view, picked)
                if record is not None and await self._publish(view, network, record):
                    return Claim(network.id, record)
            except BaseException:
                # Perhaps it was published and only the answer is missing.
                self._core.state.fabric.leaving |= {(network.id, a) for a in picked}
                self._pending -= {(network.id, a) for a in picked}
                self._later()
                raise
            self._pending -= {(network.id, a) for a in picked}
            view = await blocks.read(self._etcd, network.id)
        raise Unavailable(f"too many containers come to network {network.name} at this moment: try again")

    def _check(self, network: Network) -> None:
        """Raise Unavailable when nobody may come to the networks any more, or the store is known not to answer."""
        if self._ending:
            raise Unavailable(GONE.format(network.name))
        self._session.check()

    async def _publish(self, view: View, network: Network, record: EndpointRecord) -> bool:
        async with self._writing:
            self._check(network)
            failpoints.reach("overlay: before the publication")
            done = await blocks.publish(self._etcd, view, self._node, record)
            failpoints.reach("overlay: published")
            if done:
                self._core.state.fabric.leaving -= {(network.id, a) for a in addresses_of(record)}
            return done

    def _seen(self, network: Network) -> View:
        """The network as the mirror has it. It may be behind: then the transaction fails, and the store is asked."""
        mirror = self._session.mirror
        held = mirror.network(network.id)
        if held is None:
            raise NotFound(f"network {network.name} not found")
        return View(held.record.network, held.revision, mirror.blocks(network.id))

    async def _pick(
        self, container: Container, network: Network, wish: Attachment, view: View, picked: list[str]
    ) -> EndpointRecord | None:
        """A record with addresses that this host may give away; None when one had to be asked for, and the view is old."""
        found: dict[int, str] = {}
        families: list[tuple[Literal[4, 6], bool, str]] = [
            (4, network.enable_ipv4, wish.ip),
            (6, network.enable_ipv6, wish.ip6),
        ]
        for version, has, wanted in families:
            if not has:
                continue
            if wanted and not self._is_free(network, wanted):
                subnet = ranges.subnet_of(network, ip_address(wanted))
                if wanted == subnet.gateway:
                    raise Forbidden(f"Address already in use ({wanted} is the gateway of {subnet.subnet})")
                raise Forbidden(f"Address already in use ({wanted} is held or reserved on this host)")
            address = self._of_ours(container, network, view, version, wanted)
            if not address:
                await self._acquire(container, network, version, wanted)
                return None
            picked.append(address)
            self._pending.add((network.id, address))
            found[version] = address
        lengths = {v: ip_network(ranges.subnet_of(network, ip_address(a)).subnet).prefixlen for v, a in found.items()}
        cidrs = {v: f"{a}/{lengths[v]}" for v, a in found.items()}
        mac = _mac(wish.mac, found.get(4, ""))
        record = EndpointRecord(id=new_id(), container_id=container.id, name=container.name, mac=mac)
        record.address, record.address6 = cidrs.get(4, ""), cidrs.get(6, "")
        record.names = names_of(container, wish)
        return record

    def _of_ours(self, container: Container, network: Network, view: View, version: Literal[4, 6], wanted: str) -> str:
        """A free address that this host may give away, or ""."""
        former = wanted or self._core.addresses.recall(network.id, container.id, version)
        if former and self._is_free(network, former) and view.may_give(self._node, former):
            return former
        if wanted:
            return ""
        last = self._last.get((network.id, version), "")
        after = ip_address(last) if last else None
        leaving = self._core.state.fabric.leaving
        for subnet in (s for s in view.network.subnets if s.version == version):
            for cidr in sorted(view.blocks, key=lambda c: int(ip_network(c).network_address)):
                block, record = ip_network(cidr), view.blocks[cidr].record
                if block.network_address not in ip_network(subnet.subnet):
                    continue
                if record.node == self._node:
                    candidates = (a for a in map(str, ranges.addresses(subnet, block, after)) if a not in record.lent)
                else:
                    candidates = (a for a, node in record.lent.items() if node == self._node)
                for address in candidates:
                    if self._is_free(network, address) and (network.id, address) not in leaving:
                        self._last[network.id, version] = address
                        return address
        return ""

    def _is_free(self, network: Network, address: str) -> bool:
        """Among this host's own."""
        return (network.id, address) not in self._pending and self._core.addresses.owner(network.id, address) is None

    async def _acquire(self, container: Container, network: Network, version: Literal[4, 6], wanted: str) -> None:
        """One asks at a time: what it is given may do for those that wait."""
        async with self._asking:
            view = await blocks.read(self._etcd, network.id)
            if not self._of_ours(container, network, view, version, wanted):
                await self._demand(network.id, version, wanted)

    async def _demand(self, network_id: str, version: Literal[4, 6], wanted: str) -> None:
        if self._session.place.is_manager:
            await blocks.acquire(self._etcd, network_id, self._node, version, wanted)
        else:
            asked = {"do": "acquire", "network": network_id, "version": version, "address": wanted}
            await self._session.ask(blocks.CALL, asked)

    # -- after the operation ------------------------------------------------------------------------------------------

    def kept(self, claims: Iterable[Claim]) -> None:
        """The operation has succeeded: the model knows these endpoints now."""
        for claim in claims:
            self._pending -= {(claim.network_id, a) for a in addresses_of(claim.record)}

    async def give_up(self, claims: Iterable[Claim]) -> None:
        """The operation has failed. Raises nothing."""
        for claim in claims:
            keys = {(claim.network_id, a) for a in addresses_of(claim.record)}
            self._core.state.fabric.leaving |= keys
            self._pending -= keys
        await self.settle()

    async def settle(self) -> None:
        """Withdraw what is gone here from the store, now or when that answers. Raises nothing."""
        leaving = self._core.state.fabric.leaving
        async with self._writing:
            again = {(n, a) for n, a in leaving if (n, a) in self._pending or self._core.addresses.owner(n, a)}
            leaving -= again
            todo = sorted(leaving)
            if not todo:
                return
            try:
                self._session.check()
                for begin in range(0, len(todo), _AT_ONCE):
                    part = todo[begin : begin + _AT_ONCE]
                    failpoints.reach("overlay: before the withdrawal")
                    await blocks.withdraw(self._etcd, self._node, part)
                    failpoints.reach("overlay: withdrawn")
                    leaving.difference_update(part)
            except NetengineError as e:
                if len(leaving) != self._told:
                    log.info(
                        "%d addresses are given back when the cluster's store answers: %s", len(leaving), e.message
                    )
                self._told = len(leaving)
                self._later()
                return
        self._told = 0
        for network_id in {n for n, _ in todo}:
            lent = any(
                self._node in held.record.lent.values() for held in self._session.mirror.blocks(network_id).values()
            )
            self._after(network_id, 0 if lent else _KEEP, partial(self._give_back, network_id))

    def _later(self) -> None:
        self._after("", _AGAIN, self.settle)

    def _after(self, what: str, seconds: float, work: Callable[[], Coroutine[None, None, None]]) -> None:
        """Do something in a while: once, whatever is asked for meanwhile."""
        if (timer := self._timers.pop(what, None)) is not None:
            timer.cancel()
        if self._closed:
            return

        def go() -> None:
            self._timers.pop(what, None)
            self._core.background(asyncio.create_task(work(), name="addresses"))

        self._timers[what] = asyncio.get_running_loop().call_later(seconds, go)

    async def _give_back(self, network_id: str) -> None:
        """Return what is lent, and blocks when there is no endpoint left; what is in use stays."""
        try:
            self._session.check()
            if self._session.place.is_manager:
                await blocks.give_back(self._etcd, network_id, self._node)
            else:
                await self._session.ask(blocks.CALL, {"do": "give back", "network": network_id})
        except NetengineError as e:
            log.info("blocks of network %s are given back later: %s", network_id[:12], e.message)

    async def give_all_back(self, networks: Iterable[str]) -> None:
        """This host leaves, and nobody takes an address any more. Raises nothing."""
        self._ending = True
        self._core.state.fabric.leaving |= self._pending
        self._pending.clear()
        await self.settle()
        for network_id in networks:
            await self._give_back(network_id)

    # -- the model and the store made equal ---------------------------------------------------------------------------

    def _heard(self, changes: list[Change]) -> None:
        """An endpoint of this host that it has not, or not so, is in the store: a publication whose answer was given up may be
        carried out late, after it was withdrawn, by a member of etcd that had no leader to hand it to. Or one that it has is in
        the store no more: that was brought back from an older copy."""
        for change in changes:
            if change.kind != "endpoints" or change.parts[0] != self._node:
                continue
            place = (change.parts[1], change.parts[2])
            held = self._core.addresses.owner(*place)
            is_as_here = held != change.before.id if change.after is None else held == change.after.id
            if place not in self._pending and not is_as_here:
                self._after("compare", _AGAIN, self.compare)

    async def compare(self) -> None:
        """After a start, or when the store answers again: what it says of this host's endpoints is made what the model says.
        Raises nothing."""
        mirror, core = self._session.mirror, self._core
        published = {(net, address): record for _, net, address, record in mirror.endpoints(node_id=self._node)}
        live: dict[tuple[str, str], tuple[Container, Endpoint]] = {}
        for container in core.state.containers.values():
            for network_id, endpoint in container.endpoints.items():
                network = core.state.networks.get(network_id)
                if network is not None and network.overlay is not None:
                    live |= {(network_id, a): (container, endpoint) for a in (endpoint.ip, endpoint.ip6) if a}
        core.state.fabric.leaving |= published.keys() - live.keys() - self._pending
        for (network_id, address), (container, endpoint) in live.items():
            wish = container.attachments.get(network_id, Attachment(network_id=network_id))
            record = record_of(container, endpoint, wish)
            if addresses_of(record)[:1] == (address,) and published.get((network_id, address)) != record:
                await self._republish(network_id, record)
        await self.settle()

    async def renamed(self, container: Container) -> None:
        """The names of its endpoints are others now. Raises nothing."""
        for network_id, endpoint in container.endpoints.items():
            network = self._core.state.networks[network_id]
            if network.overlay is not None:
                await self._republish(network_id, record_of(container, endpoint, container.attachments[network_id]))

    async def _republish(self, network_id: str, record: EndpointRecord) -> None:
        if self._session.mirror.node(self._node) is None:
            return  # a node that was removed has no say any more, also where the store would not keep it from that
        try:
            self._session.check()
            view = await blocks.read(self._etcd, network_id)
            if await blocks.publish(self._etcd, view, self._node, record):
                return
            for address in addresses_of(record):
                if view.may_give(self._node, address) is None:
                    await self._demand(network_id, 6 if ":" in address else 4, address)
            view = await blocks.read(self._etcd, network_id)
            if not await blocks.publish(self._etcd, view, self._node, record):
                raise Unavailable("others change the network's addresses at this moment")
        except Forbidden as e:
            log.error(
                "container %s has %s on network %s, which the cluster has given to another node (%s): disconnect it, and "
                "connect it again",
                record.name,
                ", ".join(addresses_of(record)),
                view.network.name,
                e.message,
            )
        except NetengineError as e:
            log.warning("the other hosts cannot be told of %s now: %s", record.name, e.message)


def names_of(container: Container, wish: Attachment) -> list[str]:
    """What a container is called besides its name, as in names.py."""
    return list(dict.fromkeys([*wish.aliases, container.id[:12], hostname_of(container)]))


def record_of(container: Container, endpoint: Endpoint, wish: Attachment) -> EndpointRecord:
    return EndpointRecord(
        id=endpoint.id,
        container_id=container.id,
        name=container.name,
        mac=endpoint.mac,
        address=endpoint.address,
        address6=endpoint.address6,
        names=names_of(container, wish),
    )


def _mac(wanted: str, address: str) -> str:
    """The MAC of an endpoint. Raises Invalid for a wish that the other hosts would not believe."""
    derived = mac_for(address) if address else ""
    if wanted and wanted != derived and wanted.startswith(DERIVED):
        raise Invalid(
            f"cannot use MAC address {wanted} on an overlay network: those that begin with {DERIVED[:-1]} go with addresses "
            f"({derived or 'none'} with {address or 'this one'}); choose another"
        )
    if wanted or derived:
        return wanted or derived
    while (mac := random_mac()).startswith(DERIVED):
        pass
    return mac
