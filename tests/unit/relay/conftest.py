from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.relay.doors import Relay


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Relay]:
    made = Relay(tmp_path / "relay.sock")
    yield made
    made.close()
