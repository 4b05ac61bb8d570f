"""Which objects a filter takes, where that is more than a comparison: names as patterns, and what a prune call is about."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

from netengine.api.http import matches_labels
from netengine.engine.core import moment_of
from netengine.errors import Invalid

_QUANTIFIERS = re.compile(r"[*+?{]")
_MOST_QUANTIFIERS = 3
_DURATION = re.compile(r"(?:[0-9]{1,12}(?:\.[0-9]{0,9})?(?:ns|us|µs|ms|s|m|h))+")
_PART = re.compile(r"([0-9.]+)(ns|us|µs|ms|s|m|h)")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def matches(values: Iterable[str], text: str) -> bool:
    """Whether any of the values is in the text, or matches it as a regular expression: `app`, `^app$`, `app.*`, as Docker."""
    return any(value in text or ((pattern := _pattern(value)) is not None and pattern.search(text)) for value in values)


@lru_cache(maxsize=64)
def _pattern(value: str) -> re.Pattern[str] | None:
    """None for what is no expression. Raises Invalid for one whose search might take time without end: backtracking grows with
    the power of the number of quantifiers, and without bound where they are nested."""
    if len(_QUANTIFIERS.findall(value)) > _MOST_QUANTIFIERS or re.search(r"\)[*+?{]|\\[1-9]|\(\?", value):
        raise Invalid(
            f"invalid filter {value[:40]!r}: at most {_MOST_QUANTIFIERS} of * + ? {{ are allowed, and no groups"
        )
    try:
        return re.compile(value)
    except (re.error, OverflowError):
        return None


@dataclass(frozen=True, slots=True)
class Pruning:
    """The filters of a prune call, understood. `before`: seconds since the epoch, None for no such limit."""

    labels: tuple[str, ...]
    without: tuple[str, ...]
    before: float | None

    @classmethod
    def of(cls, wanted: dict[str, list[str]]) -> Pruning:
        """Raises Invalid, and so before anything is removed."""
        until = wanted.get("until", [])
        if len(until) > 1:
            raise Invalid("more than one until filter specified")
        before = _moment(until[0]) if until else None
        return cls(tuple(wanted.get("label", ())), tuple(wanted.get("label!", ())), before)

    def takes(self, created: str, labels: dict[str, str]) -> bool:
        """Whether a thing that does nothing is to go. One that has any of the labels that are excluded stays."""
        if not matches_labels(labels, list(self.labels)) or any(matches_labels(labels, [w]) for w in self.without):
            return False
        return self.before is None or moment_of(created).timestamp() < self.before


def _moment(text: str) -> float:
    """Seconds since the epoch: of a number of them, of a time, or of a duration ago as Go writes it, such as 1h30m."""
    if re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,9})?", text):
        return float(text)
    if _DURATION.fullmatch(text):
        ago = sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(text))
        return datetime.now().timestamp() - ago
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        raise Invalid(
            f"invalid filter 'until={text[:40]}': give a time in RFC 3339, seconds since the epoch, or a duration as 1h30m"
        ) from None
