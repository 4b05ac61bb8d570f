"""Every failpoint of every operation, shortages of memory, churn, and tables of what was survived: `scripts/soak` runs it."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults import churn
from tests.faults.harness import (
    OPERATIONS,
    SPEAKING,
    Death,
    FaultLab,
    Refusal,
    die_at,
    exchanges,
    points,
    refuse_at,
    undo,
)
from tests.faults.test_foreign_hands import HANDS, WITHIN, Scene
from tests.hosts import wait_until

_CLIENTS = 16
_MEMORY = 12 << 10  # KiB, as in test_churn


def run(lab: FaultLab, rounds: int, only: str) -> dict[str, list[Death]]:
    """The deaths of each operation. A death that broke a promise is printed at once."""
    table: dict[str, list[Death]] = {}
    for operation in (o for o in OPERATIONS if only in o.name):
        reached = points(lab, operation)
        clean = lab.settled()
        deaths = table.setdefault(operation.name, [])
        for _ in range(rounds):
            for number, point in enumerate(reached, 1):
                death = die_at(lab, operation, number, point, clean)
                deaths.append(death)
                for line in death.wrong:
                    print(f"{operation.name}, killed at {death.point}, found {death.state}: {line}", flush=True)
        print(f"{operation.name}: {len(deaths)} kills", file=sys.stderr, flush=True)
    return table


def starve(lab: FaultLab, only: str) -> dict[str, list[Refusal]]:
    """The refusals of each operation: at each exchange with the kernel one for want of memory, and at each fourth the beginning
    of a shortage of sixty exchanges, within which nothing can be taken back either."""
    table: dict[str, list[Refusal]] = {}
    for operation in (o for o in SPEAKING if only in o.name):
        reached = exchanges(lab, operation)
        clean = lab.settled()
        refusals = table.setdefault(operation.name, [])
        for error, step, more in (("ENOMEM", 1, 0), ("ENOBUFS", 4, 60)):
            for first in range(1, len(reached) + 1, step):
                refusals.append(refuse_at(lab, operation, error, first, first + more, reached[first - 1], clean))
                for line in refusals[-1].wrong:
                    print(
                        f"{operation.name}, {error} at {refusals[-1].point}: {refusals[-1].answer}: {line}", flush=True
                    )
        print(f"{operation.name}: {len(refusals)} shortages", file=sys.stderr, flush=True)
    return table


@dataclass
class Hand:
    """One way of others to take something away: seconds until it was back, of each try, and what went wrong."""

    what: str
    seconds: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @property
    def in_time(self) -> int:
        return sum(took <= WITHIN for took in self.seconds)


def take_away(lab: FaultLab, rounds: int, only: str) -> list[Hand]:
    """Everything that tests/faults/test_foreign_hands.py takes away, so many times. Nobody is asked to mend it."""
    table = []
    for what, argv in ((what, argv) for what, argv in HANDS.items() if only in what):
        table.append(hand := Hand(what))
        for _ in range(rounds):
            scene = Scene(lab)
            lab.here.run(argv(scene), check=True)
            began = time.monotonic()
            try:
                wait_until(scene.is_mended, lambda s=scene: f"{set(s.before) ^ set(s.state())}", 10)  # type: ignore[misc]
            except AssertionError as e:
                hand.wrong.append(str(e))
            hand.seconds.append(time.monotonic() - began)
            hand.wrong += lab.doctor()
            undo(lab)
            lab.daemon.restart()  # it remembers what it put back how often
        print(f"{what}: {rounds} times", file=sys.stderr, flush=True)
    return table


@dataclass
class Load:
    """One kind of churn: rounds done, what went wrong in them, what was more afterwards than before."""

    name: str
    rounds: int
    seconds: float = 0.0
    slowest: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def come_and_go(lab: FaultLab, many: int) -> Load:
    """Rounds on an empty host, after enough of them to take every path once."""
    load = Load(f"rounds of {_CLIENTS} clients", many)
    with churn.networks(lab, "churn-a", "churn-b"):
        load.wrong += churn.rounds(lab, min(many, 200), _CLIENTS)
        lab.here.await_burials(60)
        before, began = churn.figures(lab), time.monotonic()
        load.wrong += churn.rounds(lab, many, _CLIENTS, seconds=3600, slowest=load.slowest)
        load.seconds = time.monotonic() - began
        lab.here.await_burials(60)
        load.wrong += churn.figures(lab).grown(before, _MEMORY) + lab.doctor()
    return load


def come_and_go_in_a_crowd(lab: FaultLab, many: int, endpoints: int = 900, ports: int = 5000) -> Load:
    """The same beside so many endpoints on one bridge and published ports."""
    load = Load(f"the same beside {endpoints} endpoints on one bridge and {ports} ports", many)
    each = -(-ports // endpoints)

    def fill(client: churn.Client, who: int, number: int) -> None:
        mine = range(number * each, min((number + 1) * each, ports))
        published = [(f"{1 + outer % each}/tcp", str(20000 + outer)) for outer in mine]
        client("POST", *churn.sandbox(f"s{number}", "churn-a", *published))
        client("POST", f"/containers/s{number}/start")

    def empty(client: churn.Client, who: int, number: int) -> None:
        client("DELETE", f"/containers/s{number}?force=1")

    # The rounds' own containers are on this network too, 16 at most; the kernel's limit is 1,023 ports a bridge.
    with churn.networks(lab, "churn-a", "churn-b"):
        load.wrong += churn.rounds(lab, endpoints, 8, fill, seconds=900)
        load.wrong += lab.doctor()  # a look at everything takes the most memory that there will be
        full, began = churn.figures(lab), time.monotonic()
        load.wrong += churn.rounds(lab, many, _CLIENTS, seconds=3600, slowest=load.slowest)
        load.seconds = time.monotonic() - began
        lab.here.await_burials(60)
        load.wrong += churn.figures(lab).grown(full, _MEMORY) + lab.doctor()
        load.wrong += churn.rounds(lab, endpoints, 8, empty, seconds=900)
        lab.here.await_burials(60)
    return load


def main() -> int:
    words = argparse.ArgumentParser(
        description="Kill the daemon at every step of every operation; or load it with churn."
    )
    words.add_argument("--rounds", type=int, default=1, help="how often each point is tried (default 1)")
    words.add_argument("--only", default="", metavar="TEXT", help="only operations with TEXT in their name")
    words.add_argument("--hands", action="store_true", help="no kills, but others that take things away")
    words.add_argument("--no-memory", action="store_true", help="no kills, but a kernel that has no memory left")
    words.add_argument("--churn", type=int, default=0, metavar="N", help="no kills, but N rounds of 16 clients")
    words.add_argument(
        "--crowd", type=int, default=0, metavar="N", help="N rounds of them beside 900 endpoints and 5,000 ports"
    )
    given = words.parse_args()
    if os.geteuid() != 0:
        print("soak: this makes network namespaces and needs root", file=sys.stderr)
        return 1
    directory = Path(tempfile.mkdtemp(prefix="netengine-soak-"))
    lab = FaultLab(directory)
    try:
        if given.hands:
            bad = _hands(lab, given.rounds, given.only)
        elif given.no_memory:
            bad = _shortages(lab, given.only)
        elif given.churn or given.crowd:
            bad = _churn(lab, given.churn, given.crowd)
        else:
            bad = _kills(lab, given.rounds, given.only)
        sent, lost = lab.flow.sent, lab.flow.lost()
    finally:
        lab.close()
        shutil.rmtree(directory, ignore_errors=True)
    print(f"\nThe bystander's flow meanwhile: {sent} datagrams and as many TCP segments, {lost} lost.")
    # What foreign hands take away may be what the bystander's packets go by.
    return 1 if bad or (lost and not given.hands) else 0


def _churn(lab: FaultLab, many: int, crowded: int) -> int:
    loads = [come_and_go(lab, many)] if many else []
    loads.append(come_and_go_in_a_crowd(lab, crowded or max(100, many // 20)))
    print("\n| churn | rounds | went wrong or grew | rounds a second | slowest request |")
    print("| --- | --- | --- | --- | --- |")
    for load in loads:
        pace, slowest = load.rounds / load.seconds, max(load.slowest)
        print(f"| {load.name} | {load.rounds} | {len(load.wrong)} | {pace:.0f} | {slowest:.1f} s |")
    for line in (line for load in loads for line in load.wrong):
        print(line)
    memory = churn.figures(lab)
    print(f"\nAfterwards: {memory.memory >> 10} MB of memory, {memory.descriptors} descriptors.")
    return sum(len(load.wrong) for load in loads)


def _hands(lab: FaultLab, rounds: int, only: str) -> int:
    table = take_away(lab, rounds, only)
    print(
        "\n| taken away or changed | tries | back within a second | lost | longest |\n| --- | --- | --- | --- | --- |"
    )
    for hand in table:
        late = len(hand.seconds) - hand.in_time
        print(f"| {hand.what} | {len(hand.seconds)} | {hand.in_time} | {late} | {max(hand.seconds):.2f} s |")
    everything = [took for hand in table for took in hand.seconds]
    good = sum(hand.in_time for hand in table)
    print(f"| all | {len(everything)} | {good} | {len(everything) - good} | {max(everything):.2f} s |")
    for line in (f"{hand.what}: {line}" for hand in table for line in hand.wrong):
        print(line)
    return len(everything) - good + sum(len(hand.wrong) for hand in table)


def _shortages(lab: FaultLab, only: str) -> int:
    table = starve(lab, only)
    print("\n| no memory in the kernel during | tries | survived | lost |\n| --- | --- | --- | --- |")
    everything = [r for refusals in table.values() for r in refusals]
    for name, refusals in [*table.items(), ("all", everything)]:
        bad = sum(bool(r.wrong) for r in refusals)
        print(f"| {name} | {len(refusals)} | {len(refusals) - bad} | {bad} |")
    return sum(bool(r.wrong) for r in everything)


def _kills(lab: FaultLab, rounds: int, only: str) -> int:
    table = run(lab, rounds, only)
    print("\n| kill -9 during | tries | survived | lost | longest restart |\n| --- | --- | --- | --- | --- |")
    for name, deaths in table.items():
        bad = sum(bool(d.wrong) for d in deaths)
        longest = max((d.restart_seconds for d in deaths), default=0)
        print(f"| {name} | {len(deaths)} | {len(deaths) - bad} | {bad} | {longest:.1f} s |")
    everything = [d for deaths in table.values() for d in deaths]
    bad = sum(bool(d.wrong) for d in everything)
    print(f"| all | {len(everything)} | {len(everything) - bad} | {bad} | |")
    return bad


if __name__ == "__main__":
    sys.exit(main())
