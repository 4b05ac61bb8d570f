"""The SQLite store. One connection, one thread at a time; every change is a transaction."""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from netengine import failpoints
from netengine.errors import KernelRefused
from netengine.store.records import Key, Records
from netengine.store.salvage import Salvage, salvage

log = logging.getLogger(__name__)

SCHEMA_VERSION = 1
_CORRUPT = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)

_SCHEMA = """
CREATE TABLE objects (kind TEXT NOT NULL, id TEXT NOT NULL, body BLOB NOT NULL, PRIMARY KEY (kind, id)) WITHOUT ROWID;
CREATE TABLE leases (pool TEXT NOT NULL, address TEXT NOT NULL, owner TEXT NOT NULL,
                     PRIMARY KEY (pool, address)) WITHOUT ROWID;
CREATE TABLE intents (id TEXT PRIMARY KEY, what TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
"""

_MIGRATIONS: Mapping[int, Callable[[sqlite3.Connection], object]] = {}
"""Of each older schema, what makes it the next one, inside a transaction. Fields of objects need none: those that are missing
get their default, those that are unknown are left out."""
S = TypeVar("S", bound=msgspec.Struct)


def _stamp() -> str:
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())


@dataclass(frozen=True, slots=True)
class Intent:
    """An operation that was begun and not finished. `id` is also the owner of the leases it took."""

    id: str
    what: str


