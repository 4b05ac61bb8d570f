"""Lock files: one holder at a time, no trace of the dead, no harm to a file that is not one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from netengine.errors import Conflict, Invalid
from netengine.pidfile import LockFile


def test_it_holds_the_pid_while_it_is_held_and_goes_with_it(tmp_path: Path) -> None:
    path = tmp_path / "run" / "x.pid"
    with LockFile(path):
        assert path.read_text() == f"{os.getpid()}\n"
    assert not path.exists()


def test_a_second_holder_is_refused_with_path_and_pid(tmp_path: Path) -> None:
    path = tmp_path / "x.pid"
    with LockFile(path), pytest.raises(Conflict, match=rf"with pid {os.getpid()} is already running: it holds {path}"):
        LockFile(path).__enter__()
    assert not path.exists()


def test_the_pid_of_a_dead_process_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "x.pid"
    path.write_text("4194304999\n")
    with LockFile(path):
        assert path.read_text() == f"{os.getpid()}\n"


def test_a_file_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("root:x:0:0\n")
    with pytest.raises(Invalid, match="does not hold a pid"):
        LockFile(path).__enter__()
    assert path.read_text() == "root:x:0:0\n"


def test_links_and_pipes_are_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe"):
        with pytest.raises(Invalid):
            LockFile(tmp_path / name).__enter__()
    assert not (tmp_path / "target").exists()


def test_a_program_that_the_holder_started_does_not_hold_it(tmp_path: Path) -> None:
    path = tmp_path / "x.pid"
    with LockFile(path):
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False)
    with LockFile(path):
        assert child.poll() is None
    child.communicate(b"\n")


def test_a_holder_does_not_remove_another_s_file(tmp_path: Path) -> None:
    path = tmp_path / "x.pid"
    with LockFile(path):
        path.unlink()
        path.write_text("1\n")
    assert path.read_text() == "1\n"
