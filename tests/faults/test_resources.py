"""Resources that run out and partners that hang: refused or bounded, said, and over when the cause is."""

from __future__ import annotations

import json
import os
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from netengine.api.stdcopy import Demultiplexer
from tests.daemons import Answer, Daemon
from tests.faults.harness import FaultLab, undo
from tests.hosts import Host, wait_until

MakeDaemon = Callable[..., Daemon]


@pytest.fixture
def lab(fault_lab: FaultLab) -> Iterator[FaultLab]:
    yield fault_lab
    undo(fault_lab)


def test_without_descriptors_changes_are_refused_and_nothing_is_left(lab: FaultLab) -> None:
    daemon = lab.daemon
    assert daemon.process is not None
    pid = daemon.process.pid
    lab.ask("POST", "/networks/create", {"Name": "net"})
    lab.ask("POST", "/containers/create?name=box", {"Image": "sandbox", "HostConfig": {"NetworkMode": "net"}})
    clean = lab.settled()
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    # What the daemon keeps for long it moves to 2,048 and above; a sandbox takes some low numbers on the way there.
    low = [number for number in map(int, os.listdir(f"/proc/{pid}/fd")) if number < 2048]
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (max(low) + 3, before[1]))  # one is the connection that asks
    try:
        refused = daemon.request("POST", "/containers/box/start")
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
    assert refused.status == 500, refused.body
    assert "open files" in refused.message or "descriptor" in refused.message, refused.message
    wait_until(lambda: lab.facts() == clean, lambda: f"{set(lab.facts()) ^ set(clean)}")
    lab.ask("POST", "/containers/box/start")
    assert lab.doctor() == []


def test_a_runtime_that_hangs_holds_up_nobody_else(host: Host, make_daemon: MakeDaemon) -> None:
    programs = host.directory / "programs"
    programs.mkdir()
    hang = programs / "runc"
    hang.write_text('#!/bin/sh\ncase "$*" in *create*) exec sleep 1000 ;; esac\nexec /usr/sbin/runc "$@"\n')
    hang.chmod(0o755)
    daemon = make_daemon(host, start=False)

    class Hanging(Daemon):
        @property
        def argv(self) -> list[str]:
            return ["env", f"PATH={programs}:/usr/sbin:/usr/bin:/sbin:/bin", *super().argv]

    daemon.__class__ = Hanging
    daemon.start()
    body = {"Image": "host", "Cmd": ["true"]}
    assert daemon.request("POST", "/containers/create?name=box", body).status == 201
    answers: list[Answer] = []
    start = threading.Thread(
        target=lambda: answers.append(daemon.request("POST", "/containers/box/start", timeout=120))
    )
    start.start()
    hung = wait_until(lambda: [pid for pid, command in host.pids().items() if command == "sleep 1000"], "it hangs")
    assert daemon.request("POST", "/networks/create", {"Name": "other"}, timeout=5).status == 201
    assert daemon.request("GET", "/containers/json?all=1", timeout=5).status == 200
    assert daemon.request("DELETE", "/networks/other", timeout=5).status == 204
    assert not answers
    for pid in hung:  # as an administrator would; else it is given up after a minute (CREATE_SECONDS)
        host.run(["kill", "-9", *_inner(host, pid)], check=True)
    start.join(30)
    assert answers and answers[0].status >= 400 and "OCI runtime" in answers[0].message, answers
    assert daemon.request("GET", "/netengine/doctor").json["Differences"] == []
    assert daemon.request("DELETE", "/containers/box").status == 204


def _inner(host: Host, pid: int) -> list[str]:
    """The PID inside the host of a process that the machine calls `pid`."""
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("NSpid:"))
    return [line.split()[2]]


def test_clients_that_read_nothing_are_no_burden(lab: FaultLab) -> None:
    assert lab.daemon.process is not None
    status = Path(f"/proc/{lab.daemon.process.pid}/status")

    def memory() -> int:
        return int(next(line for line in status.read_text().splitlines() if line.startswith("VmRSS")).split()[1])

    deaf = [lab.daemon.connect() for _ in range(20)]
    for client in deaf:
        client.sendall(b"GET /events HTTP/1.1\r\nHost: here\r\n\r\n")
    labels = {"filler": "x" * 4000}
    before = memory()
    for _ in range(40):
        lab.ask("POST", "/networks/create", {"Name": "net", "Labels": labels})
        lab.ask("DELETE", "/networks/net")
    assert memory() - before < 20 << 10
    for client in deaf:
        client.close()
    lines = lab.ask("GET", "/events?since=1&until=2").body
    assert lines == b"" or json.loads(lines.splitlines()[0])
    assert lab.doctor() == []


