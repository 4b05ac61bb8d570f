"""What a node says of its host to the others."""

from __future__ import annotations

import os
import platform

import netengine
from netengine.cluster.identity import Identity
from netengine.cluster.records import StatusRecord


def status_of(identity: Identity) -> StatusRecord:
    """What this host says of itself."""
    return StatusRecord(
        data_path=identity.data_path,
        engine=netengine.__version__,
        architecture=platform.machine(),
        nano_cpus=(os.cpu_count() or 1) * 1_000_000_000,
        memory=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    )
