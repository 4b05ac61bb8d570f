"""Which path leads to which handler, at the price of a few dictionary look-ups, however many routes there are.

A path has at most one open part: `/a/b`, `/a/{id}`, `/a/{id}/b`. `{id}` is one segment, `{name:.+}` may have slashes in it, as
names of images have.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from urllib.parse import unquote

from netengine.http.messages import Handler

_OPEN = re.compile(r"(/[^{}]+)/\{(\w+)(:\.\+)?\}(?:/([^/{}]+))?")


class Router:
    """Routes are (method, path, handler)."""

    def __init__(self, routes: Iterable[tuple[str, str, Handler]]) -> None:
        self._plain: dict[tuple[str, str], Handler] = {}
        self._open: dict[tuple[str, str, str], tuple[Handler, str, bool]] = {}
        self._depths: list[int] = []
        depths = set()
        for method, path, handler in routes:
            if "{" not in path:
                self._plain[method, path] = handler
                continue
            found = _OPEN.fullmatch(path)
            if found is None:
                raise ValueError(f"the route {path} is none that this router knows")
            before, variable, slashes, behind = found.groups()
            self._open[method, before, behind or ""] = (handler, variable, bool(slashes))
            depths.add(before.count("/"))
        self._depths = sorted(depths, reverse=True)

    def find(self, method: str, path: str) -> tuple[Handler, dict[str, str]] | None:
        """The handler of a path as it was sent, and its open part, decoded; None when there is none."""
        plain = self._plain.get((method, path))
        if plain is not None:
            return plain, {}
        parts = path.split("/")
        for depth in self._depths:
            if len(parts) < depth + 2:
                continue
            before, rest = "/".join(parts[: depth + 1]), parts[depth + 1 :]
            if len(rest) > 1 and rest[-1] and (found := self._open.get((method, before, rest[-1]))) is not None:
                handler, variable, slashes = found
                if rest[0] and (slashes or len(rest) == 2):
                    return handler, {variable: unquote("/".join(rest[:-1]))}
            found = self._open.get((method, before, ""))
            if found is not None:
                handler, variable, slashes = found
                if (rest[0] and len(rest) == 1) or (slashes and any(rest)):
                    return handler, {variable: unquote("/".join(rest))}
        return None
