"""Who takes part. Code here runs inside the contender's host (benchmarks/worker.py), so that nobody pays for getting there."""

from __future__ import annotations

from benchmarks.contenders.base import Contender
from benchmarks.contenders.byhand import ByHand
from benchmarks.contenders.cni import CniPlugins
from benchmarks.contenders.engines import Docker, Netengine
from benchmarks.contenders.floor import Floor
from benchmarks.contenders.netavark import Netavark

ALL: tuple[type[Contender], ...] = (Netengine, Floor, ByHand, CniPlugins, Netavark, Docker)


def available() -> tuple[list[type[Contender]], list[str]]:
    """Those that can run here, and a sentence on each that cannot."""
    return [c for c in ALL if not c.missing()], [words for c in ALL if (words := c.missing())]
