"""The store: what is written together is there together, or not at all, also for the process that comes next."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from netengine.errors import KernelRefused
from netengine.model import Endpoint, Network, PublishedPort, Subnet
from netengine.store import Intent, Store, sqlite

APP = Network(
    id="1" * 64, name="app", driver="bridge", created="2025-01-01T00:00:00Z", subnets=[Subnet(subnet="10.0.0.0/24")]
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "state.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    made = Store(path)
    yield made
    made.close()


def reopened(path: Path) -> Store:
    """The store as the next daemon sees it: another connection, the first one never closed."""
    return Store(path)


def test_what_was_put_is_there_for_the_next_daemon(store: Store, path: Path) -> None:
    with store.transaction() as t:
        t.put("network", APP.id, APP)
        t.set("identity", "me")
    again = reopened(path)
    assert again.load("network", Network) == [APP]
    assert again.setting("identity") == "me"


def test_kinds_are_apart(store: Store) -> None:
    with store.transaction() as t:
        t.put("network", "1", APP)
    assert store.load("container", Network) == []


def test_putting_again_replaces(store: Store) -> None:
    for name in ("app", "renamed"):
        with store.transaction() as t:
            t.put("network", "1", Network(id="1", name=name, driver="bridge", created=""))
    assert [n.name for n in store.load("network", Network)] == ["renamed"]


def test_what_was_deleted_is_gone(store: Store) -> None:
    with store.transaction() as t:
        t.put("network", "1", APP)
    with store.transaction() as t:
        t.delete("network", "1")
        t.delete("network", "never there")
    assert store.load("network", Network) == []


def test_a_transaction_that_fails_leaves_nothing(store: Store, path: Path) -> None:
    with pytest.raises(ValueError, match="half-way"), store.transaction() as t:
        t.put("network", "1", APP)
        t.lease("pool", "10.0.0.2", "me")
        t.begin(Intent("1", "create network"))
        t.set("name", "value")
        raise ValueError("half-way")
    again = reopened(path)
    assert (again.load("network", Network), again.leases(), again.intents()) == ([], [], [])
    assert again.setting("name") is None


def test_after_a_failed_transaction_the_next_one_works(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), store.transaction():
        _ = 1 / 0
    with store.transaction() as t:
        t.put("network", "1", APP)
    assert store.load("network", Network) == [APP]


def test_a_cancelled_task_leaves_nothing(store: Store) -> None:
    """CancelledError and KeyboardInterrupt are no Exception."""
    with pytest.raises(KeyboardInterrupt), store.transaction() as t:
        t.put("network", "1", APP)
        raise KeyboardInterrupt
    assert store.load("network", Network) == []


# ---------------------------------------------------------------------- leases


def test_an_address_has_one_owner(store: Store) -> None:
    with store.transaction() as t:
        t.lease("pool", "10.0.0.2", "me")
    with pytest.raises(KernelRefused, match="contradicts this change"), store.transaction() as t:
        t.lease("pool", "10.0.0.2", "you")
    assert store.leases() == [("pool", "10.0.0.2", "me")]


def test_one_address_in_two_pools_is_two_leases(store: Store) -> None:
    with store.transaction() as t:
        t.lease("one", "10.0.0.2", "me")
        t.lease("other", "10.0.0.2", "you")
    assert len(store.leases()) == 2


def test_an_owner_gives_all_its_leases_back(store: Store) -> None:
    with store.transaction() as t:
        t.lease("one", "10.0.0.2", "me")
        t.lease("other", "10.0.0.3", "me")
        t.lease("one", "10.0.0.4", "you")
    with store.transaction() as t:
        t.release("me")
    assert store.leases() == [("one", "10.0.0.4", "you")]


# ---------------------------------------------------------------------- intents


def test_an_intent_is_there_until_it_is_finished(store: Store, path: Path) -> None:
    intent = Intent("1", "create network app")
    with store.transaction() as t:
        t.begin(intent)
    assert reopened(path).intents() == [intent]
    with store.transaction() as t:
        t.finish(intent)
    assert reopened(path).intents() == []


# ---------------------------------------------------------------------- what can be wrong with a file


def test_a_database_of_a_newer_netengine_is_refused_and_left_alone(path: Path) -> None:
    Store(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    before = path.read_bytes()
    with pytest.raises(KernelRefused, match=r"newer netengine \(schema 99, this one knows 1\)"):
        Store(path)
    assert path.read_bytes() == before


def test_a_file_that_is_no_database_is_kept_aside(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.parent.mkdir()
    words = "not a database at all, but long enough to be looked at\n" * 20
    path.write_text(words)
    store = Store(path)
    assert store.set_aside is not None and store.set_aside.read_text() == words
    assert store.set_aside.name.startswith("state.db.corrupt-")
    assert str(store.set_aside) in caplog.text
    assert store.leases() == []
    store.close()


def test_a_sound_database_is_not_set_aside(path: Path) -> None:
    Store(path).close()
    again = Store(path)
    assert again.set_aside is None
    again.close()


def test_a_directory_that_cannot_be_made_is_refused_with_the_path(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(KernelRefused, match=f"cannot use the state in {tmp_path}/file/state.db"):
        Store(tmp_path / "file" / "state.db")


def test_an_object_that_cannot_be_read_is_reported_and_left_where_it_is(
    store: Store, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with store.transaction() as t:
        t.put("network", APP.id, APP)
        t.put("network", "broken", PublishedPort(host_ip="", host_port=1, container_port=1, protocol="tcp"))
    with caplog.at_level(logging.ERROR):
        assert store.load("network", Network) == [APP]
    assert "network broken" in caplog.text and "cannot be read" in caplog.text
    assert len(reopened(path).load("network", PublishedPort)) == 1, "it was lost"


def test_a_field_that_an_older_version_does_not_know_is_no_error(store: Store) -> None:
    class Newer(Endpoint, kw_only=True):
        colour: str = "blue"

    with store.transaction() as t:
        t.put("endpoint", "1", Newer(id="1", network_id="2", container_id="3", sandbox_id="4"))
    assert [e.id for e in store.load("endpoint", Endpoint)] == ["1"]


def test_a_database_that_another_process_writes_to_is_an_error_not_a_crash(store: Store, path: Path) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    store._db.execute("PRAGMA busy_timeout = 1")
    with pytest.raises(KernelRefused, match="cannot write the state"), store.transaction():
        pass
    other.execute("ROLLBACK")
    other.close()


# ---------------------------------------------------------------------- schemas


def test_an_older_schema_becomes_the_newer_one_and_is_kept_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state.db"
    Store(path).close()
    monkeypatch.setattr(sqlite, "SCHEMA_VERSION", 3)
    migrations = {
        1: lambda d: (d.execute("CREATE TABLE more (x)"), d.execute("INSERT INTO more VALUES (1)")),
        2: lambda d: d.execute("ALTER TABLE more ADD y"),
    }
    monkeypatch.setattr(sqlite, "_MIGRATIONS", migrations)
    Store(path).close()
    with closing(sqlite3.connect(path)) as now, closing(sqlite3.connect(tmp_path / "state.db.schema-1")) as before:
        assert now.execute("SELECT * FROM more").fetchall() == [(1, None)]
        assert [d.execute("PRAGMA user_version").fetchone()[0] for d in (now, before)] == [3, 1]


def test_a_migration_that_fails_leaves_the_older_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.db"
    store = Store(path)
    with store.transaction() as t:
        t.set("identity", "me")
    store.close()
    with monkeypatch.context() as newer:
        newer.setattr(sqlite, "SCHEMA_VERSION", 3)
        migrations = {
            1: lambda d: d.execute("DROP TABLE settings"),
            2: lambda d: d.execute("no SQL at all"),
        }
        newer.setattr(sqlite, "_MIGRATIONS", migrations)
        with pytest.raises(KernelRefused, match=r"from schema 1 to 3 .*it is as it was"):
            Store(path)
    assert Store(path).setting("identity") == "me", "the older version goes on"
