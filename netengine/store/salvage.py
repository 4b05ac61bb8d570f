"""What can still be read of a damaged database. Reads only: the damaged file stays as it is, for whoever wants to look.

SQLite reads a table page by page and stops at the first that is broken. Read from both ends, one broken page costs the objects
on that page; a broken head, or a table's broken root, costs all of them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Salvage:
    """`objects` are body by (kind, id), `settings` value by name. Whether a body makes sense is found out when it is loaded."""

    objects: dict[tuple[str, str], bytes] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)

    def without(self, other: Salvage) -> Salvage:
        """What is not in the other one."""
        return Salvage(
            {key: body for key, body in self.objects.items() if key not in other.objects},
            {name: value for name, value in self.settings.items() if name not in other.settings},
        )

    def __str__(self) -> str:
        kinds = [kind for kind, _ in self.objects]
        return ", ".join(f"{kinds.count(kind)} of kind {kind}" for kind in sorted(set(kinds))) or "nothing"


def salvage(path: Path, schema: int) -> Salvage:
    """Never raises; a file of another schema gives nothing."""
    out = Salvage()
    with suppress(sqlite3.Error), closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
        # A name, say, may have been hit too: it must not end the reading.
        db.text_factory = lambda raw: raw.decode(errors="replace")
        if db.execute("PRAGMA user_version").fetchone() != (schema,):
            return out
        for order in ("ASC", "DESC"):
            for kind, identity, body in _rows(
                db, f"SELECT kind, id, body FROM objects ORDER BY kind {order}, id {order}"
            ):
                if isinstance(kind, str) and isinstance(identity, str) and isinstance(body, bytes):
                    out.objects.setdefault((kind, identity), body)
            for name, value in _rows(db, f"SELECT name, value FROM settings ORDER BY name {order}"):
                if isinstance(name, str) and isinstance(value, str):
                    out.settings.setdefault(name, value)
    return out


def _rows(db: sqlite3.Connection, statement: str) -> Iterator[tuple[object, ...]]:
    with suppress(sqlite3.Error):
        yield from db.execute(statement)
