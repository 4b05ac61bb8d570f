"""The clock of leases: it goes on over a restart of the daemon and while the machine sleeps, and nobody sets it."""

from __future__ import annotations

import time


def boot_seconds() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
