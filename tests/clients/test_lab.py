"""`netengine lab` as a person types it, on a machine of the test's own."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.hosts import Host, wait_until

RUN = "/run/netengine-lab"


class Typed:
    """The command on a host."""

    def __init__(self, host: Host) -> None:
        self.host = host

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "netengine.cli.main", "lab", *words]
        return self.host.run(argv, timeout=60, env={"NETENGINE_LAB_PATIENCE": "60"})

    def __call__(self, *words: str) -> str:
        done = self.run(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def refused(self, *words: str) -> str:
        done = self.run(*words)
        assert done.returncode == 1, done.stdout
        return done.stderr.strip()

    def reaches(self, source: str, address: str) -> bool:
        return self.run("exec", source, "ping", "-c", "1", "-i", "0.3", "-w", "2", address).returncode == 0


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    host = Host("machine", tmp_path_factory.mktemp("lab"))
    try:
        yield host
    finally:
        host.close()


@pytest.fixture
def lab(machine: Host) -> Iterator[Typed]:
    before = (machine.links(), machine.rules(), machine.mounts(), machine.pids())
    typed = Typed(machine)
    yield typed
    typed("down")
    wait_until(lambda: machine.pids() == before[3], lambda: f"processes are left: {machine.pids()}")
    assert (machine.links(), machine.rules(), machine.mounts()) == before[:3], "something is left"
    assert not machine.path(RUN).exists()


def test_three_hosts_see_each_other_until_they_are_cut_off(lab: Typed, machine: Host) -> None:
    assert [line.split()[:2] for line in lab("up", "3").splitlines()] == [
        ["h1", "192.168.99.1"],
        ["h2", "192.168.99.2"],
        ["h3", "192.168.99.3"],
    ]
    assert machine.links() == {"lo"}, "the machine's own network is not touched"
    assert lab("exec", "h2", "hostname") == "h2"
    assert lab.reaches("h1", "192.168.99.2") and lab.reaches("h3", "192.168.99.1")
    lab("partition", "h2", "h1")
    assert not lab.reaches("h1", "192.168.99.2") and not lab.reaches("h2", "192.168.99.1")
    assert lab.reaches("h3", "192.168.99.1") and lab.reaches("h3", "192.168.99.2")
    shown = [line.split() for line in lab("status").splitlines()]
    assert [row[3] for row in shown[1:]] == ["h2", "h1", "-"]
    assert "cut off from each other already" in lab.refused("partition", "h1", "h2")
    assert lab("heal") == "h1 h2"
    assert lab.reaches("h1", "192.168.99.2")
    assert "are not cut off" in lab.refused("heal", "h1", "h2")


def test_each_host_has_a_daemon_of_its_own(lab: Typed, machine: Host) -> None:
    lab("up", "2", "--subnet", "10.77.0.0/29")
    assert lab("exec", "h1", "docker", "run", "-d", "--name", "one", "-p", "80:80", "sandbox")
    assert lab("exec", "h1", "docker", "ps", "--format", "{{.Names}}") == "one"
    assert lab("exec", "h2", "docker", "ps", "--format", "{{.Names}}") == ""
    assert "one" in machine.run(["docker", "-H", f"unix://{RUN}/h1.sock", "ps"], check=True).stdout
    assert lab.run("exec", "h2", "sh", "-c", "exit 7").returncode == 7


def test_a_host_whose_daemon_or_first_process_is_gone_is_told(lab: Typed, machine: Host) -> None:
    lab("up", "2")
    daemon = int(lab("exec", "h1", "cat", "/run/netengined.pid"))
    lab("exec", "h1", "kill", "-9", str(daemon))
    assert "daemon away" in lab("status")
    first = json.loads(machine.path(f"{RUN}/lab.json").read_text())["hosts"]["h2"]["pid"]
    machine.run(["kill", "-9", str(first)], check=True)
    wait_until(lambda: "dead" in lab("status"), "h2 is dead")
    assert "host h2 is dead" in lab.refused("exec", "h2", "true")


def test_bad_input_is_refused_before_anything_is_made(lab: Typed, machine: Host) -> None:
    assert "invalid number of hosts 'many'" in lab.refused("up", "many")
    assert "a lab has 1 to 32 hosts, not 0" in lab.refused("up", "0")
    assert "has no room for 9 hosts" in lab.refused("up", "9", "--subnet", "10.0.0.0/29")
    assert "invalid subnet 'fd00::1/64'" in lab.refused("up", "2", "--subnet", "fd00::1/64")
    assert "contradict each other" in lab.refused("up", "2", "--ipv6", "--subnet", "10.0.0.0/24")
    assert "cannot have its addresses" in lab.refused("up", "2", "--subnet", "fe80::/64")
    assert "no lab is up" in lab.refused("status")
    assert machine.pids() == {}
    lab("up", "1")
    assert "a lab is up already" in lab.refused("up", "1")
    assert "no host 'h9' in the lab: there are h1" in lab.refused("exec", "h9", "true")
    assert "cannot be cut off from itself" in lab.refused("partition", "h1", "h1")


def test_what_cannot_be_built_leaves_nothing(lab: Typed, machine: Host) -> None:
    """An nft that fails stands in for a switch that cannot be made."""
    broken = machine.path("/run/bin")
    broken.mkdir()
    (broken / "nft").write_text("#!/bin/sh\nexit 3\n")
    (broken / "nft").chmod(0o755)
    done = machine.run(
        [sys.executable, "-m", "netengine.cli.main", "lab", "up", "2"], env={"PATH": f"/run/bin:{os.environ['PATH']}"}
    )
    assert done.returncode == 1 and "on switch: nft -f -" in done.stderr
    shutil.rmtree(broken)
    assert "no lab is up" in lab.refused("status")
