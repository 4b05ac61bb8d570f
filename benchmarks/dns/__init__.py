"""Name servers side by side: names of containers, and names that are forwarded, by dnsperf from inside a sandbox.

Every contender has a host of its own, with the same names in it, and the same responder to forward to. They take turns, a
second or two each, so that whatever else the machine does hits all alike.
"""

from __future__ import annotations

import re
import statistics
import tempfile
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.dns.contenders import Bare, Contender, Netengine, available, compiled

LOADS = (
    ("1 sandbox, 1,000 names", 1, 1_000),
    ("1 sandbox, 10,000 names", 1, 10_000),
    ("300 sandboxes, 1,000 names", 300, 1_000),
    ("300 sandboxes, 10,000 names", 300, 10_000),
)
QUICK = (("1 sandbox, 20 names", 1, 20),)
FORWARDED = ("forwarded, 20 names known", 1, 20)
FORWARDED_MANY = ("forwarded, 10,000 names known", 1, 10_000)
STEADY = 4_000
"""Questions per second at which latency is looked at: what all of them serve without effort."""
LATENCY = re.compile(r"^> NOERROR .* ([0-9.]+)$", re.MULTILINE)
_UNKNOWN = 5_000


@dataclass
class Samples:
    """Of one contender under one load: of each turn, the questions per second, the server's processor time for one of them and
    how long it waited for a processor, in microseconds, and latencies in microseconds under a steady load."""

    rates: list[float] = field(default_factory=list)
    latencies: list[list[float]] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    waited: list[float] = field(default_factory=list)
    lost: int = 0

    def p99(self) -> float:
        """The median of the turns' 99th percentiles: one turn in which something else held the machine does not decide."""
        return statistics.median(statistics.quantiles(turn, n=100)[98] for turn in self.latencies)


@dataclass
class Figures:
    """By load, then by contender; memory in MiB by sandboxes, then by contender."""

    loads: dict[str, dict[str, Samples]] = field(default_factory=dict)
    memory: dict[str, dict[str, float]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)


def measure(quick: bool) -> Figures:
    """Run all loads."""
    turns, seconds = (1, 0.2) if quick else (3, 1.0)
    with tempfile.TemporaryDirectory() as text, ExitStack() as stack:
        directory = Path(text)
        there, missing = available()
        figures = Figures(missing=missing)
        if not there:
            return figures
        responder = compiled(directory)
        contenders = [stack.enter_context(contender(directory, responder)) for contender in there]
        known = QUICK if quick else LOADS
        forwarded = (FORWARDED,) if quick else (FORWARDED, FORWARDED_MANY)
        for load, sandboxes, names in sorted({*known, *forwarded}, key=lambda load: load[1:]):  # they only become more
            able = [contender for contender in contenders if contender.most_sandboxes >= sandboxes]
            for contender in able:
                contender.prepare(sandboxes, names)
            asked = [f"n{n}" for n in range(names)]
            if load in (FORWARDED[0], FORWARDED_MANY[0]):
                asked = [f"h{n}.example.org" for n in range(_UNKNOWN)]
            figures.loads[load] = _turns(able, directory, asked, turns, seconds)
            if (load, sandboxes, names) in known:
                figures.memory[load] = {c.name: c.memory_mib() for c in able if c.has_memory}
    return figures


def _turns(
    contenders: Iterable[Contender], directory: Path, names: list[str], turns: int, seconds: float
) -> dict[str, Samples]:
    questions = directory / "questions"
    questions.write_text("".join(f"{name} A\n" for name in names))
    out: dict[str, Samples] = {}
    for _ in range(turns):
        for contender in contenders:
            samples = out.setdefault(contender.name, Samples())
            ran, waited = contender.scheduled()
            report = contender.dnsperf(questions, seconds)
            rate, lost = _rate(report)
            done = int(re.findall(r"Queries completed:\s+([0-9]+)", report)[0]) or 1
            ran_now, waited_now = contender.scheduled()
            samples.cpu.append((ran_now - ran) / done * 1e6)
            samples.waited.append((waited_now - waited) / done * 1e6)
            samples.rates.append(rate)
            samples.lost += lost
            steady = contender.dnsperf(questions, seconds, "-v", "-Q", str(STEADY))
            samples.latencies.append([float(text) * 1e6 for text in LATENCY.findall(steady)])
    return out


def _rate(report: str) -> tuple[float, int]:
    """(questions per second, questions without an answer, or with a wrong one)."""
    rate = re.search(r"Queries per second:\s+([0-9.]+)", report)
    lost = re.search(r"Queries lost:\s+([0-9]+)", report)
    codes = re.search(r"Response codes:\s+(.*)", report)
    if rate is None or lost is None or codes is None:
        raise RuntimeError(f"dnsperf said: {report}")
    wrong = sum(int(n) for code, n in re.findall(r"([A-Z]+) ([0-9]+)", codes[1]) if code != "NOERROR")
    return float(rate[1]), int(lost[1]) + wrong


def table(figures: Figures) -> list[str]:
    """Medians, and what part of the bare responder's rate each has in the same turns."""
    lines = [
        "| questions for | contender | per second | of the bare responder's | CPU each, µs | waited, µs | p99, µs | lost |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for load, by_name in figures.loads.items():
        bare = by_name[Bare.name].rates
        for name, s in by_name.items():
            share = _ratio(s.rates, bare)
            times = " | ".join(f"{statistics.median(of):.1f}" for of in (s.cpu, s.waited))
            rate = f"{statistics.median(s.rates):,.0f}"
            lines.append(f"| {load} | {name} | {rate} | {share:.0%} | {times} | {s.p99():,.0f} | {s.lost} |")
    lines += [
        "",
        "| netengine's | rate, of the fastest peer's | of the bare responder's | CPU each, of the thriftiest peer's "
        "| of the bare responder's | p99, of the fastest peer's |",
        "|---|---|---|---|---|---|",
    ]
    for load, by_name in figures.loads.items():
        peers = [s for name, s in by_name.items() if name not in (Bare.name, Netengine.name)]
        if peers:
            own, bare_one = by_name[Netengine.name], by_name[Bare.name]
            fastest = max(peers, key=lambda peer: statistics.median(peer.rates))
            thrifty = min(peers, key=lambda peer: statistics.median(peer.cpu))
            ratios = [_ratio(own.rates, fastest.rates), _ratio(own.rates, bare_one.rates)]
            ratios += [_ratio(own.cpu, thrifty.cpu), _ratio(own.cpu, bare_one.cpu), own.p99() / fastest.p99()]
            lines.append(f"| {load} | " + " | ".join(f"{ratio:.2f}" for ratio in ratios) + " |")
    lines += ["", "| resident memory, MiB | " + " | ".join(next(iter(figures.memory.values()))) + " |"]
    lines.append("|---" * (1 + len(next(iter(figures.memory.values())))) + "|")
    lines += [f"| {load} | " + " | ".join(f"{v:.0f}" for v in m.values()) + " |" for load, m in figures.memory.items()]
    return lines


def _ratio(own: list[float], others: list[float]) -> float:
    """The median of the turns' ratios."""
    return statistics.median(a / b for a, b in zip(own, others, strict=True))
