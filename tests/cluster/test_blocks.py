"""No address twice: nodes that claim, lend, release and are cut off from the store, all at once, beside a model of etcd whose
every order of events is played, and beside a real one.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from ipaddress import ip_address, ip_network
from typing import Any, Literal, cast

import msgspec
import pytest

from netengine.cluster import blocks, keys, ranges
from netengine.cluster.blocks import View
from netengine.cluster.records import BlockRecord, EndpointRecord, NetworkRecord
from netengine.errors import Forbidden, Invalid, NetengineError, NotFound, Unavailable
from netengine.model import Network, Subnet
from netengine.store.etcd import Compare, Delete, Entry, Etcd, Get, Outcome, Put, Step
from tests.cluster.etcd_members import EtcdMember
from tests.hosts import Host

NET = "net1"


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the model there is no time in which a node could use what it has got."""
    monkeypatch.setattr(blocks, "IDLE_PATIENCE", 0.0)


def network(*subnets: str, ip_range: str = "") -> Network:
    made = [Subnet(subnet=s, gateway=str(ip_network(s)[1]), ip_range=ip_range) for s in subnets]
    return Network(id=NET, name="app", driver="overlay", created="", subnets=made)


def record(node: str, address: str, address6: str = "") -> EndpointRecord:
    return EndpointRecord(
        id=f"{node}{address}{address6}",
        container_id="c",
        name=f"on-{node}",
        mac="02:42:0a:00:00:02",
        address=f"{address}/24" if address else "",
        address6=f"{address6}/64" if address6 else "",
    )


# -- a model of etcd --------------------------------------------------------------------------------------------------


class Model:
    """The transactions of etcd on a dictionary. `look` is called after each change with all keys."""

    def __init__(self) -> None:
        self.held: dict[str, Entry] = {}
        self.revision = 1
        self.look: Callable[[dict[str, Entry]], None] = lambda held: None

    def holds(self, c: Compare) -> bool:
        found = [e for k, e in self.held.items() if (k.startswith(c.key) if c.prefix else k == c.key)]
        values = [e.version if c.target == "VERSION" else e.modified for e in found] or [0]
        return all(v < c.number if c.result == "LESS" else v == c.number for v in values)

    def transact(self, compare: Sequence[Compare], then: Sequence[Step], otherwise: Sequence[Step] = ()) -> Outcome:
        succeeded = all(self.holds(c) for c in compare)
        steps = then if succeeded else otherwise
        if any(not isinstance(s, Get) for s in steps):
            self.revision += 1
        read = []
        for step in steps:
            match step:
                case Put(key=key, value=value):
                    before = self.held.get(key)
                    self.held[key] = Entry(key, value, self.revision, before.version + 1 if before else 1)
                case Delete(key=key, prefix=prefix):
                    for k in [k for k in self.held if k == key or (prefix and k.startswith(key))]:
                        del self.held[k]
                case Get(key=key, prefix=prefix):
                    read.append(
                        tuple(e for k, e in sorted(self.held.items()) if k == key or (prefix and k.startswith(key)))
                    )
        self.look(self.held)
        return Outcome(succeeded, self.revision, tuple(read))


class Client:
    """A node's way to the model: it takes any time, may be cut, and may lose an answer after the deed is done."""

    def __init__(self, model: Model, chance: random.Random) -> None:
        self.model, self.chance, self.cut = model, chance, False

    async def transact(
        self, compare: Sequence[Compare], then: Sequence[Step], otherwise: Sequence[Step] = ()
    ) -> Outcome:
        await self._way()
        outcome = self.model.transact(compare, then, otherwise)
        await self._way()
        return outcome

    async def read(self, prefix: str) -> tuple[list[Entry], int]:
        outcome = await self.transact((), [Get(prefix, prefix=True)])
        return list(outcome.read[0]), outcome.revision

    async def delete(self, key: str, prefix: bool = False) -> int:
        return (await self.transact((), [Delete(key, prefix)])).revision

    async def _way(self) -> None:
        for _ in range(self.chance.randrange(4)):
            await asyncio.sleep(0)
        if self.cut or self.chance.random() < 0.03:
            raise Unavailable("cut off")


