"""Changes of a cluster's own settings: its specification, its join tokens, its root of certificates.

Another root takes over step by step: nodes are made to trust both and ask for new certificates, and when the last one has one
of the new root, whichever manager sees it first takes the trust away from the old (`finish_rotation`).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import msgspec

from netengine.cluster import keys, tokens
from netengine.cluster.records import ClusterRecord
from netengine.cluster.session import Session
from netengine.engine.core import now
from netengine.engine.swarm import ledger, specs
from netengine.engine.swarm.nodes import settled
from netengine.engine.swarm.requests import CAConfig, SwarmSpec
from netengine.errors import Conflict, Invalid, Unavailable
from netengine.store.etcd import Compare, Put, Step

if TYPE_CHECKING:
    from netengine.cluster.certificates import Authority

log = logging.getLogger(__name__)


async def update(
    session: Session, version: int, asked: SwarmSpec, *, rotate_worker: bool, rotate_manager: bool
) -> None:
    """Raises Conflict when the specification is no longer the one that the caller saw."""
    held = session.mirror.cluster
    if held is None:
        raise Unavailable("this manager has not read the cluster's state yet: try again")
    spec = specs.settled(asked)
    entry = await ledger.seen(session.etcd, keys.CLUSTER, version, _spec)
    record = msgspec.json.decode(entry.value, type=ClusterRecord)
    changed = msgspec.structs.replace(record, spec=spec, updated=now())
    steps: list[Step] = []
    if rotate_worker or rotate_manager:
        secrets = await ledger.tokens(session.etcd)
        secrets = ledger.Tokens(
            worker=tokens.make_secret() if rotate_worker else secrets.worker,
            manager=tokens.make_secret() if rotate_manager else secrets.manager,
        )
        steps.append(Put(ledger.TOKENS, msgspec.json.encode(secrets)))
    ca = asked.ca_config or CAConfig()
    if wants_other_root(record, ca):
        authority = await _next_authority(session, record, ca)
        changed = msgspec.structs.replace(changed, trust=authority.trust, rotating=True)
        steps.append(Put(ledger.AUTHORITY, msgspec.json.encode(authority)))
    steps.append(Put(keys.CLUSTER, msgspec.json.encode(changed)))
    outcome = await session.etcd.transact([Compare(keys.CLUSTER, "MOD", entry.modified)], steps)
    if not outcome.succeeded:
        raise Conflict(ledger.OUT_OF_SEQUENCE)
    await session.mirror.reached(outcome.revision)


def _spec(value: bytes) -> object:
    """What of the cluster's record its users change."""
    return msgspec.json.decode(value, type=ClusterRecord).spec


def wants_other_root(record: ClusterRecord, asked: CAConfig) -> bool:
    """By Docker's rule: a counter that differs, or a certificate that is brought."""
    if bool(asked.signing_ca_cert) != bool(asked.signing_ca_key):
        raise Invalid("a CA certificate and its key are given together: --ca-cert and --ca-key")
    return bool(asked.signing_ca_cert) or asked.force_rotate != int(
        record.spec.get("CAConfig", {}).get("ForceRotate", 0)
    )


async def _next_authority(session: Session, record: ClusterRecord, asked: CAConfig) -> Authority:
    from netengine.cluster import certificates

    if record.rotating:
        raise Conflict(
            "the cluster's root is being changed already: wait until it is done (docker swarm ca --detach=false)"
        )
    old = await ledger.authority(session.etcd)
    if asked.signing_ca_cert:
        new = certificates.adopt_authority(asked.signing_ca_cert, asked.signing_ca_key)
        if certificates.digest(new.certificate) == certificates.digest(old.certificate):
            raise Invalid("this CA certificate is the cluster's already")
    else:
        new = certificates.create_authority(record.id)
    return certificates.succeed(old, new)


async def finish_rotation(session: Session) -> None:
    """When every node has a certificate of the new root, the old one is trusted no more. Done by any manager, once."""
    from netengine.cluster import certificates

    held = session.mirror.cluster
    if held is None or not held.record.rotating:
        return
    authority = await ledger.authority(session.etcd)
    wanted = certificates.digest(authority.certificate).hex()
    if any(node.record.issuer != wanted for node in settled(session)):
        return
    over = certificates.settle(authority)
    changed = msgspec.structs.replace(held.record, trust=over.trust, rotating=False, updated=now())
    outcome = await session.etcd.transact(
        [Compare(keys.CLUSTER, "MOD", held.revision)],
        [Put(ledger.AUTHORITY, msgspec.json.encode(over)), Put(keys.CLUSTER, msgspec.json.encode(changed))],
    )
    if outcome.succeeded:
        log.info("every node has a certificate of the cluster's new root: the old one is trusted no more")
