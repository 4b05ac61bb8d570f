"""Counters of one sandbox and its latency histogram: fixed memory, a few additions per batch."""

from __future__ import annotations

from netengine.dns.protocol import Counters, Latency

_STEPS = 4  # buckets per doubling: an upper bound is at most 19 % above the value
_BUCKETS = 26 * _STEPS  # up to 67 seconds
_BOUNDS = [2 ** (i / _STEPS) for i in range(_BUCKETS)]  # microseconds


def _bucket(microseconds: float) -> int:
    value = max(int(microseconds), 1)
    doubling = value.bit_length() - 1
    at = doubling * _STEPS
    while at < _BUCKETS - 1 and _BOUNDS[at] < value:
        at += 1
    return min(at, _BUCKETS - 1)


class Tally:
    """What happened to a sandbox's questions so far."""

    __slots__ = ("_latency", "answered", "asked", "dropped", "failed", "forwarded", "refused")

    def __init__(self) -> None:
        self.asked = self.answered = self.forwarded = self.failed = self.refused = self.dropped = 0
        self._latency = [0] * _BUCKETS

    def took(self, seconds: float, times: int = 1) -> None:
        """Note how long it took from arrival to answer."""
        self._latency[_bucket(seconds * 1e6)] += times

    def _percentile(self, share: float) -> int:
        total = sum(self._latency)
        left = total * share
        for bound, count in zip(_BOUNDS, self._latency, strict=True):
            left -= count
            if count and left <= 0:
                return round(bound)
        return 0

    def counters(self) -> Counters:
        """As they go to the daemon."""
        latency = Latency(self._percentile(0.5), self._percentile(0.99))
        return Counters(
            self.asked, self.answered, self.forwarded, self.failed, self.refused, self.dropped, latency
        )  # fmt: skip
