"""What happens to nodes as events, in Docker's words: node create, update, remove, with what changed and from what."""

from __future__ import annotations

from netengine.cluster.mirror import Change
from netengine.cluster.records import NodeRecord
from netengine.cluster.session import Session
from netengine.engine.events import Events


def publish(events: Events, session: Session, change: Change) -> None:
    """The event of one change, if it is one."""
    node_id = change.parts[0] if change.parts else ""
    if change.kind == "alive":
        held = session.mirror.node(node_id)
        if held is None or (change.before is not None) == (change.after is not None):
            return
        new, old = ("ready", "down") if change.after is not None else ("down", "ready")
        events.publish("node", "update", node_id, name=held.record.name, **{"state.new": new, "state.old": old})
    elif change.kind == "nodes":
        record = change.after or change.before
        if change.before is None:
            events.publish("node", "create", node_id, name=record.name)
        elif change.after is None:
            events.publish("node", "remove", node_id, name=record.name)
        elif different := _different(change.before, change.after):
            events.publish("node", "update", node_id, name=record.name, **different)


def _different(before: NodeRecord, after: NodeRecord) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in ("role", "availability"):
        old, new = getattr(before, name), getattr(after, name)
        if old != new:
            found |= {f"{name}.new": new, f"{name}.old": old}
    if before.labels != after.labels:
        found["labels"] = "changed"
    return found
