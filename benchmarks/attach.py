"""How long it takes to put a network namespace on a bridge network, and to take it off again.

Each contender works in a host of its own (network and mount namespace), on namespaces that exist already, in a network that
exists already. They take turns, one namespace each, so that whatever else the machine does hits all alike.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.contenders import Contender, Netengine, available
from tests.daemons import Daemon
from tests.hosts import REPO, Host, Process

Figures = dict[str, dict[str, list[float]]]


class Worker:
    """A contender in its host."""

    def __init__(self, contender: type[Contender], directory: Path) -> None:
        self.name = contender.name
        self._host = Host(contender.__name__.lower(), directory)
        self._daemon = Daemon(self._host).start() if contender is Netengine else None
        argv = [sys.executable, "-m", "benchmarks.worker", contender.__name__]
        environment = {"PYTHONPATH": str(REPO)}
        self._process: Process = self._host.popen(argv, env=environment, stdin=subprocess.PIPE)

    def ask(self, verb: str, number: int) -> float:
        """Milliseconds that the contender took."""
        popen = self._process.popen
        assert popen.stdin is not None and popen.stdout is not None
        popen.stdin.write(f"{verb} {number}\n".encode())
        popen.stdin.flush()
        answer = popen.stdout.readline()
        try:
            return float(answer)
        except ValueError:
            words = (answer + popen.stdout.read()).decode(errors="replace")
            raise RuntimeError(f"{self.name} failed at {verb} {number}: {words}") from None

    def close(self) -> None:
        if self._daemon is not None:
            self._daemon.stop()
        self._host.close()


def measure(count: int) -> tuple[Figures, list[str]]:
    """Milliseconds by what and contender, for `count` namespaces each; and who is missing."""
    there, missing = available()
    figures: Figures = {"attach": {}, "detach": {}}
    with tempfile.TemporaryDirectory() as directory:
        workers = [Worker(contender, Path(directory)) for contender in there]
        try:
            for worker in workers:
                worker.ask("prepare", count)
            for verb in ("attach", "detach"):
                for n in range(count):
                    for worker in workers:
                        figures[verb].setdefault(worker.name, []).append(worker.ask(verb, n))
        finally:
            for worker in workers:
                worker.close()
    return figures, missing


def table(figures: Figures) -> list[str]:
    """Medians, the middle half, and how many times netengine's median each is."""
    lines = ["| what | contender | median, ms | middle half, ms | times netengine's |", "|---|---|---|---|---|"]
    for what, by_name in figures.items():
        own = statistics.median(by_name[Netengine.name])
        for name, values in by_name.items():
            low, middle, high = statistics.quantiles(values, n=4)
            lines.append(f"| {what} | {name} | {middle:.1f} | {low:.1f} to {high:.1f} | {middle / own:.1f} |")
    return lines