def check(held: dict[str, Entry]) -> None:
    """No address of two nodes, and none of a node whose to give away it is not."""
    owners: dict[str, str] = {}
    given = {}
    for key, entry in held.items():
        kind, parts = keys.split(key)
        if kind == "blocks":
            given[keys.block_cidr(parts[1])] = msgspec.json.decode(entry.value, type=BlockRecord)
    for key in held:
        kind, parts = keys.split(key)
        if kind == "endpoints":
            node, _, address = parts
            assert owners.setdefault(address, node) == node, f"{address} is {owners[address]}'s and {node}'s"
            block = next((b for cidr, b in given.items() if ip_address(address) in ip_network(cidr)), None)
            assert block is not None and block.lent.get(address, block.node) == node, f"{address} is not {node}'s"


# -- what nodes do ----------------------------------------------------------------------------------------------------


class Node:
    """A host that knows the blocks as it last saw them, and whose memory of its endpoints survives all that happens here."""

    def __init__(self, name: str, etcd: Any, chance: random.Random, made: Network) -> None:
        self.name, self.etcd, self.chance, self.network = name, etcd, chance, made
        self.has: set[tuple[str, ...]] = set()
        self.coming: set[tuple[str, ...]] = set()
        self.doubtful: set[tuple[str, ...]] = set()
        """Perhaps published: only the answer was missing. Or perhaps still to be withdrawn."""
        self.leaving = asyncio.Lock()
        self.got = 0
        self.view: View | None = None

    async def live(self, steps: int) -> None:
        for _ in range(steps):
            if isinstance(self.etcd, Client) and self.chance.random() < 0.1:
                self.etcd.cut = not self.etcd.cut
            with suppress(NetengineError):
                await self.chance.choice([self.come, self.come, self.come, self.leave, self.leave, self.give_back])()

    async def come(self) -> None:
        versions = sorted({s.version for s in self.network.subnets})
        if self.view is None or self.chance.random() < 0.5:
            self.view = await blocks.read(cast(Etcd, self.etcd), NET)
        wanted = {v: self.wish(v) for v in versions}
        for _ in range(3):
            picked = {v: self.pick(v, wanted[v]) for v in versions}
            missing = [v for v, address in picked.items() if not address]
            if missing:
                version = cast(Literal[4, 6], missing[0])
                await blocks.acquire(cast(Etcd, self.etcd), NET, self.name, version, wanted[version])
            else:
                addresses = tuple(picked[v] for v in versions)
                made = record(self.name, picked.get(4, ""), picked.get(6, ""))
                self.coming.add(addresses)
                try:
                    if await blocks.publish(cast(Etcd, self.etcd), self.view, self.name, made):
                        self.has.add(addresses)
                        self.got += 1
                        return
                except Unavailable:
                    self.doubtful.add(addresses)
                    raise
                finally:
                    self.coming.discard(addresses)
            self.view = await blocks.read(cast(Etcd, self.etcd), NET)

    def wish(self, version: int) -> str:
        if self.chance.random() < 0.6:
            return ""
        subnet = self.chance.choice([s for s in self.network.subnets if s.version == version])
        return str(ip_network(subnet.subnet)[self.chance.randrange(2, 14)])

    def pick(self, version: int, wanted: str) -> str:
        assert self.view is not None
        taken = {a for addresses in self.has | self.doubtful | self.coming for a in addresses}
        for subnet in (s for s in self.network.subnets if s.version == version):
            for block in ranges.blocks(subnet):
                for address in map(str, list(ranges.addresses(subnet, block))[:20]):
                    if wanted in ("", address) and address not in taken and self.view.may_give(self.name, address):
                        return address
        return ""

    async def leave(self) -> None:
        async with self.leaving:
            gone = self.chance.choice(sorted(self.has | self.doubtful) or [()])
            if gone:
                self.doubtful.add(gone)
                self.has.discard(gone)
                await blocks.withdraw(cast(Etcd, self.etcd), self.name, [(NET, a) for a in gone])
                self.doubtful.discard(gone)

    async def give_back(self) -> None:
        await blocks.give_back(cast(Etcd, self.etcd), NET, self.name)


