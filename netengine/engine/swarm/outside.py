"""A cluster in an etcd of the user's own: how it takes a place there when it begins, and what it leaves when it ends.

Below the prefix of the user's choice a cluster has netengine/v1/ to itself. All that it begins with hangs on a lease until the
host knows on disk that it is its first node: whenever a daemon dies meanwhile, the next one goes on, and nothing has to be
removed by hand.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import msgspec

from netengine import failpoints
from netengine.cluster import access, keys, users
from netengine.cluster.access import Outside
from netengine.cluster.identity import Identity
from netengine.cluster.records import ClusterRecord, NodeRecord
from netengine.cluster.session import Session
from netengine.config import Config
from netengine.errors import Conflict, Forbidden, Invalid, NetengineError, Unavailable
from netengine.store.etcd import Compare, Delete, Entry, Etcd, Put

log = logging.getLogger(__name__)

_CLAIM_SECONDS = 60


def of(config: Config) -> Outside:
    """What the daemon's configuration says."""
    store = config.store
    return Outside(
        urls=store.urls if store else (),
        prefix=store.prefix if store else "",
        cacert=config.store_cacert,
        cert=config.store_cert,
        key=config.store_key,
        user=config.store_user,
        password_file=config.store_password_file,
    )


def check(outside: Outside, identity: Identity) -> None:
    """Whether a host that joins was told of the store that its cluster has, if it was told of one. Raises Invalid."""
    if not outside.urls:
        return
    if not identity.external_store:
        raise Invalid(
            f"this host's daemon is configured with --store {outside}, and the cluster's managers run a store of their own: "
            "take the flag away, or join another cluster"
        )
    if outside.prefix != identity.store_prefix:
        raise Invalid(
            f"this host's daemon is configured with --store {outside}, and the cluster's store is "
            f"{access.shown(identity.endpoints, identity.store_prefix)}: say that, or nothing"
        )


def warnings(cluster: ClusterRecord, prefix: str) -> tuple[str, ...]:
    """What whoever runs the cluster should know of its store."""
    if not cluster.store:
        return ()
    where, found = access.shown(cluster.store, prefix), []
    if not cluster.store_users:
        found.append(
            f"WARNING: The cluster's store {where} asks for no users: each node, a worker too, can read the cluster's secrets "
            "and change all of it"
        )
    if cluster.store[0].startswith("http:"):
        found.append(f"WARNING: The cluster's store {where} is spoken to in the clear, secrets included")
    return tuple(found)


def client(outside: Outside, roots: str, *, as_user: bool) -> Etcd:
    """Of a host that is no node yet: as the user of the configuration, or as nobody."""
    return Etcd(
        outside.urls,
        access.outside_context(roots, outside) if outside.urls[0].startswith("https:") else None,
        outside.user if as_user else "",
        outside.password() if as_user else "",
        namespace=outside.prefix,
        remedy=access.remedy(outside.urls, outside.prefix),
        foreign=True,
    )


async def look(outside: Outside, first: NodeRecord) -> bool:
    """Whether that etcd asks for users, and that a cluster may begin there, with `first`. Nothing is changed.

    Raises what `judge` raises, and Conflict when the place is another cluster's.
    """
    has_users = await judge(outside)
    async with client(outside, outside.roots(), as_user=True) as etcd:
        entries, _ = await etcd.read(keys.ROOT)
        if not _is_own_beginning(entries, first):
            _check_free(outside, entries)
    return has_users


async def judge(outside: Outside, roots: str = "") -> bool:
    """Whether that etcd asks for users; and that this fits what the configuration says.

    Raises Unavailable when it does not answer, Invalid and Forbidden when the user is not one who may do everything.
    """
    roots = outside.roots() or roots
    async with client(outside, roots, as_user=False) as nobody:
        has_users = await nobody.demands_users()
        _check_one(outside, await nobody.clusters())
    if has_users and not outside.user:
        raise Invalid(
            f"{outside} asks for a user: start the daemon with --store-user and --store-password-file of one that has etcd's "
            "role root, since a cluster makes users of its own"
        )
    if not has_users and outside.user:
        raise Invalid(
            f"{outside} does not ask for users, so that user {outside.user} would protect nothing: turn that on (etcdctl auth "
            "enable), or leave --store-user out"
        )
    if has_users:
        async with client(outside, roots, as_user=True) as etcd:
            if not await etcd.may_make_users():
                raise Forbidden(
                    f"user {outside.user} of {outside} may not make users: give it etcd's role root (etcdctl user grant-role "
                    f"{outside.user} root)"
                )
    return has_users


