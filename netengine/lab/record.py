"""What is remembered of a lab between commands: its hosts with their first processes, in `lab.json` of its directory."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fcntl import LOCK_EX, flock
from pathlib import Path

from netengine import processes
from netengine.errors import Conflict, Forbidden, NotFound

DIRECTORY = Path("/run/netengine-lab")


@dataclass(frozen=True)
class Node:
    """A host or the switch. `pid` is its first process and `started` when that began (clock ticks since boot): a pid may be
    used again by somebody else."""

    name: str
    pid: int
    started: int
    address: str = ""

    @property
    def is_alive(self) -> bool:
        return self.pid > 0 and processes.started(self.pid) == self.started


@dataclass
class Record:
    """A lab. `cuts` are the pairs of hosts that do not reach each other."""

    directory: Path
    subnet: str
    switch: Node
    hosts: dict[str, Node] = field(default_factory=dict)
    cuts: list[tuple[str, str]] = field(default_factory=list)

    def host(self, name: str) -> Node:
        """Raises NotFound with the names that there are."""
        if name not in self.hosts:
            raise NotFound(f"no host {name!r} in the lab: there are {', '.join(self.hosts)}")
        if not self.hosts[name].is_alive:
            raise Conflict(
                f"host {name} is dead (its first process {self.hosts[name].pid} is gone): netengine lab down"
            )
        return self.hosts[name]

    def socket(self, name: str) -> Path:
        """The socket of a host's daemon, reachable from the machine too."""
        return self.directory / f"{name}.sock"

    def save(self) -> None:
        shown = dataclasses.asdict(self) | {"directory": str(self.directory)}
        path = self.directory / "lab.json"
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps(shown, indent=1))
        fresh.rename(path)


def load(directory: Path) -> Record | None:
    """The lab in a directory; None when there is none."""
    try:
        found = json.loads((directory / "lab.json").read_text())
    except FileNotFoundError:
        return None
    hosts = {name: Node(**node) for name, node in found["hosts"].items()}
    cuts = [(a, b) for a, b in found["cuts"]]
    return Record(directory, found["subnet"], Node(**found["switch"]), hosts, cuts)


@contextmanager
def opened(directory: Path) -> Iterator[Record]:
    """The lab, for one command at a time. Raises NotFound when none is up."""
    with locked(directory):
        record = load(directory)
        if record is None:
            raise NotFound("no lab is up: netengine lab up 3")
        yield record


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Only one command at a time changes a lab."""
    if os.geteuid() != 0:
        raise Forbidden("a lab is made of namespaces: run netengine lab as root")
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        flock(handle, LOCK_EX)
        yield
    finally:
        os.close(handle)
