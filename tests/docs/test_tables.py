"""Tables in the documents are those of the code, and nothing of the code is left out."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from netengine import daemon
from netengine.cli import catalogue
from netengine.config import FLAGS, load
from netengine.directives import DIRECTIVES
from netengine.kernel import ruleset
from tests.docs import tables
from tests.docs.pages import DOCS, PAGES, WRITE, name_of

WITH_TABLES = [page for page in PAGES if tables.names(page)]


@pytest.mark.parametrize("page", WITH_TABLES, ids=name_of)
def test_tables_are_what_the_code_says(page: Path, write_docs: bool) -> None:
    now = tables.rendered(page)
    if write_docs:
        page.write_text(now)
    assert page.read_text() == now, f"a table in {name_of(page)} is out of date: {WRITE}"


def test_every_table_is_shown() -> None:
    assert {name for page in PAGES for name in tables.names(page)} == set(tables.TABLES)


def _configuration() -> str:
    return (DOCS / "configuration.md").read_text()


@pytest.mark.parametrize("key", DIRECTIVES)
def test_every_key_of_daemon_json_is_documented(key: str) -> None:
    assert f"### `{key}`" in _configuration()


@pytest.mark.parametrize("key", FLAGS)
def test_a_key_that_is_a_flag_too_says_so(key: str) -> None:
    section = _configuration().split(f"### `{key}`")[1].split("\n### ")[0]
    assert f"`{FLAGS[key]}`" in section


def test_no_key_is_documented_that_does_not_exist() -> None:
    keys = [line.split("`")[1] for line in _configuration().splitlines() if line.startswith("### `")]
    assert sorted(keys) == sorted(DIRECTIVES)


def test_the_example_file_is_whole_and_accepted(tmp_path: Path) -> None:
    file = tmp_path / "daemon.json"
    file.write_text(_configuration().split("```json\n")[1].split("```")[0])
    load({}, file)
    # `bridge` names a bridge of one's own, which does not go together with `bip`.
    assert json.loads(file.read_text()).keys() == DIRECTIVES.keys() - {"bridge"}


def test_every_flag_of_the_daemon_is_documented() -> None:
    actions: list[argparse.Action] = daemon.parser()._actions
    for action in actions:
        for flag in action.option_strings:
            assert f"`{flag}`" in _configuration(), f"{flag} is not in docs/configuration.md"


def test_every_command_and_route_is_documented() -> None:
    cli, api = (DOCS / "cli.md").read_text(), (DOCS / "api.md").read_text()
    assert [name for name in (*catalogue.PLACES, *catalogue.ALIASES) if name[0] != "_" and f"`{name}`" not in cli] == []
    assert [path for path in tables.routes() if f"`{path}`" not in api] == []


def test_every_chain_is_explained() -> None:
    page = (DOCS / "ruleset.md").read_text()
    chains = [name for name in ruleset.signature("ip")[1] if not name.startswith("version-")]
    for chain in (*chains, ruleset.USER_CHAIN):
        assert f"\n### {chain}\n" in page
        assert f"list chain ip {ruleset.TABLE} {chain}\n" in page
