"""How long tests wait. `NETENGINE_TEST_PATIENCE=5` makes deadlines five times as long, for machines that are slow by nature.

A deadline is for what must happen. What a test measures as a promise (healed within a second) is not stretched by `patient`
unless the promise is about a machine of ordinary speed.
"""

from __future__ import annotations

import os

PATIENCE = float(os.environ.get("NETENGINE_TEST_PATIENCE") or 1)
SKIPS_FAIL = os.environ.get("NETENGINE_TEST_SKIPS") == "fail"
"""Where nothing may be lacking, a test that skips is a test that fails: the virtual machine of scripts/test-vm."""


def patient(seconds: float) -> float:
    """A time-out in seconds, as long as this machine needs it."""
    return seconds * PATIENCE
