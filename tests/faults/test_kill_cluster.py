"""kill -9 of the daemon while its host comes into a cluster: it is a node or it is none, and it can come in again."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.etcd_members import etcd_program
from tests.daemons import Daemon
from tests.hosts import Host, wait_until, wire

HERE, THERE = "192.0.2.1", "192.0.2.2"
SAMPLE = 3
"""Points tried of each way in, the last among them."""


class Mortal(Daemon):
    """A daemon with failpoints, on a host that has etcd."""

    def __init__(self, host: Host, directory: Path) -> None:
        super().__init__(host, "--log-level=debug")
        self.points = directory / f"{host.name}-points"
        self.points.mkdir()

    @property
    def argv(self) -> list[str]:
        path = f"PATH={Path(etcd_program()).parent}:/usr/sbin:/usr/bin:/sbin:/bin"
        return ["env", path, f"NETENGINE_FAILPOINTS={self.points}", *super().argv]

    def swarm(self) -> dict[str, Any]:
        return dict(self.request("GET", "/info").json["Swarm"])

    def etcd(self) -> list[int]:
        return [pid for pid, command in self.host.pids().items() if command.startswith("etcd ") or "/etcd " in command]

    def is_node(self, manager: bool) -> bool:
        seen = self.swarm()
        if seen["LocalNodeState"] != "active" or seen["Error"] or seen["ControlAvailable"] is not manager:
            return False
        return not manager or self.request("GET", "/nodes").status == 200

    def is_none(self) -> bool:
        """Nothing of a cluster is left: no file, no process."""
        left = self.host.path(str(self.data_root / "cluster"))
        return self.swarm()["LocalNodeState"] == "inactive" and not left.exists() and not self.etcd()

    def leave(self) -> None:
        if not self.is_none():
            assert self.request("POST", "/swarm/leave?force=1").status == 200
            wait_until(self.is_none, lambda: f"it has left: {self.swarm()}", 30)

    def dies(self, number: int, path: str, body: dict[str, Any]) -> list[str]:
        """Ask for something and die at that point of it; the points until then. 0: nothing happens."""
        (self.points / "reached").unlink(missing_ok=True)
        (self.points / "arm").write_text(str(number))
        try:
            answer = self.request("POST", path, body, timeout=60)
            assert number == 0 and answer.status == 200, f"it survived point {number}: {answer.body!r}"
        except (OSError, http.client.HTTPException):
            assert number, self.tail()
        (self.points / "arm").unlink()
        return (self.points / "reached").read_text().splitlines()

    def back(self) -> None:
        self.stop()
        self.start()


class Pair:
    """`here` is the manager of a cluster, or about to be; `there` comes in."""

    def __init__(self, directory: Path) -> None:
        self.hosts = [Host("here", directory), Host("there", directory)]
        wire(*self.hosts)
        self.here, self.there = (Mortal(host, directory) for host in self.hosts)
        for daemon in (self.here, self.there):
            daemon.start()

    def close(self) -> None:
        for daemon in (self.here, self.there):
            daemon.cleanup()
        for host in self.hosts:
            host.close()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    found = Pair(tmp_path_factory.mktemp("pair"))
    try:
        yield found
    finally:
        found.close()


INIT = {"ListenAddr": "0.0.0.0:2377", "AdvertiseAddr": HERE, "Spec": {}}


def sample(reached: list[str]) -> list[int]:
    ours = [n for n, name in enumerate(reached, 1) if name.startswith("cluster:")]
    step = max(1, len(ours) // SAMPLE)
    return ours[step - 1 :: step]


def test_a_cluster_is_begun_or_it_is_not(pair: Pair) -> None:
    here = pair.here
    reached = here.dies(0, "/swarm/init", INIT)
    here.leave()
    for number in sample(reached):
        here.dies(number, "/swarm/init", INIT)
        here.back()
        known = wait_until(
            lambda: "a node" if here.is_node(True) else "none" if here.is_none() else "",
            lambda at=number: f"killed at {reached[at - 1]!r}: {here.swarm()} {here.tail()}",
            40,
        )
        if known == "none":
            assert here.request("POST", "/swarm/init", INIT, timeout=60).status == 200
        here.leave()


@pytest.mark.parametrize("role", ["Worker", "Manager"])
def test_a_host_has_joined_or_it_has_not(pair: Pair, role: str) -> None:
    here, there, manager = pair.here, pair.there, role == "Manager"
    here.leave()
    assert here.request("POST", "/swarm/init", INIT, timeout=60).status == 200
    token = here.request("GET", "/swarm").json["JoinTokens"][role]
    body = {"ListenAddr": "0.0.0.0:2377", "AdvertiseAddr": THERE, "RemoteAddrs": [HERE], "JoinToken": token}

    def settled() -> str:
        return "a node" if there.is_node(manager) else "none" if there.is_none() else ""

    def out() -> None:
        there.leave()
        for node in here.request("GET", "/nodes").json:
            if not node.get("ManagerStatus", {}).get("Leader"):
                gone = here.request("DELETE", f"/nodes/{node['ID']}?force=1", timeout=60)
                assert gone.status in (200, 404), gone.message

    reached = there.dies(0, "/swarm/join", body)
    wait_until(lambda: there.is_node(manager), lambda: f"it is a node: {there.swarm()}", 40)
    out()
    for number in sample(reached):
        there.dies(number, "/swarm/join", body)
        there.back()
        at = reached[number - 1]
        known = wait_until(settled, lambda at=at: f"killed at {at!r}: {there.swarm()} {there.tail()}", 60)
        if known == "none":
            answer = there.request("POST", "/swarm/join", body, timeout=60)
            assert answer.status == 200, f"killed at {at!r}: {answer.message}"
        out()
    here.leave()
