"""The labs of the fault tests, one of each kind for all of them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.lab import Lab
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


@pytest.fixture(scope="session")
def api_lab() -> Iterator[Lab]:
    """A daemon to send requests to. Whoever does, clears up after himself, by `Lab.reset`."""
    directory = Path(tempfile.mkdtemp(prefix="netengine-lab-"))
    lab = Lab(directory)
    try:
        yield lab
        lab.reset()
    finally:
        lab.close(check=False)
        shutil.rmtree(directory, ignore_errors=True)
