"""What managers see to by themselves: hosts that began to join and never came, a root whose rotation is done, members of etcd
that must start anew. Each manager does it, and what is done twice does no harm.
"""

from __future__ import annotations

import logging
import time

from netengine.cluster import keys
from netengine.cluster.member import EtcdMember
from netengine.cluster.session import Session
from netengine.engine.swarm import ledger, settings
from netengine.store.etcd import Compare, Put

log = logging.getLogger(__name__)

_ARRIVE_SECONDS = 60.0
"""In which a host that was let in must have said something of itself; a manager's first member of etcd takes its time."""

_RESTARTING = keys.SECRET + "restarting"
_RESTART_SECONDS = 60  # a manager that dies meanwhile stops the others for no longer


class Oversight:
    """Of one manager."""

    def __init__(self) -> None:
        self._silent: dict[str, float] = {}

    async def look(self, session: Session) -> None:
        """Raises what the store raises; then it is done the next time."""
        await self._forget_those_who_never_came(session)
        await settings.finish_rotation(session)

    async def _forget_those_who_never_came(self, session: Session) -> None:
        """Goes by how long this manager has seen it, not by the joiner's record: clocks differ."""
        at = time.monotonic()
        silent = [h.record for h in session.mirror.nodes() if session.mirror.status(h.record.id) is None]
        self._silent = {r.id: self._silent.get(r.id, at) for r in silent}
        for record in silent:
            if at - self._silent[record.id] > _ARRIVE_SECONDS:
                log.warning("host %s was let in as node %s and never came: it is forgotten", record.name, record.id)
                await ledger.forget_node(session.etcd, record)


async def restart_in_turn(session: Session, member: EtcdMember) -> bool:
    """Start this host's member of etcd anew unless another manager's is just being: whether it was done."""
    lease = await session.etcd.grant(_RESTART_SECONDS)
    try:
        mine = Put(_RESTARTING, session.place.node_id.encode(), lease)
        if not (await session.etcd.transact([Compare(_RESTARTING, "VERSION", 0)], [mine])).succeeded:
            return False
        log.info("this host's member of etcd starts anew, to trust what the cluster trusts now")
        await member.restart()
        return True
    finally:
        await session.etcd.revoke(lease)
