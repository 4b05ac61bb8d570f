"""How long a command takes from its start to its end: `netengine network ls` beside `docker network ls`, on one daemon."""

from __future__ import annotations

import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from tests.daemons import Client, Daemon, docker_cli, netengine_cli
from tests.hosts import Host


def measure(count: int) -> dict[str, list[float]]:
    """Milliseconds by program; they take turns. Getting into the host is measured by `true` and taken off."""
    figures: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as directory:
        host = Host("startup", Path(directory))
        daemon = Daemon(host).start()
        try:
            clients: list[tuple[str, Client]] = [("docker", docker_cli(daemon)), ("netengine", netengine_cli(daemon))]
            for _ in range(count):
                entering = _time(lambda: host.run(["true"]))
                for name, client in clients:
                    figures.setdefault(name, []).append(_time(lambda c=client: c.run("network", "ls")) - entering)  # type: ignore[misc]
        finally:
            daemon.stop()
            host.close()
    return figures


def _time(call: object) -> float:
    began = time.perf_counter()
    assert callable(call)
    call()
    return (time.perf_counter() - began) * 1000


def table(figures: dict[str, list[float]]) -> list[str]:
    """Medians and the ratio."""
    docker = statistics.median(figures["docker"])
    lines = ["| command | median, ms | times docker's |", "|---|---|---|"]
    for name, values in figures.items():
        middle = statistics.median(values)
        lines.append(f"| `{name} network ls` | {middle:.1f} | {middle / docker:.1f} |")
    return lines


def versions() -> list[str]:
    """The programs that took part, a line each."""
    out = []
    for argv in (["uname", "-sr"], ["nft", "--version"], ["ip", "-V"], ["docker", "--version"]):
        try:
            out.append(subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip())
        except (OSError, subprocess.CalledProcessError):
            out.append(f"{argv[0]}: not here")
    return out