# A line of 8 KiB every so often: what `yes` would write in a second fills a disk.
_TALKER = 'line=$(head -c 8000 /dev/zero | tr "\\0" x); n=0; while [ $n -lt 3000 ]; do echo $line; n=$((n+1)); done; echo over'


def _memory(lab: FaultLab) -> int:
    assert lab.daemon.process is not None
    status = Path(f"/proc/{lab.daemon.process.pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])


def _deaf(lab: FaultLab, many: int, request: str) -> list[socket.socket]:
    """Clients that ask, and read nothing of the answer but its first byte."""
    asking = [lab.daemon.connect() for _ in range(many)]
    for client in asking:
        client.sendall(f"{request} HTTP/1.1\r\nHost: here\r\nContent-Length: 0\r\n\r\n".encode())
    for client in asking:
        assert client.recv(1) == b"H"
    return asking


def test_output_that_nobody_reads_is_held_nowhere(lab: FaultLab) -> None:
    """24 MB, asked for by 12 who follow the log and 4 who are attached. Those attached hold up the container, as a pipe that is
    full does; they cost the daemon what a few buffers hold, and others nothing."""
    config = {"Image": "host", "Cmd": ["sh", "-c", _TALKER], "StopTimeout": 0}
    lab.ask("POST", "/containers/create?name=box", config)
    lab.ask("POST", "/containers/create?name=other", {**config, "Cmd": ["sh", "-c", _TALKER]})
    try:
        before = _memory(lab)
        lab.ask("POST", "/containers/box/start")
        following = _deaf(lab, 12, "GET /containers/box/logs?follow=1&stdout=1")
        attached = _deaf(lab, 4, "POST /containers/other/attach?stream=1&stdout=1")
        lab.ask("POST", "/containers/other/start")

        def over() -> bool:
            return b"over" in lab.ask("GET", "/containers/box/logs?stdout=1&tail=1").body

        wait_until(over, "the container has written everything, whoever reads it", 60)
        slowest = 0.0
        for _ in range(10):
            began = time.monotonic()
            lab.ask("GET", "/containers/json")
            slowest = max(slowest, time.monotonic() - began)
        assert slowest < 2
        assert _memory(lab) - before < 16 << 10, "KiB; 16 clients with 24 MB each would be 400 MB"
        assert b"over" not in lab.ask("GET", "/containers/other/logs?stdout=1&tail=1").body, "it is held up"
        whole = Demultiplexer().feed(lab.ask("GET", "/containers/box/logs?stdout=1").body)
        assert sum(piece.count(b"x") for _, piece in whole) == 3000 * 8000
        lab.ask("DELETE", "/containers/other?force=1")
        for client in following + attached:
            client.close()
    finally:
        for name in ("box", "other"):
            lab.daemon.request("DELETE", f"/containers/{name}?force=1")
    assert lab.doctor() == []


def test_events_that_were_lost_are_made_up_for_by_a_look_at_everything(lab: FaultLab) -> None:
    """More events than the sockets hold (ENOBUFS), and what is taken away while nobody can hear it."""
    lab.ask("POST", "/networks/create", {"Name": "net"})
    lab.ask("POST", "/containers/create?name=box", {"Image": "sandbox", "HostConfig": {"NetworkMode": "net"}})
    lab.ask("POST", "/containers/box/start")
    lab.here.ip("link", "add", "noise0", "type", "bridge")
    noise = "".join(f"link set noise0 mtu {1000 + number % 500}\n" for number in range(6000))
    with lab.ask_first("GET", "/_ping"):
        lab.here.run(["ip", "-batch", "-"], stdin=noise, check=True)
        lab.here.ip("-n", "box", "route", "delete", "default")
    assert _dropped(lab) > 0, "events were lost"
    wait_until(lambda: "default" in lab.here.ip("-n", "box", "route"), "the route is back")
    assert lab.doctor() == []
    # And it hears again.
    lab.here.ip("-n", "box", "route", "delete", "default")
    wait_until(lambda: "default" in lab.here.ip("-n", "box", "route"), "the route is back")
    lab.here.ip("link", "delete", "noise0")


def _dropped(lab: FaultLab) -> int:
    """How many messages the netlink sockets of the host have lost."""
    lines = lab.here.run(["cat", "/proc/net/netlink"], check=True).stdout.splitlines()
    column = lines[0].split().index("Drops")
    return sum(int(line.split()[column]) for line in lines[1:])
