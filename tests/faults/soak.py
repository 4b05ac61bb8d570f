"""Every failpoint of every operation, several rounds, and a table of what was survived: what `scripts/soak` runs."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

from tests.faults.harness import OPERATIONS, Death, FaultLab, die_at, points


def run(lab: FaultLab, rounds: int, only: str) -> dict[str, list[Death]]:
    """The deaths of each operation. A death that broke a promise is printed at once."""
    table: dict[str, list[Death]] = {}
    for operation in (o for o in OPERATIONS if only in o.name):
        reached = points(lab, operation)
        clean = lab.facts()
        deaths = table.setdefault(operation.name, [])
        for _ in range(rounds):
            for number, point in enumerate(reached, 1):
                death = die_at(lab, operation, number, point, clean)
                deaths.append(death)
                for line in death.wrong:
                    print(f"{operation.name}, killed at {death.point}, found {death.state}: {line}", flush=True)
        print(f"{operation.name}: {len(deaths)} kills", file=sys.stderr, flush=True)
    return table


def main() -> int:
    words = argparse.ArgumentParser(description="Kill the daemon at every step of every operation.")
    words.add_argument("--rounds", type=int, default=1, help="how often each point is tried (default 1)")
    words.add_argument("--only", default="", metavar="TEXT", help="only operations with TEXT in their name")
    given = words.parse_args()
    if os.geteuid() != 0:
        print("soak: this makes network namespaces and needs root", file=sys.stderr)
        return 1
    directory = Path(tempfile.mkdtemp(prefix="netengine-soak-"))
    lab = FaultLab(directory)
    try:
        table = run(lab, given.rounds, given.only)
        sent, lost = lab.flow.sent, lab.flow.lost()
    finally:
        lab.close()
        shutil.rmtree(directory, ignore_errors=True)
    print("\n| kill -9 during | tries | survived | lost | longest restart |\n| --- | --- | --- | --- | --- |")
    for name, deaths in table.items():
        bad = sum(bool(d.wrong) for d in deaths)
        longest = max((d.restart_seconds for d in deaths), default=0)
        print(f"| {name} | {len(deaths)} | {len(deaths) - bad} | {bad} | {longest:.1f} s |")
    everything = [d for deaths in table.values() for d in deaths]
    bad = sum(bool(d.wrong) for d in everything)
    print(f"| all | {len(everything)} | {len(everything) - bad} | {bad} | |")
    print(f"\nThe bystander's flow meanwhile: {sent} datagrams and as many TCP segments, {lost} lost.")
    return 1 if bad or lost else 0


if __name__ == "__main__":
    sys.exit(main())
