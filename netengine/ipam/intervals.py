"""A set of integers kept as sorted, disjoint, closed intervals.

Only the arithmetic lives here; what a number means does not. The free addresses of a pool are such a set: one interval
when nothing is leased, at most one more for every lease. Each operation is a binary search plus the move of a few
pointers, so that a /8 with 65,000 leases answers in microseconds and an IPv6 /64 costs nothing to hold.
"""

from __future__ import annotations

from bisect import bisect_right


class Intervals:
    """A mutable set of integers. `first` and `last` of an interval both belong to it."""

    __slots__ = ("_firsts", "_lasts")

    def __init__(self, first: int, last: int) -> None:
        """All integers from `first` to `last`; none when `last` is below `first`."""
        self._firsts: list[int] = [first] if first <= last else []
        self._lasts: list[int] = [last] if first <= last else []

    def __contains__(self, number: int) -> bool:
        index = bisect_right(self._firsts, number) - 1
        return index >= 0 and number <= self._lasts[index]

    def discard(self, number: int) -> None:
        """Take `number` out; no effect when it is not in."""
        index = bisect_right(self._firsts, number) - 1
        if index < 0 or number > self._lasts[index]:
            return
        first, last = self._firsts[index], self._lasts[index]
        if first == last:
            del self._firsts[index], self._lasts[index]
        elif number == first:
            self._firsts[index] = number + 1
        elif number == last:
            self._lasts[index] = number - 1
        else:
            self._lasts[index] = number - 1
            self._firsts.insert(index + 1, number + 1)
            self._lasts.insert(index + 1, last)

    def add(self, number: int) -> None:
        """Put `number` in, joining the intervals it touches; no effect when it is in already."""
        index = bisect_right(self._firsts, number)
        if index > 0 and number <= self._lasts[index - 1]:
            return
        joins_left = index > 0 and self._lasts[index - 1] == number - 1
        joins_right = index < len(self._firsts) and self._firsts[index] == number + 1
        if joins_left and joins_right:
            self._lasts[index - 1] = self._lasts[index]
            del self._firsts[index], self._lasts[index]
        elif joins_left:
            self._lasts[index - 1] = number
        elif joins_right:
            self._firsts[index] = number
        else:
            self._firsts.insert(index, number)
            self._lasts.insert(index, number)

    def lowest(self, first: int, last: int) -> int | None:
        """The lowest member between `first` and `last`, both included, or None."""
        index = bisect_right(self._firsts, first) - 1
        if index >= 0 and first <= self._lasts[index]:
            return first if first <= last else None
        index += 1
        if index < len(self._firsts) and self._firsts[index] <= last:
            return self._firsts[index]
        return None

    def count(self, first: int, last: int) -> int:
        """How many members lie between `first` and `last`, both included."""
        total = 0
        for index in range(max(bisect_right(self._firsts, first) - 1, 0), len(self._firsts)):
            if self._firsts[index] > last:
                break
            total += max(0, min(last, self._lasts[index]) - max(first, self._firsts[index]) + 1)
        return total
