"""Where the time of one `network connect` goes: a daemon with a stop-watch in it (benchmarks/traced.py) and one client."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.contenders.base import call
from benchmarks.contenders.engines import Netengine
from tests.daemons import Daemon
from tests.hosts import Host

Stages = dict[str, list[tuple[str, float]]]
"""Rows (stage, median milliseconds) by operation; they add up to what the client saw."""

_ORDER = (
    ("the engine: rules, leases, the model", None),
    ("rendering the model to kernel resources", "render the model"),
    ("store: the outcome, before the kernel", "store"),
    ("to the kernel thread and back, where it is needed", None),
    ("plan: what differs, in which order", "kernel thread: plan"),
    ("building the kernel's messages", None),
    ("encoding them", "netlink: encode"),
    ("the kernel: links, addresses, routes", "netlink: the kernel's work"),
    ("questions to the kernel", "netlink: questions"),
    ("nftables transaction", "nftables transaction"),
    ("waiting until the name server has it", "name server"),
    ("HTTP and the client", None),
)


class _Traced(Daemon):
    @property
    def argv(self) -> list[str]:
        words = super().argv
        at = words.index("netengine.daemon")
        return [*words[:at], "benchmarks.traced", str(self.host.directory / "stages.json"), *words[at + 1 :]]


def measure(rounds: int) -> Stages:
    """Connect and disconnect ten running sandboxes in turn."""
    seen: dict[str, list[float]] = {"connect": [], "disconnect": []}
    with tempfile.TemporaryDirectory() as directory:
        host = Host("stages", Path(directory))
        daemon = _Traced(host).start()
        try:
            path = str(host.path(Netengine.socket))
            call(path, "POST", "/networks/create", {"Name": "bench"})
            call(path, "POST", "/networks/create", {"Name": "idle", "Internal": True})
            for n in range(10):
                wish = {"Image": "sandbox", "HostConfig": {"NetworkMode": "idle"}}
                call(path, "POST", f"/containers/create?name=ns{n}", wish)
                call(path, "POST", f"/containers/ns{n}/start")
            for n in range(rounds):
                for what in seen:
                    began = time.perf_counter()
                    call(path, "POST", f"/networks/bench/{what}", {"Container": f"ns{n % 10}"})
                    seen[what].append((time.perf_counter() - began) * 1000)
            lines = (Path(directory) / "stages.json").read_text().splitlines()
        finally:
            daemon.stop()
            host.close()
    records = [json.loads(line) for line in lines]
    return {
        what: _rows([(whole, taken) for name, whole, taken in records if name == what], seen[what]) for what in seen
    }


def _rows(records: list[tuple[float, dict[str, float]]], client: list[float]) -> list[tuple[str, float]]:
    def median(stage: str) -> float:
        return statistics.median(taken.get(stage, 0.0) for _, taken in records)

    whole = statistics.median(whole for whole, _ in records)
    building = sum(
        median(stage)
        for stage in {stage for _, taken in records for stage in taken}
        if stage.startswith("kernel thread: ") and stage != "kernel thread: plan"
    )
    named = {stage for _, stage in _ORDER if stage}
    thread = building + sum(median(s) for s in ("kernel thread: plan", "netlink: encode", "netlink: the kernel's work"))
    thread += median("netlink: questions") + median("nftables transaction")
    hops = max(median("on_kernel") - thread, 0.0)
    special = {
        "building the kernel's messages": building,
        "to the kernel thread and back, where it is needed": hops,
        "HTTP and the client": statistics.median(client) - whole,
        "the engine: rules, leases, the model": max(whole - building - hops - sum(map(median, named)), 0.0),
    }
    return [(words, special[words] if stage is None else median(stage)) for words, stage in _ORDER]


def table(stages: Stages) -> list[str]:
    """A column for each operation."""
    operations = list(stages)
    lines = [
        f"| where the time goes | {' | '.join(f'{o}, ms' for o in operations)} |",
        "|---|" + "---|" * len(operations),
    ]
    for at, (words, _) in enumerate(stages[operations[0]]):
        lines.append(f"| {words} | {' | '.join(f'{stages[o][at][1]:.2f}' for o in operations)} |")
    sums = [sum(taken for _, taken in stages[o]) for o in operations]
    lines.append(f"| **whole, as the client sees it** | {' | '.join(f'**{s:.2f}**' for s in sums)} |")
    return lines
