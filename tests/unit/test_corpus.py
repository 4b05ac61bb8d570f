"""Malformed configurations: refused by a message that names the key, whatever they are; and never by another error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from netengine.config import Config, load
from netengine.directives import DIRECTIVES
from netengine.errors import Invalid

CORPUS = Path(__file__).parent.parent / "corpus" / "daemon-json.txt"
LINES = [line for line in CORPUS.read_text().splitlines() if not line.startswith("#")]


@pytest.mark.parametrize("line", LINES)
def test_a_configuration_that_once_was_trouble_is_refused_with_its_key(tmp_path: Path, line: str) -> None:
    file = tmp_path / "daemon.json"
    file.write_text(line)
    with pytest.raises(Invalid, match=f"  ({'|'.join(json.loads(line, parse_constant=str))})[:,]"):
        load({}, file)


_texts = st.text(max_size=20) | st.sampled_from(
    ["10.0.0.0/8", "fd00::1%x", "unix://", "fd://", "tcp://[::]:1", "\0", "a=b", "/x", "²", "1.2.3.4", "-1", "\ud800"]
)
_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _texts,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["base", "size"]) | _texts, inner, max_size=3)
    ),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from([*DIRECTIVES]) | _texts, _values, max_size=4))
def test_any_json_is_a_configuration_or_refused(tmp_path: Path, directives: dict[str, Any]) -> None:
    file = tmp_path / "daemon.json"
    file.write_text(json.dumps(directives))
    try:
        assert isinstance(load({}, file), Config)
    except Invalid as error:
        assert error.message


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200))
def test_any_bytes_are_a_configuration_or_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "daemon.json"
    file.write_bytes(content)
    try:
        load({}, file)
    except Invalid:
        pass