def _check_one(outside: Outside, clusters: Mapping[str, str]) -> None:
    """What one member is told all must know. Raises Invalid."""
    if len(set(clusters.values())) > 1:
        first, *others = clusters
        other = next(url for url in others if clusters[url] != clusters[first])
        raise Invalid(
            f"{outside} names members of more than one etcd: {first} is of cluster {int(clusters[first]):x}, {other} of "
            f"{int(clusters[other]):x} (etcdctl endpoint status shows it); name those of one"
        )


@asynccontextmanager
async def place(
    outside: Outside, cluster: ClusterRecord, first: NodeRecord, steps: Sequence[Put], password: str
) -> AsyncIterator[None]:
    """Take the place, write what a cluster begins with, and make its first node a user; what is done inside makes this host
    that node. Then the place is kept. Raises Conflict when it is taken."""
    async with client(outside, cluster.store_roots, as_user=True) as etcd:
        lease = await etcd.grant(_CLAIM_SECONDS)
        free, begun = [Compare(keys.ROOT, "VERSION", 0, prefix=True)], [replace(step, lease=lease) for step in steps]
        if not (await etcd.transact(free, begun)).succeeded:
            await _take_back_own(etcd, outside, first)
            if not (await etcd.transact(free, begun)).succeeded:
                raise Conflict(f"{outside} is being taken by another cluster at this moment")
        failpoints.reach("swarm: outside store claimed")
        try:
            if cluster.store_users:
                await users.admit(etcd, first.id, password, manager=True)
            failpoints.reach("swarm: store filled")
            yield
            failpoints.reach("swarm: identity saved")
            if not await keep(etcd, cluster.id):
                raise Unavailable(f"{outside} took longer than {_CLAIM_SECONDS} s to take in a cluster: try again")
        except BaseException:
            await erase_quietly(etcd, cluster, [first.id])
            raise


async def keep(etcd: Etcd, cluster: str) -> bool:
    """What the cluster began with stays for good from now on; whether it is there. Done again, it does nothing.

    By the daemon that begins a cluster, or by the next one where that was killed before it came to this."""
    head = await etcd.get(keys.CLUSTER)
    if head is None or _cluster(head.value).id != cluster:
        return False
    if head.lease:
        begun = [entry for entry in (await etcd.read(keys.ROOT))[0] if entry.lease == head.lease]
        unchanged = [Compare(entry.key, "MOD", entry.modified) for entry in begun]
        if not (await etcd.transact(unchanged, [Put(entry.key, entry.value) for entry in begun])).succeeded:
            return False
        await etcd.revoke(head.lease)
    return True


async def _take_back_own(etcd: Etcd, outside: Outside, first: NodeRecord) -> None:
    """A daemon of this host was killed while it began a cluster here: nothing of that is left. Raises Conflict where the place
    is anybody else's, or a cluster's that has begun."""
    entries, _ = await etcd.read(keys.ROOT)
    if not _is_own_beginning(entries, first):
        _check_free(outside, entries)
        return
    head = next(entry for entry in entries if entry.key == keys.CLUSTER)
    cluster = _cluster(head.value)
    log.warning(
        "what this host's daemon left of cluster %s in %s, killed while it began that, is removed", cluster.id, outside
    )
    await erase(etcd, cluster, [record.id for record in _nodes(entries)])
    await etcd.revoke(head.lease)


def _is_own_beginning(entries: Sequence[Entry], first: NodeRecord) -> bool:
    """What hangs on a lease still is no cluster yet, and who began it cannot end that any more once it is gone."""
    head = next((entry for entry in entries if entry.key == keys.CLUSTER), None)
    return (
        head is not None
        and bool(head.lease)
        and [(record.name, record.address) for record in _nodes(entries)] == [(first.name, first.address)]
    )


