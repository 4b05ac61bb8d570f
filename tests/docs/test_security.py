"""Each promise of the page on security names its tests, and those exist; the figure of systemd-analyze is the one it says."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from tests.docs.pages import DOCS

REPO = DOCS.parent
PAGE = (DOCS / "security.md").read_text()
PROMISES = [line for line in PAGE.split("| promise | shown by |")[1].split("\n\n")[0].splitlines()[2:] if line]


@pytest.mark.parametrize("line", PROMISES, ids=lambda line: line.split("|")[1].strip()[:50])
def test_each_promise_names_tests_that_exist(line: str) -> None:
    named = re.findall(r"`(tests/[a-z_/]+\.py)`", line)
    assert named, "no test is named"
    assert [path for path in named if not (REPO / path).exists()] == []


def test_the_figure_of_systemd_analyze_is_that_of_the_unit() -> None:
    said = re.search(r"exposure level is ([0-9.]+) of 10 \(systemd (\d+);", PAGE)
    assert said is not None
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    version = subprocess.run(["systemd-analyze", "--version"], capture_output=True, text=True).stdout.split()[1]
    if version != said[2]:
        pytest.skip(f"systemd {version} counts otherwise than {said[2]}")
    unit = REPO / "packaging/systemd/netengine.service"
    words = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(unit)]
    found = subprocess.run(words, capture_output=True, text=True, timeout=60).stdout
    assert f": {said[1]} " in found.splitlines()[-1]
