"""Names as patterns, and what a prune call is about."""

from __future__ import annotations

import time

import pytest

from netengine.api.selection import Pruning, matches
from netengine.errors import Invalid

OLD, NEW = "2020-01-01T00:00:00.000000000Z", "2999-01-01T00:00:00.000000000Z"


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("app", True),
        ("pp", True),
        ("^app$", False),
        ("^app", True),
        ("-1$", True),
        ("a.*1", True),
        ("APP", False),
        ("b", False),
    ],
)
def test_a_name_is_found_by_a_part_or_a_pattern(value: str, found: bool) -> None:
    assert matches([value], "app-1") is found


def test_what_is_no_pattern_is_a_text() -> None:
    assert matches(["test@#$"], "test@#$")
    assert matches(["a[b"], "xa[by")
    assert not matches(["*"], "app")
    assert matches(["nothing", "app"], "app")


@pytest.mark.parametrize("value", ["(a+)+$", "a*a*a*a*b", "(?=a)", r"(a)\1", "x{1}{2}{3}{4}"])
def test_a_pattern_that_might_never_end_is_refused(value: str) -> None:
    began = time.process_time()  # of this process alone, however busy the machine is
    with pytest.raises(Invalid, match="invalid filter"):
        matches([value], "a" * 255)
    assert time.process_time() - began < 1


def test_labels_of_a_prune_call() -> None:
    wanted = Pruning.of({"label": ["tier=front"], "label!": ["keep", "mine=1"]})
    assert wanted.takes(NEW, {"tier": "front"})
    assert not wanted.takes(NEW, {"tier": "back"})
    assert not wanted.takes(NEW, {"tier": "front", "keep": ""})
    assert not wanted.takes(NEW, {"tier": "front", "mine": "1"})
    assert wanted.takes(NEW, {"tier": "front", "mine": "2"})


@pytest.mark.parametrize(
    "until",
    [
        "10m",
        "1h30m",
        "1.5h",
        "300ms",
        "1577930400",
        "1577930400.5",
        "2021-01-01",
        "2021-01-01T07:00",
        "2021-01-01T07:00:00Z",
    ],
)
def test_what_is_older_than_a_moment(until: str) -> None:
    wanted = Pruning.of({"until": [until]})
    assert (wanted.takes(OLD, {}), wanted.takes(NEW, {})) == (True, False)


@pytest.mark.parametrize("until", ["yesterday", "-5m", "5", "10 m", "1h30", "9" * 40 + "h", "10000-01-01", "m"])
def test_moments_that_cannot_be(until: str) -> None:
    if until == "5":
        assert not Pruning.of({"until": ["5"]}).takes(OLD, {})
        return
    with pytest.raises(Invalid, match="invalid filter 'until="):
        Pruning.of({"until": [until]})


def test_one_moment_only() -> None:
    with pytest.raises(Invalid, match="more than one until filter specified"):
        Pruning.of({"until": ["1h", "2h"]})