async def tell(session: Session, outside: Outside) -> None:
    """A manager was started with other members of the store, or another authority of theirs: all nodes are to know."""
    held = session.mirror.cluster
    if held is None or not held.record.store or not outside.urls:
        return
    record = held.record
    roots = outside.roots() if outside.cacert else record.store_roots
    if set(outside.urls) == set(record.store) and roots == record.store_roots:
        return
    _check_one(outside, await session.etcd.clusters())
    changed = msgspec.structs.replace(record, store=list(outside.urls), store_roots=roots)
    put = Put(keys.CLUSTER, msgspec.json.encode(changed))
    if (await session.etcd.transact([Compare(keys.CLUSTER, "MOD", held.revision)], [put])).succeeded:
        log.info("all nodes are told that the cluster's store is %s", outside)


def _check_free(outside: Outside, entries: Sequence[Entry]) -> None:
    """Raises Conflict."""
    if not entries:
        return
    head = next((entry for entry in entries if entry.key == keys.CLUSTER), None)
    try:
        cluster = _cluster(head.value if head else b"")
    except (msgspec.DecodeError, UnicodeDecodeError):
        what = "keys of a cluster that is none (any more)"
    else:
        names = sorted(record.name for record in _nodes(entries))
        of = f", of {', '.join(names[:5])}{', …' if names[5:] else ''}" if names else ""
        what = f"cluster {cluster.id}, begun {cluster.created[:19]}{of}"
        if head and head.lease:
            raise Conflict(
                f"{outside} is where {what} is just being begun: join that one, or name another prefix "
                f"(etcd://HOST:PORT/NAME); if nobody does so any more, the place is free within {_CLAIM_SECONDS} s"
            )
    raise Conflict(
        f"{outside} holds {what}: join that one (with --force-new-cluster when all its managers are gone for good), name "
        "another prefix (etcd://HOST:PORT/NAME), or, when it is no more, remove it with `etcdctl del --prefix "
        f"{outside.prefix}{keys.ROOT}`"
    )


def _cluster(value: bytes) -> ClusterRecord:
    return msgspec.json.decode(value, type=ClusterRecord)


def _nodes(entries: Iterable[Entry]) -> list[NodeRecord]:
    found = []
    for entry in entries:
        with suppress(msgspec.DecodeError, UnicodeDecodeError):
            if keys.split(entry.key)[0] == "nodes":
                found.append(msgspec.json.decode(entry.value, type=NodeRecord))
    return found


async def erase(etcd: Etcd, cluster: ClusterRecord, nodes: Sequence[str]) -> None:
    """Nothing is left of a cluster: neither keys nor users of its nodes, of whom the last may be who asks."""
    entry = await etcd.get(keys.CLUSTER)
    if entry is not None and _cluster(entry.value).id == cluster.id:
        await etcd.transact([Compare(keys.CLUSTER, "MOD", entry.modified)], [Delete(keys.ROOT, prefix=True)])
    if cluster.store_users:
        for node in nodes:
            # The user last: it may be the one that asks.
            await etcd.remove_role(users.user_of(node))
            await etcd.remove_user(users.user_of(node))


async def end(session: Session, identity: Identity) -> None:
    """The last manager leaves: nothing of the cluster stays in an etcd outside of it. Raises nothing."""
    cluster = session.mirror.cluster
    if cluster is None or not identity.external_store:
        return
    nodes = [held.record.id for held in session.mirror.nodes() if held.record.id != identity.node]
    await erase_quietly(session.etcd, cluster.record, [*nodes, identity.node])


async def take_back(outside: Outside, identity: Identity) -> None:
    """The first node could not become one. Raises nothing."""
    try:
        async with client(outside, identity.store_roots, as_user=True) as etcd:
            entry = await etcd.get(keys.CLUSTER)
            if entry is not None:
                await erase_quietly(etcd, _cluster(entry.value), [identity.node])
    except NetengineError as e:
        log.warning("what cluster %s has in %s stays there: %s", identity.cluster, outside, e.message)


async def erase_quietly(etcd: Etcd, cluster: ClusterRecord, nodes: Sequence[str]) -> None:
    try:
        await erase(etcd, cluster, nodes)
    except NetengineError as e:
        where = access.shown(cluster.store, etcd.namespace)
        log.warning(
            "what cluster %s has in %s could not be removed (%s): do it with etcdctl del --prefix %s%s",
            cluster.id,
            where,
            e.message,
            etcd.namespace,
            keys.ROOT,
        )
