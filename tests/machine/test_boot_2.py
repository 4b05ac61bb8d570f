"""Second boot: everything in the kernel is gone, and the service brings back what it must. At the end nothing stays behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.hosts import wait_until
from tests.machine.whole import SERVICE, STATE, answers, docker, fetch, inspect, journal, run, unit


@pytest.fixture(scope="module")
def before() -> Any:
    return json.loads(STATE.read_text())


def addresses(container: Any) -> dict[str, tuple[str, str]]:
    networks = container["NetworkSettings"]["Networks"]
    return {name: (n["IPAddress"], n["Gateway"]) for name, n in networks.items()}


def test_this_is_another_boot(before: Any):
    assert Path("/proc/sys/kernel/random/boot_id").read_text() != before["boot"]


def test_the_service_came_up_by_itself():
    assert unit(SERVICE, "ActiveState", "SubState", "Result", "NRestarts") == ["active", "running", "success", "0"]


def test_networks_are_back_with_their_subnets(before: Any):
    for old in before["networks"]:
        (new,) = json.loads(docker("network", "inspect", old["Name"]))
        for key in ("Id", "IPAM", "Options", "Created"):
            assert new[key] == old[key]
    assert "10.123.0.1/24" in run("ip", "-br", "addr")


@pytest.mark.parametrize("name", ["always", "drawn", "unless"])
def test_containers_with_a_restart_policy_run_again_with_their_addresses(before: Any, name: str):
    wait_until(lambda: inspect(name)["State"]["Running"], f"{name} to run", 30)
    assert addresses(inspect(name)) == addresses(before["containers"][name])


@pytest.mark.parametrize("name", ["stopped", "never"])
def test_others_do_not(name: str):
    assert inspect(name)["State"]["Status"] == "exited"


def test_published_ports_and_names_work_again(before: Any):
    wait_until(lambda: answers("http://127.0.0.1:8081/"), "the published port", 20)
    assert fetch("http://127.0.0.1:8081/").startswith("always sees ")
    assert not answers("http://127.0.0.1:8082/"), "of a container that does not run"
    assert "unless sees" in docker("exec", "drawn", "curl", "-sS", "http://friend/")


def test_a_container_that_did_not_run_can_be_started(before: Any):
    docker("start", "never")
    wait_until(lambda: answers("http://127.0.0.1:8082/"), "its port")


def test_nothing_is_wrong_by_the_doctor_and_the_journal():
    run("netengine", "doctor")
    bad = [record["MESSAGE"] for record in journal("--priority", "err")]
    assert bad == []


def test_uninstalling_leaves_no_trace():
    run("systemctl", "stop", "netengine.socket", SERVICE)
    run("netengined", "--cleanup")
    run("scripts/install", "--system", "--uninstall")
    assert run("nft", "list", "ruleset") == ""
    assert [line.split()[0] for line in run("ip", "-br", "link").splitlines()] == ["lo"]
    assert run("ip", "netns", "list") == ""
    for path in ("/etc/systemd/system/netengine.service", "/usr/local/bin/netengine", "/run/netengine"):
        assert not Path(path).exists(), path
    assert "netengine" not in Path("/etc/group").read_text()
