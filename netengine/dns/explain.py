"""What a sandbox is answered, and why: the same steps as for a packet, told in words."""

from __future__ import annotations

from collections.abc import Callable

from netengine.dns.protocol import Answer, Explain
from netengine.dns.server import Server


def explain(server: Server, request: Explain, answer: Answer, later: Callable[[Answer], None]) -> None:
    """TBD."""
