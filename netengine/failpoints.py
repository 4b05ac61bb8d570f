"""Points at which a test can end the daemon, as `kill -9` would: each write of the store, each step on the kernel. And others
at which it can have the kernel refuse: each message that is sent to it, each answer that is read.

Off unless the environment names a directory in NETENGINE_FAILPOINTS when the process starts; `reach` and `refuse` do nothing
then. On, nothing happens until the file `arm` appears in that directory. From then on each point that is reached is added to
the file `reached`. With a number in `arm`, the point of that number (from 1) is the last; 0 only counts. With an error's name
before it and a second number after it, as `ENOMEM 3 5`, points to end at are passed over, and those to refuse at fail from the
first to the last of these numbers. See tests/faults.
"""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

VARIABLE = "NETENGINE_FAILPOINTS"


class _Points:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._count = 0

    def reach(self, point: str) -> None:
        """Die here, if it is the point to die at."""
        if (words := self._armed()) and len(words) == 1 and self._pass(point) == int(words[0]):
            os.kill(os.getpid(), signal.SIGKILL)

    def refuse(self, point: str) -> None:
        """Raise OSError, if this is a point to fail at."""
        if (words := self._armed()) and len(words) == 3 and int(words[1]) <= self._pass(point) <= int(words[2]):
            number = getattr(errno, words[0])
            raise OSError(number, os.strerror(number))

    def _armed(self) -> list[str]:
        """The words in `arm`; none where it is not there or just being written."""
        try:
            words = (self._directory / "arm").read_text().split()
        except FileNotFoundError:
            words = []
        if not words:
            self._count = 0
        return words

    def _pass(self, point: str) -> int:
        """The number of this point."""
        self._count += 1
        with (self._directory / "reached").open("a") as file:
            file.write(f"{point}\n")
        return self._count


def _nothing(point: str) -> None:
    pass


_points = _Points(Path(os.environ[VARIABLE])) if VARIABLE in os.environ else None

reach = _points.reach if _points else _nothing
"""Say that a point has been reached; `point` is a name for the test's report."""

refuse = _points.refuse if _points else _nothing
"""The same for a point where the kernel may refuse. Raises OSError then."""
