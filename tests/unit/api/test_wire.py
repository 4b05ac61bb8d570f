"""Texts and forms that the API shows, as docker prints them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from netengine.api import wire
from netengine.model import ContainerState, PublishedPort
from tests.unit.engine.model import container, running


def ago(**delta: float) -> str:
    return f"{datetime.now(UTC) - timedelta(**delta):%Y-%m-%dT%H:%M:%S.%f}000Z"


@pytest.mark.parametrize(
    ("delta", "words"),
    [
        ({"seconds": 0}, "Less than a second"),
        ({"seconds": 1.2}, "1 second"),
        ({"seconds": 59}, "59 seconds"),
        ({"seconds": 61}, "About a minute"),
        ({"minutes": 2.1}, "2 minutes"),
        ({"minutes": 59.9}, "59 minutes"),
        ({"minutes": 61}, "About an hour"),
        ({"hours": 2}, "2 hours"),
        ({"hours": 47}, "47 hours"),
        ({"days": 2.1}, "2 days"),
        ({"days": 13.9}, "13 days"),
        ({"days": 15}, "2 weeks"),
        ({"days": 59}, "8 weeks"),
        ({"days": 65}, "2 months"),
        ({"days": 364}, "12 months"),
        ({"days": 731}, "2 years"),
    ],
)
def test_how_long_ago(delta: dict[str, float], words: str) -> None:
    assert wire._ago(ago(**delta)) == words


@pytest.mark.parametrize(
    ("fields", "minutes", "words"),
    [
        ({}, 0, "Created"),
        ({"status": "running"}, 5.5, "Up 5 minutes"),
        ({"status": "paused"}, 5.5, "Up 5 minutes (Paused)"),
        ({"status": "exited", "exit_code": 137}, 126, "Exited (137) 2 hours ago"),
        ({"status": "exited", "exit_code": 1}, 0, "Exited (1)"),
    ],
)
def test_the_status_column(fields: dict[str, Any], minutes: float, words: str) -> None:
    made = container("web")
    made.state = ContainerState(**fields)
    if minutes:
        made.state.started_at = made.state.finished_at = ago(minutes=minutes)
    assert wire.status(made) == words


def published(**fields: Any) -> PublishedPort:
    return PublishedPort(**{"host_ip": "0.0.0.0", "host_port": 8080, "container_port": 80, "protocol": "tcp", **fields})


def test_ports_of_a_running_container() -> None:
    web = running(container("web", config={"exposed_ports": {"80/tcp": {}, "53/udp": {}, "9": {}}}))
    web.ports = [published(), published(host_ip="127.0.0.1", host_port=8081)]
    assert wire.ports(web) == [
        {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
        {"IP": "127.0.0.1", "PrivatePort": 80, "PublicPort": 8081, "Type": "tcp"},
        {"PrivatePort": 53, "Type": "udp"},
        {"PrivatePort": 9, "Type": "tcp"},
    ]
    assert wire.port_map(web) == {
        "80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}, {"HostIp": "127.0.0.1", "HostPort": "8081"}],
        "53/udp": None,
        "9/tcp": None,
    }


def test_a_stopped_container_has_no_ports() -> None:
    web = container("web", config={"exposed_ports": {"80/tcp": {}}})
    web.ports = [published()]
    assert wire.ports(web) == [] and wire.port_map(web) == {}


def test_the_state_object() -> None:
    web = container("web")
    web.state = ContainerState(status="exited", exit_code=2, error="no", oom_killed=True)
    assert wire.state(web) == {
        "Status": "exited",
        "Running": False,
        "Paused": False,
        "Restarting": False,
        "OOMKilled": True,
        "Dead": False,
        "Pid": 0,
        "ExitCode": 2,
        "Error": "no",
        "StartedAt": "0001-01-01T00:00:00Z",
        "FinishedAt": "0001-01-01T00:00:00Z",
    }


def test_a_paused_container_runs_too() -> None:
    web = container("web")
    web.state = ContainerState(status="paused")
    assert (wire.state(web)["Running"], wire.state(web)["Paused"]) == (True, True)


def test_mounts() -> None:
    web = container("web", host={"binds": ["/srv:/data:ro", "/tmp:/t"], "mounts": [{"Type": "tmpfs", "Target": "/x"}]})
    assert [(m["Source"], m["Destination"], m["RW"]) for m in wire.mounts(web)] == [
        ("/srv", "/data", False),
        ("/tmp", "/t", True),
    ]
