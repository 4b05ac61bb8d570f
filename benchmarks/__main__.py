"""`scripts/bench`: run everything, print tables of ratios, write docs/benchmarks.md and benchmarks/results.json if asked."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from benchmarks import attach, startup

PAGE = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few rounds: only shows that the benchmarks still run")
    parser.add_argument("--write-docs", action="store_true", help=f"write the tables to {PAGE.name}")
    parser.add_argument("--json", metavar="FILE", help="write all samples to FILE, in milliseconds")
    options = parser.parse_args()
    rounds = 4 if options.quick else 100
    attaching, missing = attach.measure(rounds)
    starting = startup.measure(4 if options.quick else 31)
    text = _page(attach.table(attaching), startup.table(starting), missing, rounds)
    print(text)
    if options.json:
        Path(options.json).write_text(json.dumps({"attach": attaching, "startup": starting}, indent=1))
    if options.write_docs:
        PAGE.write_text(text)


def _page(attaching: list[str], starting: list[str], missing: list[str], rounds: int) -> str:
    lines = [
        "# Benchmarks",
        "",
        "Made by `scripts/bench --write-docs`; run it to have the figures of your machine. Each contender works in a host of "
        "its own",
        "(a network and mount namespace) and they take turns. Only ratios within one run mean something.",
        "",
        f"## A namespace on a bridge network ({rounds} each)",
        "",
        "netengine's figure is a whole API call, connection and answer included. The others are the processes that their users "
        "run.",
        "A link that netengine detaches is out of use when the call answers; the kernel deletes it later, with others.",
        "",
        *attaching,
        "",
        "## A command, cold",
        "",
        *starting,
        "",
        "## What took part",
        "",
        *(f"* {line}" for line in startup.versions()),
        f"* {os.cpu_count()} cores",
        *(f"* left out: {line}" for line in missing),
    ]
    return "\n".join(lines) + "\n"


main()
