"""`scripts/bench`: run the parts, print tables of ratios, write docs/benchmarks.md if asked."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

from benchmarks import startup
from benchmarks.parts import PARTS, Section

REPO = Path(__file__).resolve().parent.parent
PAGE = REPO / "docs" / "benchmarks.md"
SECTIONS = REPO / "benchmarks" / "sections.json"
"""The sections of the page as they were last measured, so that one can be measured anew by itself."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"what to measure: {', '.join(PARTS)} (default: all)")
    parser.add_argument("--quick", action="store_true", help="a few rounds: only shows that the benchmarks still run")
    parser.add_argument(
        "--times", type=int, default=1, metavar="N", help="do it all N times, to see the spread between runs"
    )
    parser.add_argument("--write-docs", action="store_true", help=f"write the sections measured to docs/{PAGE.name}")
    parser.add_argument("--json", metavar="FILE", help="write all samples to FILE")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    runs: list[dict[str, Section]] = []
    for _ in range(options.times):
        runs.append({})
        for name in options.parts or PARTS:
            began = time.monotonic()
            runs[-1][name] = section = PARTS[name].measure(options.quick)
            print("\n".join([f"## {PARTS[name].title}", "", *section.lines, ""]), flush=True)
            for words in section.missing:
                print(f"left out: {words}")
            print(f"scripts/bench {name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    if options.json:
        samples = [{name: section.data for name, section in run.items()} for run in runs]
        Path(options.json).write_text(json.dumps(samples, indent=1))
    if options.write_docs:
        _write(runs)


def _write(runs: list[dict[str, Section]]) -> None:
    sections = json.loads(SECTIONS.read_text()) if SECTIONS.exists() else {}
    for name in runs[0]:
        sections[name] = {
            "runs": [run[name].lines for run in runs],
            "with": [*startup.versions(), f"{os.cpu_count()} cores"],
            "missing": runs[-1][name].missing,
        }
    SECTIONS.write_text(json.dumps(sections, indent=1, ensure_ascii=False) + "\n")
    PAGE.write_text(page(sections))


def page(sections: dict[str, dict[str, list[list[str]] | list[str]]]) -> str:
    """docs/benchmarks.md, of the sections that have been measured."""
    lines = [
        "# Benchmarks",
        "",
        "Made by `scripts/bench --times 2 --write-docs`; run it to have the figures of your machine. Every contender works in",
        "a host of its own (network, mount and PID namespace), and they take turns. Only ratios within one run mean something.",
    ]
    for name, part in PARTS.items():
        if name not in sections:
            continue
        lines += ["", f"## {part.title}", "", f"`scripts/bench {name}`"]
        runs = sections[name]["runs"]
        for number, run in enumerate(runs, 1):
            lines += ["", *([f"### Run {number}", ""] if len(runs) > 1 else []), *run]
        lines += ["", f"Measured with {'; '.join(map(str, sections[name]['with']))}."]
        lines += [f"Left out: {words}." for words in sections[name]["missing"]]
    return "\n".join(lines) + "\n"


main()
