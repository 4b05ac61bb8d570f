"""Which packets each gateway mode of a bridge network lets through: the table that the kernel tests compare with what really
passes, and that docs/gateway-modes.md shows. It is Docker's, and the same for IPv4 and IPv6.
"""

from __future__ import annotations

from collections.abc import Iterable

MODES = ("nat", "nat-unprotected", "routed", "isolated")
SENDERS = ("outside", "another bridge", "the same bridge", "the host")
PROBES = ("ping", "published", "unpublished", "published, by the host's address")
"""The first three go to the container's own address."""

YES, NO = "yes", "–"

EXPECTED: dict[tuple[str, str], tuple[str, ...]] = {
    ("nat", "outside"): (NO, NO, NO, YES),
    ("nat", "another bridge"): (NO, NO, NO, YES),
    ("nat", "the same bridge"): (YES, YES, YES, YES),
    ("nat", "the host"): (YES, YES, YES, YES),
    ("nat-unprotected", "outside"): (YES, YES, YES, YES),
    ("nat-unprotected", "another bridge"): (YES, YES, YES, YES),
    ("nat-unprotected", "the same bridge"): (YES, YES, YES, YES),
    ("nat-unprotected", "the host"): (YES, YES, YES, YES),
    ("routed", "outside"): (YES, YES, NO, NO),
    ("routed", "another bridge"): (YES, YES, NO, NO),
    ("routed", "the same bridge"): (YES, YES, YES, NO),
    ("routed", "the host"): (YES, YES, YES, NO),
    ("isolated", "outside"): (NO, NO, NO, NO),
    ("isolated", "another bridge"): (NO, NO, NO, NO),
    ("isolated", "the same bridge"): (YES, YES, YES, NO),
    ("isolated", "the host"): (NO, NO, NO, NO),
}


def as_table(seen: dict[tuple[str, str], tuple[str, ...]]) -> list[tuple[str, ...]]:
    """A row for each mode and sender."""
    return [(mode, sender, *seen[mode, sender]) for mode in MODES for sender in SENDERS]


def as_text(seen: dict[tuple[str, str], tuple[str, ...]]) -> str:
    rows: Iterable[tuple[str, ...]] = [("mode", "from", *PROBES), *as_table(seen)]
    return "\n".join("  ".join(cell.ljust(15) for cell in row).rstrip() for row in rows)
