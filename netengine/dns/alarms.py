"""Deadlines of thousands of questions at the cost of a dictionary: all of one kind wait equally long. Pure."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

W = TypeVar("W")


class Alarms(Generic[W]):
    """Questions that each wait for the same number of seconds, and so are due in the order in which they came.

    One that is finished is taken out at once: thousands would stay in memory behind one that no server answers.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._due: OrderedDict[W, float] = OrderedDict()

    def put(self, pending: W, start: float) -> float:
        """Wait from `start`, which is not before that of any other; anew if it waits already. Returns when it is due."""
        due = start + self._seconds
        self._due[pending] = due
        self._due.move_to_end(pending)
        return due

    def drop(self, pending: W) -> None:
        self._due.pop(pending, None)

    def next(self) -> float | None:
        return next(iter(self._due.values()), None)

    def take(self, now: float) -> W | None:
        """One that is due, and waits no longer."""
        due = self.next()
        return None if due is None or due > now else self._due.popitem(last=False)[0]

    def all(self) -> list[W]:
        return list(self._due)
