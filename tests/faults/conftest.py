"""The lab of the fault tests, one for all of them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.harness import FaultLab


@pytest.fixture(scope="session")
def fault_lab() -> Iterator[FaultLab]:
    directory = Path(tempfile.mkdtemp(prefix="netengine-faults-"))
    lab = FaultLab(directory)
    try:
        yield lab
    finally:
        try:
            lab.close()
        finally:
            shutil.rmtree(directory, ignore_errors=True)
