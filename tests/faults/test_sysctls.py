"""Sysctls that others change: nobody tells of it, so they are read again (every half minute; here every half second)."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemons import Daemon
from tests.hosts import Host, wait_until


class _Often(Daemon):
    @property
    def argv(self) -> list[str]:
        return ["env", "NETENGINE_REREAD_SECONDS=0.5", *super().argv]


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    directory = Path(tempfile.mkdtemp(prefix="netengine-sysctls-"))
    host = Host("here", directory)
    made = _Often(host).start()
    try:
        for name in ("box", "own"):
            body = {"Image": "host", "Cmd": ["sleep", "1000"], "HostConfig": {"NetworkMode": "net", "CapAdd": []}}
            if name == "box":
                assert made.request("POST", "/networks/create", {"Name": "net", "EnableIPv6": True}).status == 201
            else:
                body["HostConfig"] = {"NetworkMode": "net", "CapAdd": ["NET_ADMIN"]}
            assert made.request("POST", f"/containers/create?name={name}", body).status == 201
            assert made.request("POST", f"/containers/{name}/start").status == 204
        yield made
        made.cleanup()
    finally:
        host.close()
        shutil.rmtree(directory, ignore_errors=True)


def bridge(daemon: Daemon) -> str:
    return f"br-{daemon.request('GET', '/networks/net').json['Id'][:12]}"


@pytest.mark.parametrize("name", ["ipv4/conf/{}/route_localnet", "ipv6/conf/{}/accept_ra"])
def test_of_the_host(daemon: Daemon, name: str) -> None:
    dotted = f"net/{name.format(bridge(daemon))}".replace("/", ".")
    was = daemon.host.sysctl(dotted)
    daemon.host.sysctl(dotted, "0" if was != "0" else "1")
    wait_until(lambda: daemon.host.sysctl(dotted) == was, "it is as it was")
    line = f"put right: sysctl net/{name.format(bridge(daemon))}"
    wait_until(lambda: re.search(line, daemon.tail()), lambda: f"a line in the log:\n{daemon.tail()}")

    def is_told() -> bool:
        events = daemon.request("GET", f'/events?since=0&until={time.time():.6f}&filters={{"event":["heal"]}}')
        told = [json.loads(one)["Actor"]["Attributes"] for one in events.body.splitlines()]
        return any(one["name"] == "net" and name.format(bridge(daemon)) in one["what"] for one in told)

    wait_until(is_told, "an event")


def inside(daemon: Daemon, container: str, *words: str) -> str:
    argv = ["ip", "netns", "exec", container, "sysctl", *words, "net.ipv6.conf.eth0.accept_ra"]
    return daemon.host.run(argv, check=True).stdout.strip()


def test_inside_a_sandbox(daemon: Daemon) -> None:
    host = daemon.host
    for name in ("own", "box"):
        host.run(["ip", "netns", "exec", name, "sysctl", "-w", "net.ipv6.conf.eth0.accept_ra=2"], check=True)
    wait_until(lambda: inside(daemon, "box", "-n") == "0", "it is as it was")
    assert inside(daemon, "own", "-n") == "2", "a container that may change its own network is left alone"
    assert daemon.request("POST", "/netengine/doctor?fix=1").status == 200