class Transaction:
    """Changes that are written together, or not at all."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection
        self.changed: dict[Key, bytes] = {}
        """For the records: what was written, and what was deleted."""
        self.deleted: set[Key] = set()

    def put(self, kind: str, identity: str, value: msgspec.Struct) -> None:
        body = msgspec.json.encode(value)
        self._db.execute("INSERT OR REPLACE INTO objects VALUES (?, ?, ?)", (kind, identity, body))
        self.changed[kind, identity] = body

    def delete(self, kind: str, identity: str) -> None:
        self._db.execute("DELETE FROM objects WHERE kind = ? AND id = ?", (kind, identity))
        self.changed.pop((kind, identity), None)
        self.deleted.add((kind, identity))

    def lease(self, pool: str, address: str, owner: str) -> None:
        """Raises sqlite3.IntegrityError when the address has an owner."""
        self._db.execute("INSERT INTO leases VALUES (?, ?, ?)", (pool, address, owner))

    def release(self, owner: str) -> None:
        self._db.execute("DELETE FROM leases WHERE owner = ?", (owner,))

    def begin(self, intent: Intent) -> None:
        self._db.execute("INSERT OR REPLACE INTO intents VALUES (?, ?)", (intent.id, intent.what))

    def finish(self, intent: Intent) -> None:
        self._db.execute("DELETE FROM intents WHERE id = ?", (intent.id,))

    def set(self, name: str, value: str) -> None:
        self._db.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (name, value))
        self.changed["setting", name] = value.encode()


class Store:
    """The database under `path`. Opened once; raises KernelRefused with the path and the remedy when it cannot be used.

    A file that is no sound database is renamed to `path`.corrupt-TIME, and a new one begun with what can still be read of it
    and with what the records in the directory `records` have beyond that: `set_aside` is its new name then. The same is done
    where there is no file any more, but records are. Leases are not read: they follow from the endpoints.
    """

    def __init__(self, path: Path, records: Path | None = None) -> None:
        self._path = path
        self._records = Records(records, path, SCHEMA_VERSION) if records else None
        self.set_aside: Path | None = None
        self.later: Callable[[Callable[[], None]], object] | None = None
        """Calls a function soon. With it records are written behind the answer to whoever waits for the transaction."""
        self._unrecorded: dict[Key, bytes] = {}
        try:
            path.parent.mkdir(mode=0o710, parents=True, exist_ok=True)
            try:
                if self._open() == 0:
                    self._from_records()
            except sqlite3.DatabaseError as e:
                # Extended result codes have the primary one in their low byte.
                if getattr(e, "sqlite_errorcode", 0) & 0xFF not in _CORRUPT:
                    raise
                self._begin_afresh(e)
            self._record_everything()
        except (sqlite3.Error, OSError) as e:
            raise KernelRefused(
                f"cannot use the state in {path}: {e}; check the disk, or move the file away to do without it"
            ) from e

    def _open(self) -> int:
        """Answers the schema that the file had; 0 for a new one."""
        # The writer lock of the engine keeps threads from using it at the same time.
        self._db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:  # before anything is written
            raise sqlite3.DatabaseError(
                f"it was written by a newer netengine (schema {version}, this one knows {SCHEMA_VERSION})"
            )
        self._db.execute("PRAGMA journal_mode = WAL")
        # A crash of the daemon loses nothing in this mode; a crash of the machine takes the kernel's state with it.
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._migrate(version)
        damage = self._db.execute("PRAGMA quick_check(1)").fetchone()[0]
        if damage != "ok":
            error = sqlite3.DatabaseError(damage)
            error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise error
        return int(version)

    def _begin_afresh(self, why: sqlite3.DatabaseError) -> None:
        self._db.close()
        aside = self._path.with_name(f"{self._path.name}.corrupt-{_stamp()}")
        for suffix in ("", "-wal", "-shm"):
            file = self._path.with_name(self._path.name + suffix)
            if file.exists():
                file.rename(aside.with_name(aside.name + suffix))
        saved = salvage(aside, SCHEMA_VERSION)
        beyond = self._recorded().without(saved)
        log.error(
            "the state in %s is damaged (%s): it is kept as %s, and a new one begun with what could be read of it: %s; and "
            "with what was recorded in the run directory beyond that: %s. Other networks and containers are forgotten, and "
            "what is left of them in the kernel is removed",
            self._path,
            why,
            aside,
            saved,
            beyond,
        )
        self.set_aside = aside
        self._open()
        self._fill(saved)
        self._fill(beyond)

    def _recorded(self) -> Salvage:
        return self._records.read() if self._records else Salvage()

    def _from_records(self) -> None:
        """The file is new. If there was another, what it had is known."""
        recorded = self._recorded()
        if recorded.objects:
            self.set_aside = self._path.with_name(f"{self._path.name}.gone-{_stamp()}")
            log.error(
                "the state in %s is gone, and what it had is still there: a new one is begun with what was recorded in the run "
                "directory: %s. To begin with nothing, use netengined --cleanup",
                self._path,
                recorded,
            )
            self._fill(recorded)

    def _record_everything(self) -> None:
        if self._records is None:
            return
        try:
            rows = self._db.execute(
                "SELECT kind, id, CAST(body AS BLOB) FROM objects UNION ALL "
                "SELECT 'setting', name, CAST(value AS BLOB) FROM settings"
            )
            self._records.sync({(kind, identity): body for kind, identity, body in rows})
        except sqlite3.Error as e:  # a name that is no text: it is found out when that object is loaded
            log.warning("what is in %s cannot be recorded beside it too: %s", self._path, e)

    def _fill(self, saved: Salvage) -> None:
        with self._db as db:
            db.execute("BEGIN")
            db.executemany(
                "INSERT INTO objects VALUES (?, ?, ?)", [(*key, body) for key, body in saved.objects.items()]
            )
            db.executemany("INSERT INTO settings VALUES (?, ?)", saved.settings.items())

    def close(self) -> None:
        self.write_records()
        self._db.close()

    def _migrate(self, version: int) -> None:
        if version == 0:
            self._db.executescript(f"BEGIN;{_SCHEMA}PRAGMA user_version = {SCHEMA_VERSION};COMMIT;")
        elif version < SCHEMA_VERSION:
            self._upgrade(version)

    def _upgrade(self, version: int) -> None:
        """To the schema of this version, as a whole or not at all; the older one stays beside it."""
        kept = self._path.with_name(f"{self._path.name}.schema-{version}")
        with closing(sqlite3.connect(kept)) as copy:
            self._db.backup(copy)
        try:
            self._db.execute("BEGIN IMMEDIATE")
            for older in range(version, SCHEMA_VERSION):
                _MIGRATIONS[older](self._db)
            self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            self._db.execute("COMMIT")
        except (sqlite3.Error, KeyError) as e:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise sqlite3.OperationalError(
                f"it cannot be brought from schema {version} to {SCHEMA_VERSION} ({e}); it is as it was, and the older"
                " netengine can go on with it"
            ) from e
        log.info(
            "the state in %s was brought from schema %d to %d; as it was: %s", self._path, version, SCHEMA_VERSION, kept
        )

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Raises KernelRefused when the disk is full or the database cannot be written; nothing of it is kept then."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as e:
            raise KernelRefused(f"cannot write the state in {self._path}: {e}") from e
        transaction = Transaction(self._db)
        try:
            yield transaction
            failpoints.reach("store: before the commit")
            if self._records is not None:
                self._records.forget(transaction.deleted)
            self._db.execute("COMMIT")
            failpoints.reach("store: after the commit")
            if self._records is not None:
                self._record(transaction)
        except BaseException as e:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
                if transaction.deleted:
                    self._record_everything()
            if isinstance(e, sqlite3.IntegrityError):
                raise KernelRefused(f"the state in {self._path} contradicts this change: {e}") from e
            if isinstance(e, sqlite3.Error):
                raise KernelRefused(f"cannot write the state in {self._path}: {e}") from e
            raise

    def _record(self, transaction: Transaction) -> None:
        due = bool(self._unrecorded)
        for key in transaction.deleted:
            self._unrecorded.pop(key, None)
        self._unrecorded.update(transaction.changed)
        if self.later is None:
            self.write_records()
        elif self._unrecorded and not due:
            self.later(self.write_records)

    def write_records(self) -> None:
        """Bring the records up to the database."""
        if self._records is not None:
            self._records.keep(self._unrecorded)
        self._unrecorded.clear()

    def load(self, kind: str, as_type: type[S]) -> list[S]:
        """All objects of a kind. One that cannot be read is reported and left alone, not lost."""
        out = []
        for identity, body in self._db.execute("SELECT id, body FROM objects WHERE kind = ?", (kind,)):
            try:
                out.append(msgspec.json.decode(body, type=as_type))
            except msgspec.DecodeError as e:
                log.error("%s %s in %s cannot be read and is left out: %s", kind, identity, self._path, e)
        return out

    def ids(self, kind: str) -> set[str]:
        """Those of all objects of a kind, also of those that cannot be read."""
        return {str(row[0]) for row in self._db.execute("SELECT id FROM objects WHERE kind = ?", (kind,))}

    def leases(self) -> list[tuple[str, str, str]]:
        """All leases as (pool, address, owner)."""
        return list(self._db.execute("SELECT pool, address, owner FROM leases"))

    def intents(self) -> list[Intent]:
        return [Intent(*row) for row in self._db.execute("SELECT id, what FROM intents")]

    def setting(self, name: str) -> str | None:
        row = self._db.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])
