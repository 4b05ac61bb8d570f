"""Failpoints: nothing unless asked for, and then exactly the step that was asked for."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
STEPS = "from netengine import failpoints\nfor step in 'one', 'two', 'three': failpoints.reach(step)\nprint('alive')\n"
REFUSALS = """
from netengine import failpoints
for step in 'one', 'two', 'three', 'four':
    failpoints.reach('a step')
    try:
        failpoints.refuse(step)
    except OSError as e:
        print(step, e.strerror)
"""


def run(directory: Path | None, code: str = STEPS) -> subprocess.CompletedProcess[str]:
    environment = {"PYTHONPATH": str(REPO)} | ({"NETENGINE_FAILPOINTS": str(directory)} if directory else {})
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=20)


def test_off_they_do_nothing() -> None:
    assert run(None).stdout == "alive\n"


def test_on_and_not_armed_they_do_nothing(tmp_path: Path) -> None:
    assert run(tmp_path).stdout == "alive\n"
    assert list(tmp_path.iterdir()) == []


def test_armed_the_process_ends_at_the_step_of_that_number(tmp_path: Path) -> None:
    (tmp_path / "arm").write_text("2")
    done = run(tmp_path)
    assert done.returncode == -signal.SIGKILL and done.stdout == ""
    assert (tmp_path / "reached").read_text() == "one\ntwo\n"


def test_armed_with_zero_they_count(tmp_path: Path) -> None:
    (tmp_path / "arm").write_text("0")
    assert run(tmp_path).stdout == "alive\n"
    assert (tmp_path / "reached").read_text() == "one\ntwo\nthree\n"


def test_armed_with_an_error_the_points_of_those_numbers_are_refused(tmp_path: Path) -> None:
    (tmp_path / "arm").write_text("ENOMEM 2 3")
    assert run(tmp_path, REFUSALS).stdout == "two Cannot allocate memory\nthree Cannot allocate memory\n"
    assert (tmp_path / "reached").read_text() == "one\ntwo\nthree\nfour\n"


def test_armed_to_die_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "arm").write_text("0")
    assert run(tmp_path, REFUSALS).stdout == ""
    assert set((tmp_path / "reached").read_text().split("\n")) == {"a step", ""}
