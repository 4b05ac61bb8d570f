"""Growth as a picture (PNG, where matplotlib is installed) and as text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.growth import Growth

_BLOCKS = "▁▂▃▄▅▆▇█"


def line(values: Sequence[float]) -> str:
    """Values as bars from zero to their greatest."""
    most = max(values) or 1.0
    return "".join(_BLOCKS[min(int(value / most * len(_BLOCKS)), len(_BLOCKS) - 1)] for value in values)


def text(endpoints: Growth, ports: Growth) -> list[str]:
    """A line of bars for each figure; a flat line is the aim."""
    rows = (
        (f"connect, 1 to {endpoints.endpoints[-1]} endpoints", endpoints.attach, "ms"),
        ("the same, C floor", endpoints.floor, "ms"),
        ("daemon's memory", endpoints.memory, "MiB"),
        (f"publish, 1 to {ports.ports[-1]} ports", ports.publish, "ms"),
        ("TCP connect through a port", ports.connect, "µs"),
        ("daemon's memory", ports.ports_memory, "MiB"),
    )
    return ["```", *(f"{name:32} {line(v)}  {v[0]:.1f} … {v[-1]:.1f} {unit}" for name, v, unit in rows), "```"]


def picture(endpoints: Growth, ports: Growth, path: Path) -> str:
    """Write the PNG; answer "" or why there is none."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        from matplotlib import pyplot
    except ImportError:
        return "no picture: no matplotlib (pip install matplotlib)"
    figure, axes = pyplot.subplots(2, 2, figsize=(11, 7), constrained_layout=True)
    panels = (
        (
            axes[0][0],
            "network connect, ms",
            endpoints.endpoints,
            {"netengine": endpoints.attach, "C floor": endpoints.floor},
        ),
        (axes[0][1], "daemon's memory, MiB, by endpoints", endpoints.endpoints, {"netengine": endpoints.memory}),
        (axes[1][0], "publish one more port, ms", ports.ports, {"netengine": ports.publish}),
        (axes[1][1], "TCP connect through a port, µs", ports.ports, {"netengine": ports.connect}),
    )
    for axis, title, across, curves in panels:
        for name, values in curves.items():
            axis.plot(across, values, marker="o", markersize=3, label=name)
        axis.set_title(title)
        axis.set_ylim(bottom=0)
        axis.set_xlabel("endpoints" if across is endpoints.endpoints else "published ports")
        axis.grid(alpha=0.3)
        axis.legend()
    axes[1][1].axhline(ports.connect_plain, linestyle="--", color="grey", label="no NAT")
    axes[1][1].legend()
    figure.savefig(path, dpi=110)
    return ""
