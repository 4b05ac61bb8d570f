"""The audit trail: what is written is found again, in order, once; the files stay within their bounds."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import pytest

from netengine.engine import audit
from netengine.engine.audit import Audit


def kept(trail: Audit, since_ns: int | None = None) -> list[str]:
    async def read() -> list[str]:
        return [event.id async for event in trail.listen(since_ns, time.time_ns() + 1_000_000)]

    return asyncio.run(read())


def test_records_are_found_again_after_a_restart_and_since_a_time(tmp_path: Path) -> None:
    trail = Audit(tmp_path)
    trail.record("POST", "/one", uid="0")
    trail.record("POST", "/two", uid="0")
    assert kept(trail) == ["/one", "/two"]
    trail.close()
    again = Audit(tmp_path)
    assert kept(again) == ["/one", "/two"]
    again.record("DELETE", "/three", uid="0")
    assert kept(again) == ["/one", "/two", "/three"]
    assert again._bus.last is not None
    assert kept(again, again._bus.last.time_ns) == ["/three"]
    assert os.stat(tmp_path / audit.FILE).st_mode & 0o777 == 0o600


def test_live_records_follow_the_past_without_a_gap(tmp_path: Path) -> None:
    trail = Audit(tmp_path)
    trail.record("POST", "/one")

    async def follow() -> list[str]:
        seen = []
        async for event in trail.listen(None, None):
            seen.append(event.id)
            if len(seen) == 3:
                return seen
            trail.record("POST", f"/{len(seen)}")
        return seen

    assert asyncio.run(asyncio.wait_for(follow(), 10)) == ["/one", "/1", "/2"]


def test_the_files_are_bounded_and_the_oldest_records_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "LIMIT", 2000)
    trail = Audit(tmp_path)
    for number in range(200):
        trail.record("POST", f"/{number}")
    sizes = [(tmp_path / name).stat().st_size for name in (audit.FILE, f"{audit.FILE}.1")]
    assert max(sizes) <= 2000 and len(os.listdir(tmp_path)) == 2
    found = kept(trail)
    assert found == [f"/{number}" for number in range(200 - len(found), 200)] and len(found) >= 15


def test_a_line_that_a_crash_cut_short_costs_itself_alone(tmp_path: Path) -> None:
    Audit(tmp_path).record("POST", "/one")
    with (tmp_path / audit.FILE).open("ab") as file:
        file.write(b'{"kind": "aud')
    trail = Audit(tmp_path)
    trail.record("POST", "/two")
    assert kept(trail) == ["/one", "/two"]


def test_a_disk_that_takes_nothing_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    trail = Audit(tmp_path / "missing")
    trail.record("POST", "/one")
    trail.record("POST", "/two")
    assert [record.levelname for record in caplog.records] == ["ERROR"]


def test_a_symbolic_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / audit.FILE).symlink_to(tmp_path / "elsewhere")
    Audit(tmp_path).record("POST", "/one")
    assert not (tmp_path / "elsewhere").exists()
