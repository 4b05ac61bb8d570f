"""Figures and moments in Docker's words."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from netengine.cli import moments, phrases
from netengine.errors import Invalid

HOUR, DAY = 3600, 86400


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.3, "Less than a second"),
        (1, "1 second"),
        (59.9, "59 seconds"),
        (60, "About a minute"),
        (119, "About a minute"),
        (120, "2 minutes"),
        (59 * 60 + 59, "59 minutes"),
        (HOUR, "About an hour"),
        (1.6 * HOUR, "2 hours"),
        (47 * HOUR, "47 hours"),
        (48 * HOUR, "2 days"),
        (13 * DAY, "13 days"),
        (14 * DAY, "2 weeks"),
        (59 * DAY, "8 weeks"),
        (60 * DAY, "2 months"),
        (729 * DAY, "24 months"),
        (730 * DAY, "2 years"),
    ],
)
def test_spans(seconds, words):
    assert phrases.span(seconds) == words


@pytest.mark.parametrize(("count", "words"), [(0, "0B"), (999, "999B"), (1234, "1.23kB"), (117_000_000, "117MB")])
def test_sizes(count, words):
    assert phrases.size(count) == words


def _port(inner, outer=0, address="", kind="tcp"):
    return {"PrivatePort": inner, "Type": kind, **({"IP": address, "PublicPort": outer} if outer else {})}


@pytest.mark.parametrize(
    ("ports", "text"),
    [
        ([], ""),
        ([_port(80)], "80/tcp"),
        ([_port(80, 8080, "0.0.0.0"), _port(80, 8080, "::")], "0.0.0.0:8080->80/tcp, [::]:8080->80/tcp"),
        ([_port(82), _port(80), _port(81), _port(90)], "80-82/tcp, 90/tcp"),
        ([_port(port, port, "0.0.0.0") for port in (80, 81, 82)], "0.0.0.0:80-82->80-82/tcp"),
        ([_port(80), _port(81, kind="udp")], "80/tcp, 81/udp"),
        ([_port(80, 8080, "127.0.0.1"), _port(443)], "443/tcp, 127.0.0.1:8080->80/tcp"),
    ],
)
def test_ports_column(ports, text):
    assert phrases.ports(ports) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("1700000000", "1700000000"),
        ("1700000000.25", "1700000000.25"),
        ("10m", "400.000000000"),
        ("2026-01-31T10:00:00Z", "1769853600"),
        ("2026-01-31T10:00:00.5+01:00", "1769850000.500000000"),
    ],
)
def test_timestamps(text, expected):
    assert moments.timestamp(text, now=1000.0) == expected


@pytest.mark.parametrize("text", ["yesterday", "10x", "m", "2026-13-01", "2026-01-31T25:00:00Z"])
def test_what_is_no_time(text):
    with pytest.raises(Invalid, match="give a duration"):
        moments.timestamp(text)


def test_the_calendar_agrees_with_the_librarys():
    for year in (1970, 1999, 2000, 2024, 2026, 2100):
        for month, day in ((1, 1), (2, 28), (3, 1), (12, 31)):
            expected = datetime(year, month, day, 1, 2, 3, tzinfo=UTC)
            assert moments.parse(expected.isoformat()) == (int(expected.timestamp()), 0)


def test_ids():
    assert phrases.short_id("sha256:" + "ab" * 32) == "abababababab"
    assert phrases.shortened("abcdef", 4) == "abc…"
