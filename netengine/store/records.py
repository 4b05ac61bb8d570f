"""Ownership records: of each object of the store a file in the run directory, beside the namespaces and bundles that it owns.

The marks in the kernel say what is netengine's; these files say what it is. They live as long as what they describe, until the
next boot, and are read only when the database is damaged or gone. What the database has counts more: a record is removed before
the removal of its object is committed and written after a change was, so it can be missing or old, never ahead.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from netengine.store.salvage import Salvage

log = logging.getLogger(__name__)

Key = tuple[str, str]
"""(kind, id) of an object; ("setting", name) of a setting."""

_FILE = re.compile(r"([a-z]+)-([A-Za-z0-9_.]{1,128})")
_OWNER = "owner"


class Records:
    """The files in `directory`, as those of the database at `store` with a schema. Writing never raises: what runs does not
    depend on it."""

    def __init__(self, directory: Path, store: Path, schema: int) -> None:
        self._directory = directory
        self._owner = f"{schema} {store.absolute()}\n".encode()
        self._silent = False

    def __str__(self) -> str:
        return str(self._directory)

    def read(self) -> Salvage:
        """What the records of this very database say; nothing when they are another's, or there are none."""
        out = Salvage()
        for (kind, identity), body in self._files().items():
            if kind != "setting":
                out.objects[kind, identity] = body
            elif text := _text(body):
                out.settings[identity] = text
        return out

    def sync(self, wanted: Mapping[Key, bytes]) -> None:
        """Make the files those of the database. One that is right is not written."""
        there = self._files()
        if not there:
            self._begin()
        self.forget(key for key in there if key not in wanted)
        self.keep({key: body for key, body in wanted.items() if there.get(key) != body})

    def keep(self, changed: Mapping[Key, bytes]) -> None:
        """Write records. One that cannot be written is rather missing than old."""
        for key, body in changed.items():
            if (path := self._path(key)) is None:
                continue
            try:
                _write(path, body)
                self._silent = False
            except OSError as e:
                with suppress(OSError):
                    path.unlink()
                if not self._silent:
                    log.warning("what is in the database cannot be recorded beside it too: %s", e)
                self._silent = True

    def forget(self, keys: Iterable[Key]) -> None:
        for key in keys:
            if (path := self._path(key)) is not None:
                with suppress(OSError):
                    path.unlink()

    def _path(self, key: Key) -> Path | None:
        name = "-".join(key)
        return self._directory / name if _FILE.fullmatch(name) else None

    def _begin(self) -> None:
        """An empty directory of this database's own."""
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            for entry in self._directory.iterdir():
                entry.unlink()
            _write(self._directory / _OWNER, self._owner)
        except OSError as e:
            log.warning("what is in the database cannot be recorded beside it too: %s", e)
            self._silent = True

    def _files(self) -> dict[Key, bytes]:
        out: dict[Key, bytes] = {}
        with suppress(OSError):
            if (self._directory / _OWNER).read_bytes() != self._owner:
                return {}
            for name in os.listdir(self._directory):
                if match := _FILE.fullmatch(name):
                    out[match[1], match[2]] = _read(f"{self._directory}/{name}")
        return out


def _read(path: str) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return b"".join(iter(lambda: os.read(descriptor, 1 << 16), b""))
    finally:
        os.close(descriptor)


def _write(path: Path, body: bytes) -> None:
    """As a whole or not at all, and for root alone: the environment of a container holds secrets."""
    fresh = path.with_name(f".{path.name}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, body)
    finally:
        os.close(descriptor)
    os.rename(fresh, path)


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError:
        return ""
