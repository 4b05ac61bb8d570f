"""A cluster whose managers are all gone for good, while its store is not, since they did not run it: another host becomes one.

Whoever may read all of the store has the root's key, and so could do this by hand: nobody gains anything that he had not.
Nothing of the cluster is changed but that there is a manager again; those that come back all the same are what they were, since
in such a store managers have no votes.
"""

from __future__ import annotations

from dataclasses import replace

import msgspec

from netengine.cluster import keys, users
from netengine.cluster.access import Outside
from netengine.cluster.identity import Files, Identity
from netengine.cluster.protocol import Renewal
from netengine.cluster.records import CONTROL_PORT, MANAGER, NO_MEMBER, ClusterRecord, NodeRecord
from netengine.engine.core import now
from netengine.engine.swarm import founding, ledger, outside
from netengine.engine.swarm.addresses import with_port
from netengine.errors import Conflict, Forbidden, NetengineError, NotFound
from netengine.store.etcd import Compare, Etcd, Put


async def join(plan: founding.Plan, files: Files) -> Identity | None:
    """This host, which is in no cluster, comes in as a manager; when it returns it is one, by what is on disk. None when there
    is no cluster in the plan's store. Raises Conflict while a manager is up."""
    from netengine.cluster import certificates

    theirs = plan.outside
    assert theirs is not None  # the caller has looked
    has_users = await outside.judge(theirs)
    async with outside.client(theirs, theirs.roots(), as_user=True) as etcd:
        head = await etcd.get(keys.CLUSTER)
        if head is None or head.lease:
            return None
        cluster = await _cluster(etcd, theirs, has_users)
        address = plan.where.advertise
        record = NodeRecord(
            id=ledger.new_id(),
            name=plan.name,
            role=MANAGER,
            availability=plan.availability,
            address=address,
            member=NO_MEMBER,
            created=now(),
        )
        await _check_nobody_manages(etcd, record)
        founding.check_data_path(plan.where, cluster.data_path_port)
        authority = await ledger.authority(etcd)
        key = certificates.make_key()
        certificate = ledger.issue(authority, cluster, record, certificates.make_request(key), [address])
        identity = founding.identity_of(plan, record.id, cluster, users.make_password() if has_users else "")
        try:
            if has_users:
                await users.admit(etcd, record.id, identity.password, manager=True)
            new, put = (
                Compare(keys.node(record.id), "VERSION", 0),
                Put(keys.node(record.id), msgspec.json.encode(record)),
            )
            await etcd.transact([new], [put])
            files.save(identity, key, certificate, authority.trust)
        except BaseException:
            await ledger.forget_quietly(etcd, record)
            raise
    return identity


async def withdraw(theirs: Outside, identity: Identity) -> None:
    """It could not be one after all. Raises nothing."""
    try:
        async with outside.client(theirs, identity.store_roots, as_user=True) as etcd:
            await ledger.forget_quietly(etcd, await ledger.node(etcd, identity.node))
    except NetengineError as e:
        outside.log.warning("what was made for node %s in %s stays there: %s", identity.node, theirs, e.message)


async def promote(configured: Outside, identity: Identity, key: str) -> tuple[Renewal, int]:
    """The node of the identity, a worker, is made a manager, which nobody else could; its certificate for that key, and the
    revision of the store in which it is one. Raises Conflict while a manager is up."""
    from netengine.cluster import certificates

    known = replace(configured, urls=identity.endpoints, prefix=identity.store_prefix)
    theirs = configured if configured.urls else known
    has_users = await outside.judge(theirs, identity.store_roots)
    async with outside.client(theirs, theirs.roots() or identity.store_roots, as_user=True) as etcd:
        cluster = await _cluster(etcd, theirs, has_users)
        try:
            record = await ledger.node(etcd, identity.node)
        except NotFound:
            raise Forbidden(
                f"this host is no node of cluster {cluster.id} any more: docker swarm leave --force first"
            ) from None
        await _check_nobody_manages(etcd, record)
        authority = await ledger.authority(etcd)
        record.role = MANAGER
        request = certificates.make_request(key)
        certificate = ledger.issue(authority, cluster, record, request, [identity.advertise_address])

        def change(r: NodeRecord) -> None:
            r.role, r.member, r.serial, r.issuer = MANAGER, NO_MEMBER, record.serial, record.issuer

        await ledger.amend(etcd, identity.node, change)
        if has_users:
            await users.set_manager(etcd, identity.node, True)
        entry = await etcd.get(keys.node(identity.node))
    made = Renewal(
        certificate=certificate,
        trust=authority.trust,
        role=MANAGER,
        managers=[with_port(identity.advertise_address, CONTROL_PORT)],
        endpoints=list(identity.endpoints),
    )
    return made, entry.modified if entry else 0


async def _cluster(etcd: Etcd, theirs: Outside, has_users: bool) -> ClusterRecord:
    """That which is to be taken over."""
    cluster = await ledger.cluster(etcd)
    if cluster.store_users != has_users:
        asks = (
            "asks for users, and the cluster was begun when it"
            if has_users
            else "asks for no users, and the cluster was"
        )
        raise Conflict(
            f"{theirs} {asks} {'did not' if has_users else 'begun when it did'}: turn that back (etcdctl auth "
            f"{'disable' if has_users else 'enable'})"
        )
    return cluster


async def _check_nobody_manages(etcd: Etcd, own: NodeRecord) -> None:
    entries, _ = await etcd.read(keys.node(""))
    alive, _ = await etcd.read(keys.alive(""))
    up = {entry.key.rpartition("/")[2] for entry in alive}
    for entry in entries:
        record = msgspec.json.decode(entry.value, type=NodeRecord)
        if record.id == own.id or record.id not in up:
            continue
        if record.role == MANAGER:
            raise Conflict(
                f"manager {record.name} at {with_port(record.address, CONTROL_PORT)} is up, or was a moment ago: this host can "
                "be a manager by its word (docker swarm join-token manager, docker node promote); --force-new-cluster is for "
                "when all are gone"
            )
        if own.name == record.name or own.address == record.address:
            raise Conflict(
                f"node {record.id}, which is up, has the name {record.name} and the address {record.address}: this host needs "
                "others of its own (hostnamectl hostname NAME, --advertise-addr)"
            )
