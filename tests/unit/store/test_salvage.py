"""What is read of damaged databases: everything that is not on the page that was hit, and never an exception."""

from __future__ import annotations

import logging
import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from netengine.model import Network
from netengine.store import Store
from netengine.store.salvage import Salvage, salvage
from netengine.store.sqlite import SCHEMA_VERSION

PAGE = 4096


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database of 60 networks with 1 kB of labels each, closed."""
    path = tmp_path / "state.db"
    store = Store(path)
    with store.transaction() as t:
        for number in range(60):
            labels = {"words": f"{number} " * 300}
            network = Network(id=f"{number:064x}", name=f"n{number}", driver="bridge", created="", labels=labels)
            t.put("network", network.id, network)
        t.set("forwarding", "was on")
    store.close()
    return path


def hit(path: Path, name: str) -> None:
    """Overwrite the page that has the beginning of a network's object."""
    body = bytearray(path.read_bytes())
    page = body.index(f'"name":"{name}"'.encode()) // PAGE
    body[page * PAGE : (page + 1) * PAGE] = random.Random(1).randbytes(PAGE)
    path.write_bytes(body)


def test_a_page_that_is_hit_costs_what_is_on_it(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    hit(path, "n30")
    damaged = path.read_bytes()
    caplog.set_level(logging.ERROR)
    store = Store(path)
    assert store.set_aside is not None and store.set_aside.read_bytes() == damaged
    names = {network.name for network in store.load("network", Network)}
    assert "n30" not in names
    assert {"n0", "n1", "n58", "n59"} <= names and len(names) > 50
    assert store.setting("forwarding") == "was on"
    assert f"{len(names)} of kind network" in caplog.text
    store.close()
    assert {network.name for network in Store(path).load("network", Network)} == names, "and stays"


def test_without_a_head_nothing_can_be_read(path: Path) -> None:
    body = path.read_bytes()
    path.write_bytes(bytes(PAGE) + body[PAGE:])
    assert salvage(path, SCHEMA_VERSION) == Salvage()
    assert str(Salvage()) == "nothing"


def test_another_schema_is_left_alone(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    assert salvage(path, SCHEMA_VERSION) == Salvage()


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_damaged_the_next_store_can_be_used(path: Path, seed: int) -> None:
    chance = random.Random(seed)
    body = bytearray(path.read_bytes())
    for _ in range(chance.randrange(1, 30)):
        at = chance.randrange(100, len(body))
        body[at : at + chance.randrange(1, 300)] = chance.randbytes(chance.randrange(1, 300))
    path.write_bytes(body)
    store = Store(path)
    store.load("network", Network)
    with store.transaction() as t:
        t.set("works", "yes")
    assert store.setting("works") == "yes"
    store.close()
