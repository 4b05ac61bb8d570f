"""What the built network carries: TCP throughput by iperf3, and the time of a TCP connect, on the ways that packets take."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

from benchmarks import turns
from benchmarks.bare import NAME, NEAR, Bare
from benchmarks.contenders import ByHand, Docker, Netengine
from benchmarks.contenders.base import Contender
from benchmarks.paths import INSIDE, Place, places, published
from tests.hosts import Host

WAYS = ("container to container", "another machine to a published port", "127.0.0.1 to a published port")

Samples = dict[str, dict[str, list[float]]]
"""Gbit/s or microseconds by way and contender."""


def contenders() -> list[type[Contender]]:
    """Built by hand, by netengine, and by Docker where it is installed."""
    return [Netengine, ByHand, *([] if Docker.missing() else [Docker])]


def throughput(rounds: int, seconds: int) -> tuple[Samples, list[str]]:
    """`rounds` runs of iperf3 on each way, for so many seconds, or none: a few megabytes; contenders take turns."""
    if not shutil.which("iperf3"):
        return {}, ["throughput: no iperf3 (Debian: iperf3)"]
    samples: Samples = {way: {} for way in WAYS}
    with places(contenders()) as hosts:
        for place in hosts:
            place.worker.host.sysctl("net.ipv4.conf.all.route_localnet", "1")
            place.serve(1, ["iperf3", "-s", "-p", "80", "--forceflush"], "Server listening")
        for _ in range(rounds):
            for way in WAYS:
                for place in hosts:
                    samples[way].setdefault(place.worker.name, []).append(_iperf(place, way, seconds))
    return samples, []


def _iperf(place: Place, way: str, seconds: int) -> float:
    host, prefix, to, port = _way(place, way)
    argv = [*prefix, "iperf3", "-c", to, "-p", str(port), *lasting(seconds), "-J"]
    done = host.run(argv, timeout=seconds + 20)
    answer = json.loads(done.stdout)
    if "error" in answer:
        raise RuntimeError(f"{place.worker.name}, {way}: {answer['error']}")
    return float(answer["end"]["sum_received"]["bits_per_second"]) / 1e9


def lasting(seconds: int) -> list[str]:
    """The words that tell iperf3 how long to go on; with 0 only until it is shown that packets flow."""
    return ["-t", str(seconds)] if seconds else ["-n", "8M"]


def _way(place: Place, way: str) -> tuple[Host, list[str], str, int]:
    """The host, the words before the command, and where to."""
    if way == WAYS[0]:
        return place.worker.host, place.inside(3), place.address(1), 80
    if way == WAYS[1]:
        return place.neighbour, [], INSIDE, published(1)
    return place.worker.host, [], "127.0.0.1", published(1)


def latency(count: int) -> Samples:
    """Microseconds of a TCP connect on each way, of `count` turns."""
    with places(contenders()) as hosts, tempfile.TemporaryDirectory() as directory:
        bare = Bare(Path(directory))
        spaces = []
        try:
            ways: dict[str, dict[str, turns.Way]] = {way: {} for way in WAYS}
            for place in hosts:
                host, name = place.worker.host, place.worker.name
                host.sysctl("net.ipv4.conf.all.route_localnet", "1")
                near, far = (turns.inside(host, place.inside(n)) for n in (1, 3))
                spaces += [near, far]
                server = turns.serve(near)
                ways[WAYS[0]][name] = turns.Way(far, (place.address(1), 80), server)
                ways[WAYS[1]][name] = turns.Way(place.neighbour, (INSIDE, published(1)), server)
                ways[WAYS[2]][name] = turns.Way(host, ("127.0.0.1", published(1)), server)
            server = turns.serve(bare.near)
            ways[WAYS[0]][NAME] = turns.Way(bare.far, (NEAR, 80), server)
            ways[WAYS[1]][NAME] = turns.Way(bare.neighbour, (NEAR, 80), server)
            return {way: turns.connects(by_name, count) for way, by_name in ways.items()}
        finally:
            for space in spaces:
                space.close()
            bare.close()
