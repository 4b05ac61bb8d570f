"""The client of etcd beside real members: what it answers, and what happens when members go."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from netengine.errors import Forbidden, Unavailable
from netengine.store.etcd import Compacted, Compare, Delete, Etcd, Get, Put
from tests.cluster.etcd_members import EtcdMember
from tests.hosts import Host
from tests.patience import patient

Body = Callable[[Etcd], Awaitable[None]]


class Cluster:
    """Three members on one host, at 127.0.0.1 to 127.0.0.3."""

    def __init__(self, host: Host) -> None:
        self.host = host
        addresses = {f"m{n}": f"127.0.0.{n}" for n in (1, 2, 3)}
        self.members = [EtcdMember(host, name, addresses).start() for name in addresses]
        for member in self.members:
            member.await_health()

    def run(self, body: Body, **options: Any) -> None:
        """Run a coroutine with a client, on a thread inside the host's network namespace."""

        async def bounded() -> None:
            async with asyncio.timeout(60), Etcd([m.url for m in self.members], **options) as etcd:
                await body(etcd)

        self.host.inside(lambda: asyncio.run(bounded()))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    directory = tmp_path_factory.mktemp("etcd")
    host = Host("etcd", Path(directory))
    try:
        yield Cluster(host)
    finally:
        host.close()


@pytest.fixture(autouse=True)
def empty(cluster: Cluster) -> Iterator[None]:
    yield

    async def wipe(etcd: Etcd) -> None:
        await etcd.delete("/", prefix=True)

    cluster.run(wipe)


def test_a_key_comes_changes_and_goes(cluster: Cluster) -> None:
    async def story(etcd: Etcd) -> None:
        assert await etcd.get("/a") is None
        first = await etcd.put("/a", b"1")
        second = await etcd.put("/a", "zwei ü".encode())
        entry = await etcd.get("/a")
        assert entry is not None and entry.value.decode() == "zwei ü"
        assert (entry.version, entry.modified) == (2, second) and second > first
        await etcd.delete("/a")
        assert await etcd.get("/a") is None

    cluster.run(story)


def test_a_prefix_is_listed_in_order_with_its_revision(cluster: Cluster) -> None:
    async def story(etcd: Etcd) -> None:
        for key in ("/n/b", "/n/a", "/nn"):
            revision = await etcd.put(key, key.encode())
        entries, at = await etcd.read("/n/")
        assert [e.key for e in entries] == ["/n/a", "/n/b"] and at == revision

    cluster.run(story)


def test_of_two_transactions_for_one_key_one_succeeds(cluster: Cluster) -> None:
    async def story(etcd: Etcd) -> None:
        async def claim(who: bytes) -> bool:
            wanted = [Compare("/vni/4096", "VERSION", 0)]
            return (await etcd.transact(wanted, [Put("/vni/4096", who)], [Get("/vni/4096")])).succeeded

        outcomes = await asyncio.gather(*(claim(str(n).encode()) for n in range(16)))
        assert sum(outcomes) == 1
        lost = await etcd.transact([Compare("/vni/4096", "VERSION", 0)], [], [Get("/vni/", prefix=True)])
        assert not lost.succeeded and [e.key for e in lost.read[0]] == ["/vni/4096"]
        entry = lost.read[0][0]
        moved = [Compare(entry.key, "MOD", entry.modified)]
        assert (await etcd.transact(moved, [Delete("/vni/", prefix=True)])).succeeded
        assert not (await etcd.transact(moved, [Put("/vni/4096", b"late")])).succeeded

    cluster.run(story)


def test_what_hangs_on_a_lease_goes_with_it(cluster: Cluster) -> None:
    async def story(etcd: Etcd) -> None:
        lease = await etcd.grant(30)
        await etcd.put("/alive/me", b"", lease)
        entry = await etcd.get("/alive/me")
        assert entry is not None and entry.lease == lease
        assert await etcd.keep_alive(lease) == [30, 30, 30], "each member was asked"
        await etcd.revoke(lease)
        assert await etcd.get("/alive/me") is None
        assert await etcd.keep_alive(lease) == [0, 0, 0]
        await etcd.revoke(lease)

    cluster.run(story)


async def _collect(etcd: Etcd, after: int, enough: int, into: list[tuple[str, bytes, bool]]) -> None:
    async for changes, _ in etcd.watch("/w/", after):
        into += [(c.entry.key, c.entry.value, c.deleted) for c in changes]
        if len(into) >= enough:
            return


def test_a_watch_misses_nothing_and_repeats_nothing(cluster: Cluster) -> None:
    async def story(etcd: Etcd) -> None:
        start = await etcd.put("/elsewhere", b"")
        await etcd.put("/w/before", b"1")
        seen: list[tuple[str, bytes, bool]] = []
        watching = asyncio.create_task(_collect(etcd, start, 302, seen))
        for n in range(300):
            await etcd.put(f"/w/{n}", str(n).encode())
        await etcd.delete("/w/before")
        await watching
        expected = [("/w/before", b"1", False), *((f"/w/{n}", str(n).encode(), False) for n in range(300))]
        assert seen == [*expected, ("/w/before", b"", True)]

    cluster.run(story)


def test_a_watch_from_a_revision_that_is_gone_says_so(cluster: Cluster) -> None:
    async def story(etcd: Etcd) -> None:
        revision = await etcd.put("/w/a", b"1")
        latest = await etcd.put("/w/a", b"2")
        await etcd._call("/v3/kv/compaction", {"revision": str(latest), "physical": True})
        with pytest.raises(Compacted):
            await _collect(etcd, revision - 1, 1, [])

    cluster.run(story)


