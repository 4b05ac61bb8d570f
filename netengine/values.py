"""The forms of values in daemon.json: a string, a number, a list of strings; and how one is quoted in a message."""

from __future__ import annotations

import json
from collections.abc import Callable

from netengine.errors import Invalid


def quote(value: object) -> str:
    """Show a value as it stands in the file, cut to a length that leaves the message readable."""
    shown = json.dumps(value, ensure_ascii=True)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."


def _kind(value: object) -> str:
    names: dict[type, str] = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "a list"}
    return "null" if value is None else names.get(type(value), "an object")


def expect(value: object, wanted: str) -> Invalid:
    return Invalid(f"{quote(value)} is {_kind(value)}; it must be {wanted}")


def string(value: object, wanted: str = "a string") -> str:
    if not isinstance(value, str):
        raise expect(value, wanted)
    return value


def boolean(value: object) -> bool:
    if not isinstance(value, bool):
        raise expect(value, "true or false")
    return value


def integer(value: object, wanted: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise expect(value, wanted)
    return value


def texts(check: Callable[[str], str]) -> Callable[[object], tuple[str, ...]]:
    """A check of a list of strings from the check of one of them; a repeated value is kept once, as Docker does."""

    def parse(value: object) -> tuple[str, ...]:
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise expect(value, "a list of strings")
        return tuple(dict.fromkeys(check(item) for item in value))

    return parse
