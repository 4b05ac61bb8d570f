"""The file of the cluster's state: whatever was said to it is there after a kill -9, whenever that came."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from netengine.cluster.keeping import Keeping, Values


class State:
    """A state that is kept, and what the file says of it."""

    def __init__(self, directory: Path) -> None:
        self.file = directory / "mirror.json"
        self.revision = 0
        self.values: dict[str, tuple[bytes, int]] = {}
        self.keeping = Keeping(self.file, lambda: (self.revision, self.values))

    def change(self, **values: str | None) -> None:
        self.revision += 1
        new: Values = {k: None if v is None else (v.encode(), self.revision) for k, v in values.items()}
        for key, value in new.items():
            if value is None:
                self.values.pop(key, None)
            else:
                self.values[key] = value
        self.keeping.add(self.revision, new)

    def is_kept(self) -> bool:
        return Keeping(self.file, lambda: (0, {})).read() == (self.revision, self.values)


@pytest.fixture
def state(tmp_path: Path) -> State:
    return State(tmp_path)


def test_each_change_is_in_the_file_at_once(state: State) -> None:
    for n in range(20):
        state.change(**{f"k{n % 7}": None if n % 5 == 4 else f"value {n}", "same": "ü"})
        assert state.is_kept()
    assert state.file.stat().st_mode & 0o777 == 0o600


def test_what_is_written_grows_with_what_changed(state: State) -> None:
    state.change(**{f"k{n}": "x" * 100 for n in range(1000)})
    before = state.file.stat().st_size
    state.change(k0="y")
    assert state.file.stat().st_size - before < 100 and state.is_kept()


def test_the_file_does_not_grow_for_ever(state: State) -> None:
    for n in range(300):
        state.change(same=str(n) * 1000)
    assert state.file.stat().st_size < 100_000 + 64 * 1024 and state.is_kept()


def test_a_change_that_was_cut_off_is_left_out(state: State) -> None:
    state.change(one="1")
    state.change(two="2")
    kept = state.file.read_bytes()
    state.change(three="3")
    state.file.write_bytes(state.file.read_bytes()[:-5])
    found = Keeping(state.file, lambda: (0, {})).read()
    assert found == (2, {"one": (b"1", 1), "two": (b"2", 2)})
    assert state.file.read_bytes().startswith(kept)


def test_a_file_of_version_0_4_is_read(state: State) -> None:
    state.file.write_text(json.dumps({"revision": 7, "keys": {"one": ["1", 5]}}))
    assert state.keeping.read() == (7, {"one": (b"1", 5)})


@pytest.mark.parametrize("text", ["", "{", "[]", '{"revision": 1}', '{"revision": 1, "keys": {"a": [1, 2]}}'])
def test_a_damaged_file_is_left_out(state: State, text: str, caplog: pytest.LogCaptureFixture) -> None:
    state.file.write_text(text)
    assert state.keeping.read() is None
    assert "cannot be read and is left out" in caplog.text


def test_after_a_disk_that_was_full_all_is_written_anew(state: State, caplog: pytest.LogCaptureFixture) -> None:
    state.change(one="1")
    state.keeping.close()
    there = state.file.with_suffix(".new")
    there.mkdir()
    (there / "in the way").touch()
    state.change(two="2")
    assert "cannot be written, and lacks what has changed" in caplog.text and not state.is_kept()
    (there / "in the way").unlink()
    there.rmdir()
    state.change(three="3")
    assert state.is_kept()
