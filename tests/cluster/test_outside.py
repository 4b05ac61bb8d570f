"""A cluster's place in an etcd that is not its managers': looked at, taken, given back. Beside a real one, without users, then
with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import msgspec
import pytest

from netengine import failpoints
from netengine.cluster import keys, users
from netengine.cluster.access import Outside
from netengine.cluster.identity import Identity
from netengine.cluster.records import ClusterRecord, NodeRecord
from netengine.engine.swarm import ledger, outside
from netengine.errors import Conflict, Forbidden, Invalid, Unavailable
from netengine.store.etcd import Compare, Etcd, Get, Put
from tests.cluster.etcd_members import EtcdMember, inside, single


@pytest.fixture(scope="module")
def member(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EtcdMember]:
    with single("outside", tmp_path_factory.mktemp("outside")) as member:
        yield member


class Beginning:
    """Of a cluster: what its first host writes."""

    def __init__(self, member: EtcdMember, name: str, *, has_users: bool = False, host: str = "h1") -> None:
        self.record = ClusterRecord(id=name, created="2026-11-21T10:00:00Z", store=[member.url], store_users=has_users)
        self.node = NodeRecord(id=f"{name}-n1", name=host, role="manager", address="192.0.2.1")
        self.steps = [
            Put(ledger.TOKENS, b"{}"),
            Put(keys.CLUSTER, msgspec.json.encode(self.record)),
            Put(keys.node(self.node.id), msgspec.json.encode(self.node)),
        ]

    async def place(self, where: Outside, password: str = "") -> None:
        async with outside.place(where, self.record, self.node, self.steps, password):
            pass


def test_keys_below_a_prefix_are_as_without_one(member: EtcdMember) -> None:
    async def story() -> None:
        async with Etcd([member.url], namespace="/x") as ours, Etcd([member.url]) as all_of_it:
            revision = await ours.put("/a/1", b"one")
            await all_of_it.put("/a/1", b"somebody else's")
            assert (await all_of_it.get("/x/a/1")) is not None
            (entry,), _ = await ours.read("/a/")
            assert (entry.key, entry.value) == ("/a/1", b"one")
            done = await ours.transact(
                [Compare("/a/1", "MOD", revision), Compare("/b/", "VERSION", 0, prefix=True)],
                [Put("/a/2", b"two"), Get("/a/", prefix=True)],
            )
            assert done.succeeded and [e.key for e in done.read[0]] == ["/a/1", "/a/2"]
            async for changes, _ in ours.watch("/a/", revision):
                assert [(c.entry.key, c.entry.value) for c in changes] == [("/a/2", b"two")]
                break
            await ours.delete("/a/", prefix=True)
            assert (await ours.read("/"))[0] == [] and await all_of_it.get("/a/1")
            await all_of_it.delete("/a/1")

    inside(member, story)


def test_a_place_is_taken_by_one_cluster_and_given_back(
    member: EtcdMember, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First in an etcd that asks for no users, then in the same that does."""
    password = tmp_path / "password"
    password.write_text("p\n")
    password.chmod(0o600)
    nobody = Outside((member.url,), "/one")
    where = f"etcd+http://{member.address}:2379/one"

    async def without_users() -> None:
        first, other = Beginning(member, "c1"), Beginning(member, "c2", host="h2")
        assert await outside.look(nobody, first.node) is False
        with pytest.raises(Invalid, match="does not ask for users, so that user root would protect nothing"):
            await outside.look(replace(nobody, user="root", password_file=password), first.node)
        await first.place(nobody)
        async with Etcd([member.url]) as etcd:
            found, _ = await etcd.read("/")
            assert [e.key for e in found] == [f"/one{step.key}" for step in first.steps]
            assert not any(e.lease for e in found), "they stay"
        again = Beginning(member, "c1-again")  # on the same host
        for refusal in (outside.look(nobody, other.node), other.place(nobody), again.place(nobody)):
            with pytest.raises(Conflict) as caught:
                await refusal
            words = (
                f"{where} holds cluster c1, begun 2026-11-21T10:00:00, of h1: join that one (with --force-new-cluster "
            )
            assert words in caught.value.message
            assert "etcdctl del --prefix /one/netengine/v1/" in caught.value.message
        await other.place(replace(nobody, prefix="/two"))
        async with Etcd([member.url], namespace="/one") as etcd:
            await outside.erase(etcd, other.record, [])
            assert await etcd.get(keys.CLUSTER), "not the other one's"
            await outside.erase(etcd, first.record, [])
        await outside.take_back(replace(nobody, prefix="/two"), _identity("c2"))
        async with Etcd([member.url]) as etcd:
            assert await etcd.read("/") == ([], (await etcd.read("/"))[1])

    async def killed(point: str) -> None:
        """The daemon that begins a cluster dies at this point."""
        at = replace(nobody, prefix="/killed")
        first, again, other = (Beginning(member, n, host=h) for n, h in (("c1", "h1"), ("c2", "h1"), ("c3", "h2")))
        with monkeypatch.context() as patch, pytest.raises(_Killed):
            patch.setattr(failpoints, "reach", _killed_at(point))
            patch.setattr(outside, "erase_quietly", _done_by_nobody)
            await first.place(at)
        async with Etcd([member.url], namespace="/killed") as etcd:
            entries, _ = await etcd.read("/")
            assert len(entries) == len(first.steps) and all(e.lease for e in entries), "the place is free in a minute"
            for refusal in (outside.look(at, other.node), other.place(at)):
                with pytest.raises(Conflict, match=r"is where cluster c1, begun .*, of h1 is just being begun"):
                    await refusal
            assert not await outside.look(at, again.node) and (await etcd.read("/"))[0] == entries
            if point == "swarm: identity saved":  # the host's next daemon finds that it is a node
                assert not await outside.keep(etcd, "another") and await outside.keep(etcd, "c1")
                assert await outside.keep(etcd, "c1"), "once more"
                with pytest.raises(Conflict, match="holds cluster c1"):
                    await again.place(at)
                last = first
            else:  # it finds that it is none
                await again.place(at)
                assert not await outside.keep(etcd, "c1")
                last = again
            entries, _ = await etcd.read("/")
            assert [(e.key, e.value, e.lease) for e in entries] == [(s.key, s.value, 0) for s in last.steps]
            await outside.erase(etcd, last.record, [])

    async def with_users() -> None:
        async with Etcd([member.url]) as etcd:
            for name in ("root", "plain"):
                await etcd.add_role(name, [("READWRITE", "/one/")] if name == "plain" else [])
                await etcd.add_user(name, "p")
                await etcd.give_role(name, name)
            await etcd.demand_users()
        third = Beginning(member, "c3", has_users=True)
        with pytest.raises(Invalid, match="asks for a user: start the daemon with --store-user"):
            await outside.look(nobody, third.node)
        with pytest.raises(Forbidden, match=r"user plain of .* may not make users: give it etcd's role root"):
            await outside.look(replace(nobody, user="plain", password_file=password), third.node)
        wrong = tmp_path / "wrong"
        wrong.write_text("q")
        wrong.chmod(0o600)
        root = replace(nobody, user="root", password_file=password)
        with pytest.raises(Forbidden, match="does not know user root with this password"):
            await outside.look(replace(root, password_file=wrong), third.node)
        assert await outside.look(root, third.node) is True

        with monkeypatch.context() as patch:
            patch.setattr(users, "admit", _fails)
            with pytest.raises(Unavailable, match="half-way"):
                await third.place(root, "secret")
        assert await outside.look(root, third.node) is True, "the place is free again"
        await third.place(root, "secret")
        manager = Etcd([member.url], name="node-c3-n1", password="secret", namespace="/one")
        worker = Etcd([member.url], name="node-w", password="w", namespace="/one")
        async with manager, worker:
            await users.admit(manager, "w", "w", manager=False)
            assert await worker.get(keys.CLUSTER)
            await worker.put(keys.status("w"), b"{}")
            for forbidden in (worker.get(ledger.TOKENS), worker.put(keys.CLUSTER, b"")):
                with pytest.raises(Forbidden, match="permission denied"):
                    await forbidden
            await outside.erase(manager, third.record, ["w", "c3-n1"])
        async with Etcd([member.url], name="root", password="p") as etcd:
            assert (await etcd.read("/"))[0] == []
            assert sorted((await etcd._call("/v3/auth/user/list", {}))["users"]) == ["plain", "root"]
            assert sorted((await etcd._call("/v3/auth/role/list", {}))["roles"]) == ["plain", "root"]

    inside(member, without_users)
    for point in ("swarm: outside store claimed", "swarm: store filled", "swarm: identity saved"):
        inside(member, partial(killed, point))
    inside(member, with_users)


