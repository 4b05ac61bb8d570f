"""Real etcd members for tests, each a process in a host of the test."""

from __future__ import annotations

import asyncio
import shutil
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.hosts import REPO, Host, Process, wait_until

CLIENT, PEER = 2379, 2380


def etcd_program() -> str:
    """The machine's etcd, or the one that `scripts/install --test` has unpacked."""
    found = shutil.which("etcd") or shutil.which("etcd", path=str(REPO / ".cache/peers/usr/bin"))
    if found is None:
        pytest.fail("etcd is not here: run `scripts/install --test` (it gets unpacked, not installed)", pytrace=False)
    return found


class EtcdMember:
    """`etcd` on a host at `address`, member `name` of the cluster `members` (address by name)."""

    def __init__(self, host: Host, name: str, members: dict[str, str]) -> None:
        self.host, self.name, self.address = host, name, members[name]
        self.url = f"http://{self.address}:{CLIENT}"
        peers = ",".join(f"{n}=http://{a}:{PEER}" for n, a in members.items())
        peer = f"http://{self.address}:{PEER}"
        self._argv = [
            "etcd",
            "--name",
            name,
            "--data-dir",
            str(host.disk / name),
            "--logger",
            "zap",
            "--log-level",
            "error",
        ]
        self._argv += ["--listen-client-urls", self.url, "--advertise-client-urls", self.url]
        self._argv += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", peers]
        self._argv += ["--heartbeat-interval", "50", "--election-timeout", "500", "--bcrypt-cost", "4"]
        self.process: Process | None = None

    def start(self) -> EtcdMember:
        self.process = self.host.popen(self._argv)
        return self

    def kill(self) -> None:
        assert self.process is not None
        self.process.stop(signal.SIGKILL)
        self.process = None

    def pause(self, paused: bool) -> None:
        """Stop it from running, as a machine that hangs: its connections stay open."""
        assert self.process is not None
        self.process.send(signal.SIGSTOP if paused else signal.SIGCONT)
        if not paused:
            self.process.popen.send_signal(signal.SIGCONT)  # nsenter stops along with what it runs
        stat = Path(f"/proc/{self.process.pid}/stat")
        wait_until(
            lambda: (stat.read_text().rpartition(")")[2].split()[0] == "T") is paused, f"etcd {self.name} is paused"
        )

    def await_health(self) -> None:
        wait_until(lambda: '"health":"true"' in self._health(), f"etcd {self.name} is healthy", 20)

    def _health(self) -> str:
        try:
            return self.host.fetch(self.address, CLIENT, "/health")
        except OSError:
            return ""


@contextmanager
def single(name: str, disk: Path) -> Iterator[EtcdMember]:
    """A cluster of one member, on a host of its own."""
    host = Host(name, disk)
    try:
        member = EtcdMember(host, "m1", {"m1": "127.0.0.1"}).start()
        member.await_health()
        yield member
    finally:
        host.close()


def inside(member: EtcdMember, body: Callable[[], Awaitable[None]]) -> None:
    """Run something on a member's host, for a minute at most."""

    async def bounded() -> None:
        async with asyncio.timeout(60):
            await body()

    member.host.inside(lambda: asyncio.run(bounded()))
