"""TCP connects on several ways, in turns of a few connections each, all by one thread of one process: whatever else the machine
does meets all ways alike, so that ratios of a few per cent can be told apart. There is no process to wake: the kernel carries a
packet to the other end before the call that sends it returns.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.hosts import Host, Namespace, Process

TURN = 20
"""Connections in one turn."""
_RESET = struct.pack("ii", 1, 0)  # struct linger: close with RST, so that nothing is left in TIME_WAIT


@dataclass(frozen=True)
class Way:
    """From where a connection is made, to what, and the listening socket that it ends at."""

    client: Namespace
    to: tuple[str, int]
    server: socket.socket


def inside(host: Host, enter: Sequence[str]) -> Namespace:
    """A namespace of a host, which the words `enter` before a command lead into."""
    process: Process = host.popen([*enter, "sh", "-c", "echo ready; exec sleep 86400"])
    assert process.popen.stdout is not None
    process.popen.stdout.readline()
    return Namespace(Path(f"/proc/{process.pid}/ns/net"), f"{host.name}: {' '.join(enter)}")


def serve(place: Namespace, port: int = 80) -> socket.socket:
    server = place.inside(lambda: socket.create_server(("0.0.0.0", port), backlog=512))
    server.settimeout(10)
    return server


@contextmanager
def pinned() -> Iterator[None]:
    """On one processor, where a packet stays on it from end to end."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def connects(ways: Mapping[str, Way], turns: int) -> dict[str, list[float]]:
    """For each way the median microseconds of a connect, of each of its turns."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    with pinned():
        for _ in range(turns):
            for name, way in ways.items():
                taken[name].append(_turn(way))
    return taken


def _turn(way: Way) -> float:
    taken = []
    for client in way.client.inside(lambda: [socket.socket() for _ in range(TURN)]):
        with client:
            began = time.perf_counter_ns()
            client.connect(way.to)
            taken.append((time.perf_counter_ns() - began) / 1000)
            way.server.accept()[0].close()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    return sorted(taken)[TURN // 2]
