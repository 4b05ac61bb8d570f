"""What the name service adds to a sandbox's first connect: sockets and rules in the sandbox, and handing them over.

A container of the default bridge is connected to its first network with names, then to a second one: the same call, but for
the name service.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

from tests.daemons import Daemon
from tests.hosts import Host


def measure(count: int) -> tuple[list[float], list[float]]:
    """Milliseconds of `count` first and second connects, taking turns."""
    first: list[float] = []
    second: list[float] = []
    with tempfile.TemporaryDirectory() as directory:
        host = Host("first", Path(directory))
        daemon = Daemon(host).start()
        try:
            for n in range(2):
                daemon.request("POST", "/networks/create", {"Name": f"net{n}"})
            for n in range(count):
                daemon.request("POST", f"/containers/create?name=s{n}", {"Image": "sandbox"})
                daemon.request("POST", f"/containers/s{n}/start")
                # Either network is the first one for half of them.
                for times, network in zip((first, second), (n % 2, 1 - n % 2), strict=True):
                    began = time.perf_counter()
                    answer = daemon.request("POST", f"/networks/net{network}/connect", {"Container": f"s{n}"})
                    times.append((time.perf_counter() - began) * 1000)
                    if answer.status != 200:
                        raise RuntimeError(f"connect: {answer.body!r}")
        finally:
            daemon.cleanup()
            host.close()
    return first, second


def sentence(first: list[float], second: list[float]) -> str:
    """The medians, and that of the differences within a container."""
    more = statistics.median(a - b for a, b in zip(first, second, strict=True))
    return (
        f"A sandbox's first network with names takes {statistics.median(first):.1f} ms to connect, its second one "
        f"{statistics.median(second):.1f} ms: the name service adds {more:.1f} ms (median of {len(first)} differences)."
    )
