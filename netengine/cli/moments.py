"""Moments as users write them (--since) and as the API does (Unix seconds, RFC 3339). Pure but for clock and zone."""

from __future__ import annotations

import re
import time

from netengine.errors import Invalid

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PIECE = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_RFC3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[Tt ](\d\d):(\d\d)(?::(\d\d)(\.\d+)?)?)?\s*([Zz]|[+-]\d\d:\d\d)?", re.ASCII
)


def timestamp(text: str, now: float | None = None) -> str:
    """What a user gave for a moment, as the `seconds[.nanoseconds]` that the API takes; empty stays empty.

    Accepted: Unix seconds ("1700000000.5"), a duration before now ("1h30m"), a date or RFC 3339 time
    ("2026-01-31", "2026-01-31T10:00:00Z"; local time where no zone is given).
    """
    if not text:
        return ""
    if re.fullmatch(r"\d+(\.\d{1,9})?", text, re.ASCII):
        return text
    before = duration(text)
    if before is not None:
        return f"{(time.time() if now is None else now) - before:.9f}"
    seconds = parse(text)
    if seconds is None:
        raise Invalid(
            f"invalid time {text!r}: give a duration (10m), Unix seconds, or a time like 2026-01-31T10:00:00Z"
        )
    whole, fraction = seconds
    return f"{whole}.{fraction:09d}" if fraction else str(whole)


def duration(text: str) -> float | None:
    """Seconds in "1h30m", "1.5s", "300ms"; None when it is no duration."""
    total, at = 0.0, 0
    while piece := _PIECE.match(text, at):
        total += float(piece[1]) * _UNITS[piece[2]]
        at = piece.end()
    return total if at and at == len(text) else None


def parse(text: str) -> tuple[int, int] | None:
    """An RFC 3339 time or a plain date: Unix seconds and nanoseconds. None when it is neither."""
    found = _RFC3339.fullmatch(text)
    if found is None:
        return None
    year, month, day, hour, minute, second = (int(found[index] or 0) for index in range(1, 7))
    if not (1 <= month <= 12 and 1 <= day <= 31 and hour < 24 and minute < 60 and second <= 60):
        return None
    zone = found[8]
    if zone is None:
        seconds = int(time.mktime((year, month, day, hour, minute, second, 0, 0, -1)))
    else:
        seconds = _days(year, month, day) * 86400 + hour * 3600 + minute * 60 + second
        if zone not in ("Z", "z"):
            offset = int(zone[1:3]) * 3600 + int(zone[4:6]) * 60
            seconds -= offset if zone[0] == "+" else -offset
    return seconds, int(((found[7] or ".0")[1:] + "0" * 9)[:9])


def _days(year: int, month: int, day: int) -> int:
    """Days from 1970-01-01 in the proleptic Gregorian calendar; March begins the year, so that leap days end it."""
    year -= month <= 2
    of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    return year * 365 + year // 4 - year // 100 + year // 400 + of_year - 719468


def local(seconds: float) -> str:
    """As listings show a moment: 2026-01-31 10:00:00 +0000 UTC."""
    return time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(seconds))
