"""Ownership records: what the database had is known without it, and never more than it had."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from netengine.model import Network
from netengine.store import Store
from netengine.store.records import Records


def network(name: str) -> Network:
    return Network(id=name * 8, name=name, driver="bridge", created="")


class Disk:
    """A data root and a run directory, and the stores that come one after the other there."""

    def __init__(self, top: Path) -> None:
        self.path, self.records = top / "data" / "state.db", top / "run" / "records"

    def store(self) -> Store:
        return Store(self.path, self.records)

    def lose(self) -> None:
        for file in self.path.parent.glob("state.db*"):
            file.unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path)


def put(store: Store, *names: str) -> None:
    with store.transaction() as t:
        for name in names:
            t.put("network", name * 8, network(name))


def names(store: Store) -> set[str]:
    return {n.name for n in store.load("network", Network)}


def test_a_database_that_is_gone_is_begun_with_what_was_recorded(disk: Disk, caplog: pytest.LogCaptureFixture) -> None:
    store = disk.store()
    put(store, "a", "b", "c")
    with store.transaction() as t:
        t.delete("network", "b" * 8)
        t.put("network", "c" * 8, Network(id="c" * 8, name="c", driver="bridge", created="later"))
        t.set("identity", "me")
    store.close()
    disk.lose()
    with caplog.at_level(logging.ERROR):
        again = disk.store()
    assert {n.name: n.created for n in again.load("network", Network)} == {"a": "", "c": "later"}
    assert again.setting("identity") == "me"
    assert "is gone" in caplog.text and "2 of kind network" in caplog.text
    assert again.set_aside is not None and again.set_aside.name.startswith("state.db.gone-")


def test_a_new_store_is_empty_and_says_nothing(disk: Disk, caplog: pytest.LogCaptureFixture) -> None:
    store = disk.store()
    assert names(store) == set() and store.set_aside is None and caplog.text == ""


@pytest.mark.parametrize("content", [b"", b"not a database " * 500], ids=["empty", "garbage"])
def test_what_cannot_be_read_is_taken_from_the_records(disk: Disk, content: bytes) -> None:
    store = disk.store()
    put(store, "a", "b")
    store.close()
    disk.lose()
    disk.path.write_bytes(content)
    assert names(disk.store()) == {"a", "b"}


def test_a_sound_database_counts_and_the_records_follow(disk: Disk) -> None:
    """A crash between a commit and its record, or a record that somebody removed."""
    store = disk.store()
    put(store, "a", "b", "c")
    store.close()
    records = disk.records
    (records / "network-aaaaaaaa").write_text("old")
    (records / "network-bbbbbbbb").unlink()
    (records / "network-dddddddd").write_text("of something that was removed")
    again = disk.store()
    assert names(again) == {"a", "b", "c"}
    again.close()
    disk.lose()
    assert names(disk.store()) == {"a", "b", "c"}


def test_a_change_that_was_taken_back_is_not_recorded(disk: Disk) -> None:
    store = disk.store()
    put(store, "a")
    with pytest.raises(ZeroDivisionError), store.transaction() as t:
        t.put("network", "b" * 8, network("b"))
        t.delete("network", "a" * 8)
        raise ZeroDivisionError
    store.close()
    disk.lose()
    assert names(disk.store()) == {"a"}


def test_records_may_be_written_later_and_never_have_what_is_gone(disk: Disk) -> None:
    store = disk.store()
    soon: list[Callable[[], None]] = []
    store.later = soon.append
    put(store, "a", "b")
    put(store, "b", "c")
    with store.transaction() as t:
        t.delete("network", "b" * 8)
    there = {file.name for file in disk.records.iterdir()}
    assert there == {"owner"} and len(soon) == 1, "all that came meanwhile is written at once"
    soon.pop()()
    assert {file.name for file in disk.records.iterdir()} == {"owner", "network-aaaaaaaa", "network-cccccccc"}
    put(store, "d")
    assert len(soon) == 1
    store.close()
    disk.lose()
    assert names(disk.store()) == {"a", "c", "d"}, "what was still to be written was written at the end"


def test_records_of_another_database_are_nobody_s(disk: Disk, tmp_path: Path) -> None:
    store = disk.store()
    put(store, "a")
    store.close()
    other = Store(tmp_path / "elsewhere" / "state.db", disk.records)
    assert names(other) == set()
    put(other, "b")
    other.close()
    assert {entry.name for entry in disk.records.iterdir()} == {"owner", "network-bbbbbbbb"}


def test_only_root_reads_them(disk: Disk) -> None:
    put(disk.store(), "a")
    assert disk.records.stat().st_mode & 0o777 == 0o700
    assert {entry.stat().st_mode & 0o777 for entry in disk.records.iterdir()} == {0o600}


def test_a_name_that_is_no_file_s_is_left_out(tmp_path: Path) -> None:
    records = Records(tmp_path / "records", tmp_path / "state.db", 1)
    records.sync({("network", "../../x"): b"1", ("network", ""): b"2", ("network", "fine"): b"3"})
    assert records.read().objects == {("network", "fine"): b"3"}
    assert not (tmp_path / "x").exists()


def test_what_cannot_be_recorded_is_said_once_and_holds_up_nothing(
    disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    store = disk.store()
    put(store, "a")
    for entry in disk.records.iterdir():
        entry.unlink()
    disk.records.rmdir()
    disk.records.write_text("a file in its way")
    put(store, "a")
    put(store, "b")
    assert names(store) == {"a", "b"}
    assert caplog.text.count("cannot be recorded") == 1
