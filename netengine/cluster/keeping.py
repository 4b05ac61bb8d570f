"""The file in which a daemon keeps its mirror of the cluster's state, for a start without etcd.

A line of JSON for each batch of changes, appended before anybody hears of it: what the kernel was told is in the file whenever
the daemon is killed. What is written grows with what changed; once there is more of that than of the state itself, the file is
written anew, as one line. Nothing waits for the disk: after a power cut an older state will do, since nothing of it is in the
kernel any more.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path

log = logging.getLogger(__name__)

Values = Mapping[str, tuple[bytes, int] | None]
"""Values with the revisions of their last change, by key; None for a key that is gone."""

_LEAST = 64 * 1024
"""Bytes of changes that are appended in any case before the file is written anew."""


class Keeping:
    """Used on the event loop. Raises nothing: a file that cannot be read or written is named in the log."""

    def __init__(self, file: Path, everything: Callable[[], tuple[int, Values]]) -> None:
        """`everything` is asked for the revision and the whole state when the file is written anew."""
        self._file = file
        self._everything = everything
        self._descriptor = -1
        self._most = 0
        self._size = 0

    def read(self) -> tuple[int, dict[str, tuple[bytes, int]]] | None:
        """The revision and the state in the file, None without one that can be read."""
        revision, state = 0, dict[str, tuple[bytes, int]]()
        try:
            whole, _, rest = self._file.read_bytes().partition(b"\n")
            for line in (whole, *rest.splitlines(keepends=True)):
                if line is not whole and not line.endswith(b"\n"):
                    break  # the daemon was killed meanwhile
                kept = json.loads(line)
                revision = int(kept["revision"])
                for key, found in kept["keys"].items():
                    if found is None:
                        state.pop(key, None)
                    else:
                        state[key] = (found[0].encode(), int(found[1]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError) as e:
            log.warning("%s cannot be read and is left out: %s", self._file, e)
            return None
        return revision, state

    def add(self, revision: int, changes: Values) -> None:
        if self._descriptor < 0 or self._size > self._most:
            self.write()
            return
        line = _line(revision, changes)
        try:
            if os.write(self._descriptor, line) != len(line):
                raise OSError("no space for all of it")
        except OSError as e:
            self._fail(e)
        else:
            self._size += len(line)

    def write(self) -> None:
        """Write the file anew, whole or not at all."""
        self.close()
        new = self._file.with_suffix(".new")
        line = _line(*self._everything())
        try:
            new.unlink(missing_ok=True)
            new.write_bytes(line)
            new.chmod(0o600)
            descriptor = os.open(new, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
            try:
                new.replace(self._file)
            except BaseException:
                os.close(descriptor)
                raise
        except OSError as e:
            self._fail(e)
        else:
            self._descriptor, self._size, self._most = descriptor, 0, max(len(line), _LEAST)

    def _fail(self, error: OSError) -> None:
        """The file stays as it was, and the next change tries to write it anew."""
        log.warning("%s cannot be written, and lacks what has changed: %s", self._file, error)
        self.close()

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


def _line(revision: int, values: Values) -> bytes:
    keys = {key: found and (found[0].decode(), found[1]) for key, found in values.items()}
    return json.dumps({"revision": revision, "keys": keys}).encode() + b"\n"