@pytest.mark.parametrize("seed", range(30))
def test_no_address_is_ever_had_by_two_nodes(seed: int) -> None:
    """In a subnet with fewer addresses than the nodes would like, so that blocks run out and addresses are lent."""
    chance, model = random.Random(seed), Model()
    made = network("10.0.0.0/28", "fd00::/124") if seed % 3 == 0 else network("10.0.0.0/28")
    model.transact((), [Put(keys.network(NET), msgspec.json.encode(NetworkRecord(network=made, vni=4096)))])
    model.look = check
    nodes = [Node(f"n{i}", Client(model, chance), chance, made) for i in range(5)]

    async def all_of_them() -> None:
        # Each does two things at a time: it gives back what it does not use while a container comes.
        await asyncio.gather(*(node.live(40) for node in nodes for _ in range(2)))
        for node in nodes:
            node.etcd.cut = False

    asyncio.run(all_of_them())
    assert sum(node.got for node in nodes) > 15, "hardly anybody got an address"
    for node in nodes:  # whatever a node believes to have it has
        published = {k.rpartition("/")[2] for k in model.held if k.startswith(keys.endpoints(node.name))}
        assert {a for addresses in node.has for a in addresses} <= published


def test_everything_is_free_again_in_the_end() -> None:
    chance, model = random.Random(7), Model()
    made = network("10.0.0.0/28")
    model.transact((), [Put(keys.network(NET), msgspec.json.encode(NetworkRecord(network=made, vni=4096)))])
    nodes = [Node(f"n{i}", Client(model, chance), chance, made) for i in range(4)]

    async def until_done(work: Callable[[], Any]) -> None:
        while True:
            with suppress(Unavailable):
                await work()
                return

    async def story() -> None:
        await asyncio.gather(*(node.live(40) for node in nodes))
        for node in nodes:
            node.etcd.cut = False
        for node in nodes[1:]:
            while node.has | node.doubtful:
                await until_done(node.leave)
        # The first never comes back, and is removed from the cluster.
        await until_done(lambda: blocks.forget(cast(Etcd, nodes[1].etcd), "n0"))
        for _ in range(2):  # what was lent by one is returned by another
            for node in nodes[1:]:
                await until_done(node.give_back)

    asyncio.run(story())
    assert set(model.held) == {keys.network(NET)}


def test_a_worker_asks_and_what_it_asks_is_checked() -> None:
    model = Model()
    made = network("10.0.0.0/24", ip_range="10.0.0.128/25")
    model.transact((), [Put(keys.network(NET), msgspec.json.encode(NetworkRecord(network=made, vni=4096)))])
    etcd = cast(Etcd, Client(model, random.Random(0)))

    class Worker:
        node = "w1"

    async def ask(**payload: Any) -> Any:
        while True:
            with suppress(Unavailable):
                return await blocks.handler(etcd)(Worker(), payload)

    async def story() -> None:
        await ask(do="acquire", network=NET)
        assert keys.block(NET, "10.0.0.128/28") in model.held, "the first of the range that addresses are to come from"
        await ask(do="acquire", network=NET, address="10.0.0.7")
        assert keys.block(NET, "10.0.0.0/28") in model.held
        for wrong in (
            {"do": "steal", "network": NET},
            {"do": "acquire"},
            {"do": "acquire", "network": "../nodes/x"},
            {"do": "acquire", "network": NET, "address": "10.0.0"},
            {"do": "acquire", "network": NET, "address": "10.9.0.1"},
            {"do": "acquire", "network": NET, "node": "somebody"},
        ):
            with pytest.raises(Invalid):
                await ask(**wrong)
        with pytest.raises(Forbidden, match="reserved"):
            await ask(do="acquire", network=NET, address="10.0.0.1")
        with pytest.raises(NotFound):
            await ask(do="acquire", network="gone")
        await ask(do="give back", network=NET)
        assert not [k for k in model.held if k.startswith(keys.blocks(NET))]

    asyncio.run(story())


