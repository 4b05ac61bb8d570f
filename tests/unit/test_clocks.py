"""The wall clock is asked for moments that people read, never for how long something takes or may take: it jumps.

Read from the source, for the whole of netengine. Deadlines, delays, leases and back-off go by the event loop's clock, by
`time.monotonic`, or by CLOCK_BOOTTIME where they outlive the daemon. What a clock that jumps does to a daemon that runs is
shown by tests/faults/test_clock.py.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "netengine"
WALL = ("time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "datetime.today", "date.today")
NOW_WITHOUT_ARGUMENTS = ("time.gmtime", "time.localtime", "time.ctime", "time.strftime")

ALLOWED = {
    "api/selection.py": "`until=10m`: how long ago something was created",
    "api/wire.py": "`Up 5 minutes`: for people",
    "cluster/certificates.py": "from when to when a certificate is valid",
    "cluster/control.py": "whether a certificate has expired; what clock a joiner is told",
    "cluster/joining.py": "says both clocks when one is wrong",
    "cluster/revival.py": "whether a certificate has expired",
    "cli/containers.py": "`2 hours ago`: for people",
    "cli/images.py": "`2 hours ago`: for people",
    "cli/moments.py": "`--since 10m`: a moment that the daemon compares with those of its events and logs",
    "engine/swarm/membership.py": "when a certificate is to be renewed",
    "engine/core.py": "when something was created, started, ended",
    "engine/events.py": "the time of an event; `until` is a moment, and the stream waits for that moment",
    "engine/overlay/encryption.py": "how old a key is that outlives the daemon and the machine's running",
    "engine/lifecycle.py": "when a container without a process was stopped",
    "http/heads.py": "the header Date of an answer",
    "kernel/dhcp.py": "undoes what pyroute2's client takes from the wall clock",
    "runtime/images.py": "when an image was imported",
    "runtime/logs.py": "`until` is a moment, and following waits for that moment",
    "runtime/monitor.py": "when a container ended whose end nobody saw",
    "store/sqlite.py": "the name under which a damaged database is kept",
}
"""The modules that may ask, and for what."""


def asks(path: Path) -> Iterator[int]:
    """The lines on which a module asks for the wall clock, or takes it under another name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "time":
            if {"time", "time_ns", "gmtime", "localtime"} & {alias.name for alias in node.names}:
                yield node.lineno
        elif isinstance(node, ast.Attribute):
            name = ast.unparse(node)
            if name.removeprefix("datetime.").endswith(WALL) or name in WALL or name == "time.CLOCK_REALTIME":
                yield node.lineno
        elif (
            isinstance(node, ast.Call)
            and (called := ast.unparse(node.func)) in NOW_WITHOUT_ARGUMENTS
            and len(node.args) <= (called == "time.strftime")
        ):
            yield node.lineno


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_who_asks_the_wall_clock_is_known(path: Path) -> None:
    lines = list(asks(path))
    assert not lines or str(path.relative_to(SOURCE)) in ALLOWED, f"{path.name}:{lines}: durations go by time.monotonic"


def test_the_list_is_as_long_as_it_must_be() -> None:
    assert sorted(name for name in ALLOWED if not list(asks(SOURCE / name))) == []
