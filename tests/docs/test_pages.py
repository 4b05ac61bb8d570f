"""What the documents point to is there, and what does not belong in them is not."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, PAGES, REPO, name_of

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
_TREE = ("netengine", "tests", "docs", "scripts", "packaging", "vagrant", "benchmarks")
_FILE = re.compile(rf"`(?:\./)?((?:{'|'.join(_TREE)})/[\w./-]*)[^`]*`")
_MACHINE = re.compile(r"/work\b|/tmp/t\b|/home/\w|\bpytest-of-")


def _anchors(page: Path) -> set[str]:
    """The anchors that a forge makes from headings."""
    text = _FENCE.sub("", page.read_text())
    out = set()
    for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        plain = re.sub(r"[`*]", "", heading).lower()
        kept = (c for c in plain if c in "-_ " or unicodedata.category(c)[0] in "LN")
        out.add("".join(kept).replace(" ", "-"))
    return out


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for target in _LINK.findall(_FENCE.sub("", page.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        there = (page.parent / file).resolve() if file else page
        assert there.exists(), f"{name_of(page)} links to {target}"
        assert not anchor or anchor in _anchors(there), f"{name_of(page)} links to {target}: no such heading"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_named_files_exist(page: Path) -> None:
    for path in _FILE.findall(page.read_text()):
        assert (REPO / path).exists(), f"{name_of(page)} names {path}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_page_shows_the_machine_it_was_written_on(page: Path) -> None:
    found = _MACHINE.search(page.read_text())
    assert found is None, f"{name_of(page)}: {found and found[0]}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_page_begins_with_its_title_and_ends_its_fences(page: Path) -> None:
    lines = page.read_text().splitlines()
    assert lines[0].startswith("# ")
    assert sum(line.startswith("```") for line in lines) % 2 == 0


def test_the_two_commands_of_the_readme_work_from_a_clone() -> None:
    text = (REPO / "README.md").read_text()
    for command in ("scripts/quickstart", "scripts/test"):
        assert f"./{command}" in text
        assert os.access(REPO / command, os.X_OK)


def test_every_guide_is_in_the_readme() -> None:
    text = (REPO / "README.md").read_text()
    assert [page.name for page in DOCS.glob("*.md") if f"docs/{page.name}" not in text] == []
