"""What the built network carries: TCP throughput by iperf3, and the time of a TCP connect, on the ways that packets take."""

from __future__ import annotations

import json
import shutil

from benchmarks.contenders import ByHand, Docker, Netengine
from benchmarks.contenders.base import Contender
from benchmarks.paths import INSIDE, Place, connects, places, probe, published
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


def latency(rounds: int, count: int) -> Samples:
    """Microseconds of a TCP connect on each way, the median of `count` in each round."""
    samples: Samples = {way: {} for way in WAYS}
    with places(contenders()) as hosts:
        for place in hosts:
            place.worker.host.sysctl("net.ipv4.conf.all.route_localnet", "1")
            place.serve(1, probe("serve", 80), "ready")
        for _ in range(rounds):
            for way in WAYS:
                for place in hosts:
                    host, prefix, to, port = _way(place, way)
                    taken = sorted(connects(host, prefix, to, port, count))
                    samples[way].setdefault(place.worker.name, []).append(taken[len(taken) // 2])
    return samples
