"""Two machines on a cable, one with containers behind it, so that packets can be sent the ways that users send them."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.bench_host import Worker
from benchmarks.contenders.base import FIRST_PORT, Contender, address
from benchmarks.contenders.engines import Engine, Netengine
from tests.hosts import Host, Process, wire

INSIDE, OUTSIDE = "192.0.2.1", "192.0.2.2"
"""The machine with the containers, and the other one."""


class Place:
    """A contender's machine with two attached namespaces, ns1 (published as port FIRST_PORT + 1) and ns3, and a neighbour."""

    def __init__(self, contender: type[Contender], directory: Path) -> None:
        self.contender = contender
        self.worker = Worker(contender, directory)
        self.neighbour = Host(f"beyond-{contender.__name__.lower()}", directory)
        wire(self.worker.host, self.neighbour)
        self.worker.host.sysctl("net.ipv4.ip_forward", "1")
        self.worker.ask("prepare", 4)
        for n in (1, 3):
            self.worker.ask("port", n)

    def address(self, n: int) -> str:
        """Of namespace `n` on the network."""
        if issubclass(self.contender, Engine):
            shown = json.loads(self._api("GET", f"/containers/ns{n}/json"))
            return str(shown["NetworkSettings"]["Networks"]["bench"]["IPAddress"])
        return address(n, "10.7")

    def _api(self, method: str, path: str) -> bytes:
        assert issubclass(self.contender, Engine)
        argv = ["curl", "-s", "-X", method, "--unix-socket", self.contender.socket, f"http://d{path}"]
        return self.worker.host.run(argv, check=True).stdout.encode()

    def inside(self, n: int) -> list[str]:
        """The words before a command that is to run in namespace `n`, on the contender's machine."""
        if self.contender is Netengine:
            return ["ip", "netns", "exec", f"ns{n}"]
        if issubclass(self.contender, Engine):
            pid = json.loads(self._api("GET", f"/containers/ns{n}/json"))["State"]["Pid"]
            return ["nsenter", "--net", "--target", str(pid), "--"]
        return ["ip", "netns", "exec", f"ns{n}"]

    def serve(self, n: int, argv: Sequence[str], ready: str) -> Process:
        """Start a server in namespace `n`; it has printed `ready` when this returns."""
        process = self.worker.host.popen([*self.inside(n), *argv])
        assert process.popen.stdout is not None
        for line in process.popen.stdout:
            if ready in line.decode(errors="replace"):
                return process
        raise RuntimeError(f"{' '.join(argv)} ended on {self.worker.name}")

    def close(self) -> None:
        self.neighbour.close()
        self.worker.close()


@contextmanager
def places(contenders: Sequence[type[Contender]]) -> Iterator[list[Place]]:
    with tempfile.TemporaryDirectory() as directory:
        made: list[Place] = []
        try:
            for contender in contenders:
                made.append(Place(contender, Path(directory)))
            yield made
        finally:
            for place in made:
                place.close()


def probe(*words: object) -> list[str]:
    return [sys.executable, "-m", "benchmarks.probe", *map(str, words)]


def connects(host: Host, prefix: Sequence[str], to: str, port: int, count: int) -> list[float]:
    """Microseconds of `count` TCP connections made one after another."""
    done = host.run([*prefix, *probe("connect", to, port, count)], check=True, timeout=60)
    return [float(line) for line in done.stdout.split()]


def published(n: int) -> int:
    return FIRST_PORT + n
