"""The parts of a run: each measures one thing and answers with Markdown, its data, and who is missing."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import dns, growth, listening, operations, overlay, plots, rules, stages, startup, tables, traffic
from benchmarks.dns import first

PICTURE = Path(__file__).resolve().parent.parent / "docs" / "growth.png"


@dataclass
class Section:
    """What one part has to say. `data` are the samples, as JSON has them."""

    lines: list[str]
    data: Any
    missing: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Part:
    title: str
    measure: Callable[[bool], Section]
    """Called with whether only to show that it works."""


def _operations(quick: bool) -> Section:
    samples, missing = operations.measure(1 if quick else 30)
    words = [
        "netengine's and Docker's figures are whole API calls (of `run`: the `docker` command), connection and answer too.",
        "The others are the processes that their users run; the floor is a C program that sends as few messages as it can.",
        "A link that netengine detaches is out of use when the call answers; the kernel deletes it later, with others.",
        "",
    ]
    return Section(words + tables.ratios(samples, "ms"), samples, missing)


def _stages(quick: bool) -> Section:
    found = stages.measure(20 if quick else 400)
    words = ["One client, one call at a time, on an otherwise idle daemon with a stop-watch in it.", ""]
    return Section(words + stages.table(found), found)


def _growth(quick: bool) -> Section:
    by_endpoints = growth.endpoints(20, 10) if quick else growth.endpoints(900, 100)
    by_ports = growth.ports(100, 50, 3) if quick else growth.ports(5000, 1000, 15)
    many, none = growth.two_hundred_ports(2 if quick else 9)
    lines = plots.text(by_endpoints, by_ports)
    if not quick:
        problem = plots.picture(by_endpoints, by_ports, PICTURE)
        lines = [problem or "![growth](growth.png)", "", *lines]
    lines += ["", *tables.endpoints(by_endpoints), "", *tables.ports(by_ports), ""]
    lines += [f"A sandbox with 200 published ports starts in {many:.1f} ms, one with none in {none:.1f} ms."]
    return Section(lines, [dataclasses.asdict(by_endpoints), dataclasses.asdict(by_ports), many, none])


def _restart(quick: bool) -> Section:
    found = growth.restart(10, 30, 1) if quick else growth.restart(300, 1000, 5)
    return Section(tables.restart(found), dataclasses.asdict(found))


def _traffic(quick: bool) -> Section:
    latency = traffic.latency(2 if quick else 150)
    speed, missing = traffic.throughput(1, 0) if quick else traffic.throughput(3, 2)
    lines = [
        "A TCP connect, from the SYN to the answer, in turns of 20 connections:",
        "",
        *tables.ratios(latency, "µs"),
        "",
    ]
    lines += ["One TCP stream (iperf3):", "", *(tables.ratios(speed, "Gbit/s") if speed else missing)]
    return Section(lines, {"connect": latency, "throughput": speed}, missing)


def _rules(quick: bool) -> Section:
    found = rules.measure(1, 2, kinds=False) if quick else rules.measure(12, 100)
    words = [
        "On a machine made by hand, with the rules exchanged between turns. A packet is one of an established flow.",
        "",
    ]
    return Section(words + rules.table(found), dataclasses.asdict(found))


def _names(quick: bool) -> Section:
    found = dns.measure(quick)
    if not found.loads:
        return Section([], {}, found.missing)
    words = [
        "dnsperf in a sandbox, four clients with 100 questions under way, all in turns; p99 at a steady "
        f"{dns.STEADY:,} a second. The bare responder",
        "answers anything with the same record, from a port of 127.0.0.11 in a sandbox, behind rules like netengine's.",
        "Forwarded names go to that same program on the host's loopback; what one costs aardvark-dns grows with those known.",
        '"Waited" is, for each answer, how long the server was ready to run while others ran: where it is long, rates and p99',
        "tell of the machine's other work, and the CPU time compares.",
        "",
    ]
    connects = first.measure(2 if quick else 60)
    lines = [*words, *dns.table(found), "", first.sentence(*connects)]
    return Section(lines, dataclasses.asdict(found) | {"connects": connects}, found.missing)


def _startup(quick: bool) -> Section:
    found = startup.measure(3 if quick else 31)
    return Section(startup.table(found), found)


def _listening(quick: bool) -> Section:
    numbers = (1,) if quick else (1, 300)
    found = {many: listening.measure(many, 40 if quick else 4000, 1 if quick else 10) for many in numbers}
    return Section(listening.table(found), found)


def _overlay(quick: bool) -> Section:
    found, missing = overlay.measure(1, 0, 1, 2, 1) if quick else overlay.measure(3, 2, 31, 300, 3)
    lines = ["One TCP stream (iperf3) from a container to one on another host, all on the same two hosts' cables:", ""]
    lines += tables.ratios({"host to host": found.throughput}, "Gbit/s") if found.throughput else missing
    return Section([*lines, "", *overlay.lines(found)], dataclasses.asdict(found), missing)


PARTS: dict[str, Part] = {
    "operations": Part("One operation", _operations),
    "stages": Part("Where each millisecond of a connect goes", _stages),
    "growth": Part("Does it stay flat?", _growth),
    "restart": Part("After kill -9", _restart),
    "traffic": Part("What packets feel", _traffic),
    "rules": Part("What the rules cost a packet", _rules),
    "overlay": Part("Across hosts", _overlay),
    "names": Part("Names", _names),
    "startup": Part("A command, cold", _startup),
    "listening": Part("What listening costs", _listening),
}