class _Killed(BaseException):
    """Of a process that is: nothing is done any more."""


def _killed_at(point: str) -> Callable[[str], None]:
    def reach(here: str) -> None:
        if here == point:
            raise _Killed(point)

    return reach


async def _done_by_nobody(*_: object) -> None:
    pass


async def _fails(*_: object, **__: object) -> None:
    raise Unavailable("half-way")


def _identity(name: str) -> Identity:
    return Identity(node=f"{name}-n1", cluster=name, role="manager", advertise_address="192.0.2.1", external_store=True)


def test_a_host_that_joins_was_told_of_the_same_store_or_of_none() -> None:
    ours = replace(Outside(("https://192.0.2.9:2379",)), prefix="/two")
    identity = msgspec.structs.replace(_identity("c"), endpoints=("https://192.0.2.9:2379",), store_prefix="/one")
    outside.check(Outside(), identity)
    outside.check(replace(ours, prefix="/one"), identity)
    with pytest.raises(
        Invalid, match=r"--store etcd://192.0.2.9:2379/two, and the cluster's store is etcd://.*/one: say"
    ):
        outside.check(ours, identity)
    with pytest.raises(Invalid, match="the cluster's managers run a store of their own"):
        outside.check(ours, msgspec.structs.replace(identity, external_store=False))


def test_members_of_two_etcds_are_refused() -> None:
    ours = Outside(("https://a:2379", "https://b:2379", "https://c:2379"))
    outside._check_one(ours, {"https://a:2379": "17", "https://c:2379": "17"})
    with pytest.raises(Invalid, match="more than one etcd: https://a:2379 is of cluster 11, https://c:2379 of 12 "):
        outside._check_one(ours, {"https://a:2379": "17", "https://b:2379": "17", "https://c:2379": "18"})


@pytest.mark.parametrize(
    ("content", "mode", "words"),
    [
        (b"", 0o600, "has no password in its first line"),
        (b"\xff\n", 0o600, "is not text"),
        (b"x" * 40000, 0o600, "is larger than 32768 bytes"),
        (b"p\n", 0o644, "can be read by everybody: chmod 600"),
        (None, 0, "cannot be read: No such file or directory"),
    ],
)
def test_a_password_file_that_is_none(tmp_path: Path, content: bytes | None, mode: int, words: str) -> None:
    file = tmp_path / "password"
    if content is not None:
        file.write_bytes(content)
        file.chmod(mode)
    with pytest.raises(Invalid, match=r"^store-password-file: ") as caught:
        Outside(("https://h",), password_file=file).password()
    assert words in caught.value.message
