"""Samples as Markdown tables: medians, spread, and ratios within the run."""

from __future__ import annotations

import statistics
from collections.abc import Mapping

from benchmarks.contenders import Floor, Netengine
from benchmarks.growth import Growth

Samples = Mapping[str, Mapping[str, list[float]]]


def ratios(samples: Samples, unit: str, digits: int = 1) -> list[str]:
    """Medians, the middle half, and how many times netengine's median each is."""
    lines = [
        f"| what | contender | median, {unit} | middle half, {unit} | times netengine's |",
        "|---|---|---|---|---|",
    ]
    for what, by_name in samples.items():
        own = statistics.median(by_name[Netengine.name])
        for name, values in by_name.items():
            low, middle, high = statistics.quantiles(values, n=4) if len(values) > 1 else values * 3
            spread = f"{low:.{digits}f} to {high:.{digits}f}"
            lines.append(f"| {what} | {name} | {middle:.{digits}f} | {spread} | {middle / own:.2f} |")
    return lines


def endpoints(growth: Growth) -> list[str]:
    lines = [
        f"| endpoints | one more, ms | {Floor.name}, ms | times the floor | daemon's memory, MiB |",
        "|---|---|---|---|---|",
    ]
    for n, own, floor, memory in zip(growth.endpoints, growth.attach, growth.floor, growth.memory, strict=True):
        lines.append(f"| {n} | {own:.2f} | {floor:.2f} | {own / floor:.1f} | {memory:.0f} |")
    whole, floor_whole, most = growth.attach_all, growth.floor_all, growth.endpoints[-1]
    lines += [
        "",
        f"All {most} one after another: {whole / 1000:.2f} s, {whole / floor_whole:.1f} times the floor's. The same from 16 "
        f"clients at once: {growth.attach_at_once / 1000:.2f} s, {growth.attach_at_once / floor_whole:.1f} times the floor's.",
    ]
    return lines


def ports(growth: Growth) -> list[str]:
    lines = [
        "| published ports | one more, ms | a connect through one, µs | daemon's memory, MiB |",
        "|---|---|---|---|",
    ]
    for n, own, connect, memory in zip(growth.ports, growth.publish, growth.connect, growth.ports_memory, strict=True):
        lines.append(f"| {n} | {own:.2f} | {connect:.1f} | {memory:.0f} |")
    lines += ["", f"The same connect on a machine without NAT and without a rule: {growth.connect_plain:.1f} µs."]
    return lines


def restart(growth: Growth) -> list[str]:
    ready = ", ".join(f"{seconds:.2f}" for seconds in growth.ready)
    return [
        f"With {growth.ready_with} in the kernel the daemon was killed (SIGKILL) and started again {len(growth.ready)} times: "
        f"it served after {ready} s. Of {growth.sent} datagrams sent through a published port meanwhile, one a millisecond, "
        f"{growth.lost} were lost.",
    ]
