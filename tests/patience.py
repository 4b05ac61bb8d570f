"""How long tests wait. `NETENGINE_TEST_PATIENCE=5` makes deadlines five times as long, for machines that are slow by nature.

A deadline is for what must happen. What a test measures as a promise (healed within a second) is not stretched by `patient`
unless the promise is about a machine of ordinary speed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

PATIENCE = float(os.environ.get("NETENGINE_TEST_PATIENCE") or 1)
SKIPS_FAIL = os.environ.get("NETENGINE_TEST_SKIPS") == "fail"
"""Where nothing may be lacking, a test that skips is a test that fails: the virtual machine of scripts/test-vm."""

AT_ONCE = os.environ.get("NETENGINE_TEST_FAILURES") == "at-once"
"""Whether failures are told as they happen, and not only at the end."""


def patient(seconds: float) -> float:
    """A time-out in seconds, as long as this machine needs it."""
    return seconds * PATIENCE


_START = 0.02
"""Seconds that a process takes to start and end on an idle machine of ordinary speed."""


def promised(seconds: float) -> float:
    """What a promise of so many seconds comes to on this machine as it is now, with all the other things that it does.

    Ask for it after what was measured: it is a measurement too.
    """
    took = []
    for _ in range(3):
        began = time.monotonic()
        subprocess.run([sys.executable, "-I", "-S", "-c", ""], check=True)
        took.append(time.monotonic() - began)
    return seconds * max(1.0, *(one / _START for one in took))
