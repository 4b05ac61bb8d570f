"""How long one operation takes: a namespace put on a bridge network, with a port and without, and taken off; a whole `run`.

Each contender works in a host of its own, on namespaces that exist already, in a network that exists already. They take turns,
one namespace each, so that whatever else the machine does hits all alike; in another order each time, so that nobody always
works behind the same one, whose server and whose links the kernel may still be busy with.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.bench_host import Worker
from benchmarks.contenders import available
from benchmarks.contenders.base import Contender, can

Samples = dict[str, dict[str, list[float]]]
"""Milliseconds by operation and contender."""

ATTACH, PORT = "attach", "attach with a published port"
DETACH, DETACH_PORT = "detach", "detach with a published port"
RUN = "whole run with a port"


def measure(rounds: int) -> tuple[Samples, list[str]]:
    """`rounds` namespaces for each operation; and who is missing."""
    there, missing = available()
    samples: Samples = {}
    with tempfile.TemporaryDirectory() as directory:
        workers = [(contender, Worker(contender, Path(directory))) for contender in there]
        try:
            for _, worker in workers:
                worker.ask("prepare", 2 * rounds)
            for n in range(2 * rounds):
                _turn(samples, PORT if n % 2 else ATTACH, workers, "port" if n % 2 else "attach", n)
            for n in range(2 * rounds):
                _turn(samples, DETACH_PORT if n % 2 else DETACH, workers, "detach", n)
            running = [(contender, worker) for contender, worker in workers if can(contender, "run")]
            for n in range(rounds):
                _turn(samples, RUN, running, "run", 2 * rounds + n)
        finally:
            for _, worker in workers:
                worker.close()
    return samples, missing


def _turn(
    samples: Samples, what: str, workers: Sequence[tuple[type[Contender], Worker]], verb: str, number: int
) -> None:
    taken = samples.setdefault(what, {worker.name: [] for _, worker in workers})
    for _, worker in random.Random(number).sample(workers, len(workers)):
        taken[worker.name].append(worker.ask(verb, number))
