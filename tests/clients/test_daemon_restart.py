"""The daemon ends, by SIGTERM or by kill -9, and comes back: containers, traffic and knowledge are not lost."""

import signal

import pytest

from tests.clients.lab import ECHO, HERE, OUTSIDE, Lab, eventually, python
from tests.daemons import Client

ends = pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])


@ends
def test_traffic_flows_while_the_daemon_is_away_and_after_it_is_back(lab: Lab, docker: Client, end: signal.Signals):
    lab.run("echo", "-p", "7777:7", command=python(ECHO))
    lab.serve("web", "-p", "8080:80")
    with lab.outside.connect(HERE, 7777) as connection:

        def echoes(words: bytes) -> bool:
            connection.sendall(words)
            return connection.recv(100) == words

        assert echoes(b"before")
        lab.daemon.stop(end)
        assert echoes(b"while away")
        assert lab.outside.fetch(HERE, 8080) == f"web sees {OUTSIDE}", "new connections too"
        lab.daemon.start()
        assert echoes(b"after")
    assert lab.outside.fetch(HERE, 8080) == f"web sees {OUTSIDE}"
    assert lab.here.fetch("127.0.0.1", 8080).startswith("web sees")


@ends
def test_containers_are_known_again_and_can_be_used(lab: Lab, docker: Client, end: signal.Signals):
    docker("network", "create", "--subnet", "10.20.0.0/24", "blue")
    identity = lab.serve("web", "--network", "blue", "-p", "8080:80")
    before = docker.inspect("web")
    lab.daemon.restart(end)
    after = docker.inspect("web")
    assert after["State"]["Pid"] == before["State"]["Pid"]
    assert after["NetworkSettings"]["Networks"] == before["NetworkSettings"]["Networks"]
    assert docker("exec", "web", "hostname") == identity[:12]
    lab.serve("next", "--network", "blue")
    assert docker.address("next", "blue") == "10.20.0.3", "the address of the first one is still taken"
    refused = docker.refused("run", "--rm", "-p", "8080:80", "host", "true")
    assert "port is already allocated" in refused.text
    docker("stop", "-t", "2", "web")
    assert not lab.here.reaches(HERE, 8080)


@ends
def test_an_exit_while_the_daemon_is_away_is_not_lost(lab: Lab, docker: Client, end: signal.Signals):
    script = "echo ready; while ! test -e /go/now; do sleep 0.02; done; echo last words; exit 7"
    directory = lab.here.directory / "go"
    directory.mkdir(exist_ok=True)
    (directory / "now").unlink(missing_ok=True)
    lab.run("job", "-v", f"{directory}:/go", "-p", "8080:80", command=["sh", "-c", script])
    lab.run("brief", "--rm", "-v", f"{directory}:/go", command=["sh", "-c", script])
    before = {lab.state(name)["Pid"] for name in ("job", "brief")}
    lab.daemon.stop(end)
    (directory / "now").touch()
    gone = [lab.here.path(f"/proc/{pid}") for pid in before]
    eventually(lambda: not any(path.exists() for path in gone), "the end of both processes")
    lab.daemon.start()
    eventually(lambda: lab.state("job")["Status"] == "exited")
    assert lab.state("job")["ExitCode"] == 7
    assert docker("wait", "job") == "7"
    assert docker("logs", "job").splitlines() == ["ready", "last words"]
    assert not lab.here.reaches(HERE, 8080), "its port is free"
    eventually(lambda: lab.containers() == {"job"}, "--rm is honoured")


@ends
def test_a_log_line_written_while_the_daemon_is_away_is_kept(lab: Lab, docker: Client, end: signal.Signals):
    lab.serve("web", "-p", "8080:80")
    lab.daemon.stop(end)
    lab.here.fetch("127.0.0.1", 8080, "/while-away")
    lab.daemon.start()
    assert "GET /while-away HTTP/1.1" in docker("logs", "web").splitlines()


@ends
def test_networks_and_stopped_containers_are_remembered(lab: Lab, docker: Client, end: signal.Signals):
    docker("network", "create", "--label", "tier=front", "--subnet", "10.20.0.0/24", "blue")
    docker("create", "--name", "web", "--network", "blue", "-p", "8080:80", "host", "true")
    before = docker("network", "inspect", "blue"), docker("inspect", "web")
    lab.daemon.restart(end)
    assert (docker("network", "inspect", "blue"), docker("inspect", "web")) == before


def test_after_a_power_cut_containers_start_again_with_the_addresses_that_they_had(lab: Lab, docker: Client):
    """In whatever order they start: others may know them by these. What starts later takes the next free one."""
    docker("network", "create", "--subnet", "10.20.0.0/24", "blue")
    for name in ("first", "web", "db"):
        lab.serve(name, "--network", "blue", "--restart", "always")
    docker("rm", "-f", "first")
    before = {name: docker.address(name, "blue") for name in ("web", "db")}
    assert before == {"web": "10.20.0.3", "db": "10.20.0.4"}
    pids = [str(lab.state(name)["Pid"]) for name in before]
    lab.daemon.stop(signal.SIGKILL)
    lab.here.run(["kill", "-KILL", *pids], check=True)
    eventually(lambda: not any(lab.here.path(f"/proc/{pid}").exists() for pid in pids), "the end of both processes")
    lab.daemon.start()
    assert {name: docker.address(name, "blue") for name in before} == before
    lab.serve("late", "--network", "blue")
    assert docker.address("late", "blue") == "10.20.0.2"


def test_what_was_taken_away_meanwhile_is_put_back_at_start(lab: Lab, docker: Client):
    lab.serve("web", "-p", "8080:80")
    lab.daemon.stop()
    lab.here.run(["nft", "flush", "ruleset"], check=True)
    lab.here.ip("addr", "flush", "dev", "docker0")
    assert not lab.outside.reaches(HERE, 8080)
    lab.daemon.start()
    assert lab.outside.fetch(HERE, 8080) == f"web sees {OUTSIDE}"
    assert lab.here.fetch("127.0.0.1", 8080).startswith("web sees")


def test_a_restart_changes_nothing_in_the_kernel(lab: Lab, docker: Client):
    docker("network", "create", "blue")
    lab.serve("web", "--network", "blue", "-p", "8080:80")
    before = lab.here.rules(), lab.here.ip("addr"), lab.here.ip("route"), lab.here.namespaces()
    lab.daemon.restart()
    assert (lab.here.rules(), lab.here.ip("addr"), lab.here.ip("route"), lab.here.namespaces()) == before


def test_sigterm_is_a_clean_end(lab: Lab):
    assert lab.daemon.stop(signal.SIGTERM) == 0
    lab.daemon.start()


def test_a_container_with_restart_always_comes_back_with_the_daemon_even_when_it_was_stopped(lab: Lab, docker: Client):
    lab.serve("web", "--restart", "always")
    lab.serve("job", "--restart", "unless-stopped")
    docker("stop", "-t", "1", "web", "job")
    lab.daemon.restart()
    eventually(lambda: lab.state("web")["Running"])
    assert not lab.state("job")["Running"]