def test_one_node_does_not_get_all_that_there_is() -> None:
    """A worker that asks again and again, first without using what it gets, then announcing a container at every address."""
    model = Model()
    made = network("10.0.0.0/24", "fd00::/64")
    model.transact((), [Put(keys.network(NET), msgspec.json.encode(NetworkRecord(network=made, vni=4096)))])
    model.transact((), [Put(keys.node(name), b"{}") for name in ("thief", "w1", "w2", "w3")])
    etcd = cast(Etcd, Client(model, cast(random.Random, Steady())))

    async def take(node: str, address: str = "", version: Literal[4, 6] = 4) -> str:
        """Ask for more; what was said against it."""
        try:
            await blocks.acquire(etcd, NET, node, version, address)
        except Unavailable as e:
            return e.message
        return ""

    async def use_all(node: str) -> None:
        view = await blocks.read(etcd, NET)
        for block in ranges.blocks(made.subnets[0]):
            for address in map(str, ranges.addresses(made.subnets[0], block)):
                if view.may_give(node, address) and keys.endpoint(node, NET, address) not in model.held:
                    assert await blocks.publish(etcd, view, node, record(node, address))

    async def story() -> None:
        assert [await take("thief") for _ in range(4)] == [""] * 4
        words = "node thief has 4 blocks of addresses of network app and no container in any of them: it gets no more"
        assert words in await take("thief") and words in await take("thief", "10.0.0.200")
        assert [bool(await take("thief", version=6)) for _ in range(5)] == [False] * 4 + [True]
        assert await take("w1") == ""
        await use_all("thief")
        while not (said := await take("thief")):
            await use_all("thief")
        assert "all are in use in the cluster or kept for other nodes" in said
        assert "are for nodes that have none" in await take("thief", "10.0.0.250")
        held = [k for k in model.held if k.startswith(keys.endpoints("thief"))]
        # Of 16 blocks one is w1's, of which half can be lent, and one each is kept for w2 and w3.
        assert len(held) == 13 * 16 - 2 + 8
        assert await take("w2") == await take("w3") == "", "the others get theirs"
        view = await blocks.read(etcd, NET)
        free = next(a for a in map(str, ip_network("10.0.0.64/28")) if view.may_give("w1", a))
        assert "of which half is lent already" in await take("w2", free)

    asyncio.run(story())


class Steady:
    """Neither waits nor loses anything."""

    def randrange(self, most: int) -> int:
        return 0

    def random(self) -> float:
        return 1.0


def test_nodes_beside_a_real_etcd(tmp_path: Any) -> None:
    """The conditions mean to etcd what they mean to the model: every change in the order in which it was made."""
    host = Host("blocks", tmp_path)
    member = EtcdMember(host, "m1", {"m1": "127.0.0.1"}).start()

    async def story() -> None:
        member_url = [member.url]
        made = network("10.0.0.0/28", "fd00::/124")
        clients = [Etcd(member_url) for _ in range(4)]
        first = await clients[0].put(keys.network(NET), msgspec.json.encode(NetworkRecord(network=made, vni=4096)))
        nodes = [Node(f"n{i}", etcd, random.Random(i), made) for i, etcd in enumerate(clients)]
        await asyncio.gather(*(node.live(25) for node in nodes))
        last = await clients[0].put(keys.SHARED + "end", b"")
        held: dict[str, Entry] = {}
        changes = clients[0].watch(keys.SHARED, first - 1)
        async for batch, revision in cast(AsyncIterator[Any], changes):
            by_revision: dict[int, list[Any]] = {}
            for change in batch:
                by_revision.setdefault(change.entry.modified, []).append(change)
            for _, together in sorted(by_revision.items()):
                for change in together:
                    if change.deleted:
                        held.pop(change.entry.key, None)
                    else:
                        held[change.entry.key] = change.entry
                check(held)
            if revision >= last:
                break
        assert sum(node.got for node in nodes) > 10
        for etcd in clients:
            await etcd.close()

    async def bounded() -> None:
        async with asyncio.timeout(120):
            await story()

    try:
        member.await_health()
        host.inside(lambda: asyncio.run(bounded()))
    finally:
        host.close()