def test_a_member_dies_and_nobody_notices(cluster: Cluster) -> None:
    async def story(etcd: Etcd) -> None:
        start = await etcd.put("/w/0", b"")
        seen: list[tuple[str, bytes, bool]] = []
        watching = asyncio.create_task(_collect(etcd, start, 60, seen))
        for n in range(30):
            await etcd.put(f"/w/{n}", b"a")
        cluster.members[0].kill()
        for n in range(30):
            await etcd.put(f"/w/{n}", b"b")
        await watching
        assert len(seen) == 60 and [value for _, value, _ in seen] == [b"a"] * 30 + [b"b"] * 30

    try:
        cluster.run(story)
    finally:
        cluster.members[0].start().await_health()


def test_a_member_that_hangs_costs_a_second_once_and_loses_its_watches(cluster: Cluster) -> None:
    """Its kernel goes on to acknowledge what comes, and a watch is silent anyway while nothing changes."""

    async def story(etcd: Etcd) -> None:
        order = [cluster.members[n].url for n in (1, 0, 2)]
        etcd.use(order)
        start = await etcd.put("/w/0", b"")
        seen: list[tuple[str, bytes, bool]] = []
        watching = asyncio.create_task(_collect(etcd, start, 2, seen))
        await etcd.put("/w/0", b"1")
        while not seen:
            await asyncio.sleep(0.01)
        cluster.members[1].pause(True)
        await etcd.put("/w/0", b"2")
        assert etcd._urls[-1] == order[0], "it is asked last from now on"
        await watching
        assert seen == [("/w/0", b"1", False), ("/w/0", b"2", False)]

    try:
        cluster.run(story)
    finally:
        cluster.members[1].pause(False)
        cluster.members[1].await_health()


def test_a_member_without_the_others_ends_its_watches(cluster: Cluster) -> None:
    """It would be silent, and its client know nothing of what goes on at the others."""

    async def story(etcd: Etcd) -> None:
        start = await etcd.put("/w/0", b"")
        (alone, *others) = cluster.members
        etcd.use([alone.url])

        async def once() -> None:
            async for _ in etcd._watch_once(alone.url, "/w/", start):
                began.set()

        began = asyncio.Event()
        watching = asyncio.create_task(once())
        await began.wait()  # the answer that it was begun
        for member in others:
            member.pause(True)
        async with asyncio.timeout(patient(20)):
            await watching

    try:
        cluster.run(story)
    finally:
        for member in cluster.members[1:]:
            member.pause(False)
        for member in cluster.members:
            member.await_health()


def test_without_a_majority_it_says_so_within_its_time_limit(cluster: Cluster) -> None:
    async def story(etcd: Etcd) -> None:
        await etcd.put("/a", b"1")
        for member in cluster.members[1:]:
            member.pause(True)
        with pytest.raises(Unavailable, match="a majority of the managers must be up"):
            await etcd.put("/a", b"2")
        with pytest.raises(Unavailable):
            await etcd.get("/a")

    try:
        cluster.run(story, time_limit=1.5)
    finally:
        for member in cluster.members[1:]:
            member.pause(False)
        for member in cluster.members:
            member.await_health()


def test_users_may_do_what_their_roles_say(make_host: Callable[..., Host]) -> None:
    host = make_host("users")
    member = EtcdMember(host, "m1", {"m1": "127.0.0.1"}).start()
    member.await_health()

    async def story() -> None:
        async with (
            asyncio.timeout(60),
            Etcd([member.url]) as nobody,
            Etcd([member.url], name="root", password="r") as root,
        ):
            await nobody.add_user("root", "r")
            await nobody.add_role("root", [])
            await nobody.give_role("root", "root")
            await nobody.demand_users()
            with pytest.raises((Unavailable, Forbidden, Exception), match="user name is empty"):
                await nobody.get("/a")
            await root.add_role("worker-1", [("READ", "/n/"), ("READWRITE", "/e/1/")])
            await root.add_user("worker-1", "one")
            await root.add_user("worker-1", "two")  # once more: the password is changed
            await root.give_role("worker-1", "worker-1")
            await root.put("/n/a", b"1")
            async with Etcd([member.url], name="worker-1", password="two", time_limit=30) as worker:
                assert (await worker.read("/n/"))[0][0].value == b"1"
                await worker.put("/e/1/x", b"2")
                for forbidden in (worker.put("/n/a", b"3"), worker.put("/e/2/x", b"3"), worker.get("/secret")):
                    with pytest.raises(Forbidden, match="permission denied"):
                        await forbidden
                seen: list[tuple[str, bytes, bool]] = []
                watching = asyncio.create_task(_watch_one(worker, "/n/", 0, seen))
                await root.put("/n/a", b"4")
                await watching
                # A member that was started anew has forgotten all tokens: a call finds nobody, is refused, and then answered.
                member.kill()
                asyncio.get_running_loop().call_later(0.6, member.start)
                assert (await worker.read("/n/"))[0][0].value == b"4"
            async with Etcd([member.url], name="worker-1", password="one") as stranger:
                with pytest.raises(Forbidden, match="does not know user worker-1"):
                    await stranger.get("/n/a")

    host.inside(lambda: asyncio.run(story()))


async def _watch_one(etcd: Etcd, prefix: str, after: int, into: list[tuple[str, bytes, bool]]) -> None:
    async for changes, _ in etcd.watch(prefix, after):
        into += [(c.entry.key, c.entry.value, c.deleted) for c in changes]
        if any(value == b"4" for _, value, _ in into):
            return


def test_nobody_there_is_said_within_the_time_limit(host: Host) -> None:
    async def story() -> None:
        async with Etcd(["http://127.0.0.1:1"]) as etcd:
            with pytest.raises(Unavailable, match="etcd does not answer"):
                await etcd.get("/a")

    host.inside(lambda: asyncio.run(story()))
