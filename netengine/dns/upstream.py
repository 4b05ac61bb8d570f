"""What is known of the servers that questions are forwarded to: who is dead, how long one takes, when to ask the next. Pure.

A server that is dead stays so until it answers: no question waits for it while another lives. Copies of questions, sent at
growing intervals, find out when it is back.
"""

from __future__ import annotations

import ipaddress
import socket
from functools import lru_cache

HEAD_STARTS = (0.05, 0.1, 0.2, 0.4)
"""Seconds before the next server is asked too: the least that leaves a server twice its usual time, within limits."""

MISSES = 2  # unanswered questions in a row until a server counts as dead
PROBE_FIRST, PROBE_MOST = 1.0, 30.0  # seconds between copies to a dead server; they double


class Upstream:
    """One server, as one sandbox or the host sees it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.misses = 0
        self.probe_at = 0.0
        self._interval = PROBE_FIRST
        self._usual = 0.0  # smoothed seconds to an answer, as TCP's (RFC 6298)

    @property
    def dead(self) -> bool:
        return self.misses >= MISSES

    def missed(self, now: float) -> None:
        """It did not answer, or cannot be reached."""
        self.misses += 1
        if self.misses == MISSES:
            self._interval = PROBE_FIRST
            self.probe_at = now + self._interval

    def answered(self, seconds: float) -> None:
        """It lives, whatever it said."""
        self.misses = 0
        self._usual = seconds if self._usual == 0.0 else self._usual + (seconds - self._usual) / 8

    def takes_probe(self, now: float) -> bool:
        """Whether a dead one is to be asked now, to see; if so, the next time is later."""
        if now < self.probe_at:
            return False
        self._interval = min(self._interval * 2, PROBE_MOST)
        self.probe_at = now + self._interval
        return True

    def head_start(self) -> int:
        """Index into HEAD_STARTS."""
        return next((i for i, s in enumerate(HEAD_STARTS) if s >= 2 * self._usual), len(HEAD_STARTS) - 1)


@lru_cache(maxsize=1024)
def canonical(address: str) -> str:
    """The form in which the kernel tells who a packet is from: `2001:db8::1` for `2001:0DB8:0::1`."""
    return str(ipaddress.ip_address(address))


def family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def destination(address: str, port: int) -> tuple[str, int] | tuple[str, int, int, int]:
    """What sockets are given; of a link-local address with the link behind `%` as number. OSError if there is no such link."""
    host, _, zone = address.partition("%")
    if ":" not in host:
        return host, port
    return host, port, 0, int(zone) if zone.isdigit() else socket.if_nametoindex(zone) if zone else 0
