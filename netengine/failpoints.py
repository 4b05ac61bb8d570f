"""Points at which a test can end the daemon, as `kill -9` would: each write of the store, each step on the kernel.

Off unless the environment names a directory in NETENGINE_FAILPOINTS when the process starts; `reach` does nothing then. On,
nothing happens until the file `arm` appears in that directory. From then on each point that is reached is added to the file
`reached`, and the point whose number (from 1) stands in `arm` is the last. 0 only counts. See tests/faults.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

VARIABLE = "NETENGINE_FAILPOINTS"


class _Points:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._count = 0

    def reach(self, point: str) -> None:
        try:
            last = int((self._directory / "arm").read_text())
        except (FileNotFoundError, ValueError):
            self._count = 0
            return
        self._count += 1
        with (self._directory / "reached").open("a") as file:
            file.write(f"{point}\n")
        if self._count == last:
            os.kill(os.getpid(), signal.SIGKILL)


def _nothing(point: str) -> None:
    pass


reach = _Points(Path(os.environ[VARIABLE])).reach if VARIABLE in os.environ else _nothing
"""Say that a point has been reached; `point` is a name for the test's report."""
