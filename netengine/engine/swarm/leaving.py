"""What it means for a cluster that a manager leaves it: the warning before, and what it takes with it."""

from __future__ import annotations

import logging

from netengine.cluster.identity import Identity
from netengine.cluster.records import MANAGER
from netengine.cluster.session import Session
from netengine.engine.swarm import ledger, outside
from netengine.errors import NetengineError

log = logging.getLogger(__name__)

_MANAGER = (
    "You are attempting to leave the swarm on a node that is participating as a manager. {why}The only way to restore a swarm "
    "that has lost consensus is to reinitialize it with `--force-new-cluster`. Use `--force` to suppress this message."
)
_LAST = (
    "You are attempting to leave the swarm on a node that is participating as a manager. Removing the last manager erases all "
    "current state of the swarm. Use `--force` to ignore this message. "
)


def warning(session: Session) -> str:
    """Why a manager should think twice."""
    everyone = [h.record for h in session.mirror.nodes() if h.record.role == MANAGER]
    if len(everyone) <= 1:
        return _LAST
    if not session.connected:
        return _MANAGER.format(why="Doing so may lose the consensus of your cluster. ")
    cluster = session.mirror.cluster
    left = [r for r in everyone if r.id != session.place.node_id]
    up = sum(1 for r in left if session.mirror.is_alive(r.id))
    if up <= len(left) // 2 and not (cluster and cluster.record.store):
        why = (
            f"Removing this node leaves {up} managers out of {len(everyone)}. Without a majority of them your swarm will be "
            "inaccessible. "
        )
        return _MANAGER.format(why=why)
    return _MANAGER.format(why="")


async def resign(session: Session, identity: Identity) -> None:
    """A manager that leaves takes its member out of etcd while it still can: the others need no majority with it then. The last
    one empties an etcd that was never the managers'. Raises nothing.

    Tried also where the session has not reached the store yet, as right after a start: for as long as a call may take.
    """
    record = session.mirror.node(identity.node)
    if record is None or not identity.is_manager:
        return
    others = [h for h in session.mirror.nodes() if h.record.role == MANAGER and h.record.id != identity.node]
    if not others:
        await outside.end(session, identity)
        return
    try:
        await ledger.demote(session.etcd, record.record)
    except NetengineError as e:
        log.warning("this host's member of the store could not be taken out of it: %s", e.message)
