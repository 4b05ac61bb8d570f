"""What it costs the daemon to listen: processor time for each change that others make, and while nothing happens at all."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

from tests.daemons import Daemon
from tests.hosts import Host, wait_until

_TICK = 1000 / os.sysconf("SC_CLK_TCK")  # milliseconds


class _Often(Daemon):
    """Reads sysctls again once a second in place of every half minute, to make it measurable."""

    @property
    def argv(self) -> list[str]:
        return ["env", "NETENGINE_REREAD_SECONDS=1", *super().argv]


def measure(sandboxes: int, changes: int, seconds: int) -> dict[str, float]:
    """Microseconds for each change, and milliseconds for each look at the sysctls, by what it is."""
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as directory:
        host = Host("listening", Path(directory))
        try:
            with_sandboxes(Daemon(host), sandboxes, lambda daemon: found.update(_events(daemon, changes)))
            with_sandboxes(_Often(host), sandboxes, lambda daemon: found.update(_looks(daemon, seconds)))
        finally:
            host.close()
    return found


def with_sandboxes(daemon: Daemon, many: int, measure: object) -> None:
    """Run a daemon with so many sandboxes on one network with IPv6, and measure."""
    daemon.start()
    try:
        _must(daemon, "/networks/create", {"Name": "net", "EnableIPv6": True})
        for number in range(many):
            body = {"Image": "sandbox", "HostConfig": {"NetworkMode": "net"}}
            _must(daemon, f"/containers/create?name=s{number}", body)
            _must(daemon, f"/containers/s{number}/start")
        assert callable(measure)
        measure(daemon)
    finally:
        daemon.cleanup()


def _events(daemon: Daemon, changes: int) -> dict[str, float]:
    host = daemon.host
    host.ip("link", "add", "other0", "type", "bridge")
    links = "".join(f"link set other0 mtu {1400 + number % 2}\n" for number in range(changes))
    add, remove = (
        "".join(f"address {verb} 198.18.{n >> 8}.{n & 255}/32 dev lo\n" for n in range(changes // 2))
        for verb in ("add", "del")
    )
    return {
        "a link of the host is changed": _per_change(daemon, [], links, changes),
        "an address in a sandbox is added or deleted": _per_change(daemon, ["-n", "s0"], add + remove, changes),
    }


def _per_change(daemon: Daemon, where: list[str], batch: str, changes: int) -> float:
    """By what the daemon uses until it has been quiet for a second."""
    _await_quiet(daemon)
    before = _used(daemon)
    daemon.host.run(["ip", *where, "-batch", "-"], stdin=batch, check=True)
    _await_quiet(daemon)
    return (_used(daemon) - before) * 1000 / changes


def _looks(daemon: Daemon, seconds: int) -> dict[str, float]:
    before = _used(daemon)
    time.sleep(seconds)
    return {"sysctls are read again": (_used(daemon) - before) / seconds}


def _await_quiet(daemon: Daemon) -> None:
    last = [-1.0, time.monotonic()]

    def quiet() -> bool:
        now = _used(daemon)
        if now != last[0]:
            last[:] = [now, time.monotonic()]
        return time.monotonic() - last[1] > 1.0

    wait_until(quiet, "the daemon is idle", 60)


def _used(daemon: Daemon) -> float:
    """Milliseconds of processor time so far."""
    assert daemon.process is not None
    fields = Path(f"/proc/{daemon.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) * _TICK


def _must(daemon: Daemon, path: str, body: object = None) -> None:
    answer = daemon.request("POST", path, body)
    assert answer.status < 300, answer.body


def table(found: dict[int, dict[str, float]]) -> list[str]:
    """By number of sandboxes."""
    lines = ["| processor time of the daemon | " + " | ".join(f"{many} sandboxes" for many in found) + " |"]
    lines.append("|---" * (1 + len(found)) + "|")
    for what in next(iter(found.values())):
        unit = "ms" if what == "sysctls are read again" else "µs"
        lines.append(f"| {what} | " + " | ".join(f"{figures[what]:.0f} {unit}" for figures in found.values()) + " |")
    return lines
