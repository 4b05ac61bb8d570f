"""netengined as a process: what it prints, when it returns, what it holds while it runs and leaves behind when it stops.

The API server is replaced by one that only says it is ready; root and the host checks are granted. So this needs no privileges.
"""

from __future__ import annotations

import os
import signal
import socket
import stat
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEADLINE = 20.0  # seconds

DRIVER = """
import asyncio, os, sys, types
from netengine import daemon, hostcheck
from netengine.errors import Unavailable

os.geteuid = lambda: 0
hostcheck.check = lambda config: []
server = types.ModuleType("netengine.api.server")

async def serve(config, listeners, on_ready, stop):
    mode = os.environ.get("FAKE_SERVER", "")
    if mode == "refuse":
        raise Unavailable("the fake server has no store")
    if mode == "crash":
        raise ZeroDivisionError("the fake server divides")
    if mode == "die":
        os._exit(7)
    on_ready()
    await stop.wait()
    if mode == "hang":
        print("hanging", flush=True)
        await asyncio.Event().wait()

def cleanup(config):
    return ["removed nothing from " + str(config.data_root)]

server.serve, server.cleanup = serve, cleanup
sys.modules["netengine.api.server"] = server
sys.exit(daemon.main())
"""


class Host:
    """Directories of one daemon, and the command line that uses them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.socket = root / "run" / "api.sock"
        self.pidfile = root / "run" / "netengined.pid"
        self.log = root / "data" / "netengined.log"
        self.config = root / "daemon.json"
        self.config.write_text("{}")
        self.flags = [f"--host=unix://{self.socket}", f"--data-root={root}/data", f"--exec-root={root}/run"]
        self.flags += [f"--config-file={self.config}"]

    def command(self, *flags: str) -> list[str]:
        return [sys.executable, "-c", DRIVER, *self.flags, *flags]

    def environment(self, **extra: str) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(ROOT), **extra}

    def run(self, *flags: str, **extra: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*flags), env=self.environment(**extra), capture_output=True, text=True, timeout=DEADLINE
        )

    def start(self, *flags: str, **extra: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            self.command(*flags),
            env=self.environment(**extra),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        for line in process.stderr:
            if "serves on" in line:
                break
        return process

    def pid(self) -> int:
        return int(self.pidfile.read_text())


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    made = Host(tmp_path)
    yield made
    with socket.socket(
        socket.AF_UNIX
    ) as client:  # a daemon that a failed test left: the socket says who, a file may lie
        if client.connect_ex(str(made.socket)) == 0:
            os.kill(
                struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0], signal.SIGKILL
            )


@pytest.fixture
def daemon(host: Host) -> Iterator[subprocess.Popen[str]]:
    process = host.start()
    yield process
    process.kill()
    process.communicate()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.01)


def test_validate_says_ok_and_stops(host: Host) -> None:
    done = host.run("--validate")
    assert (done.returncode, done.stdout, done.stderr) == (0, "configuration OK\n", "")
    assert not (host.root / "data").exists()


def test_validate_names_every_problem_and_fails(host: Host) -> None:
    host.config.write_text('{"mtu": 1, "fixed_cidr": "x"}')
    done = host.run("--validate")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        f"netengined: unable to configure the netengine daemon with file {host.config}:",
        "  mtu: 1 is out of range; it must be 68 to 65535 bytes, or 0 for the default of 1500",
        "  fixed_cidr: unknown directive; did you mean fixed-cidr?",
    ]


def test_heavy_modules_are_not_loaded_for_validate(host: Host) -> None:
    code = "import sys; from netengine import daemon; daemon.main(); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code, "--validate", f"--config-file={host.config}"],
        env=host.environment(),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert not {"httptools", "pyroute2", "nftables"} & set(done.stdout.split())


def test_without_root_it_says_so(tmp_path: Path) -> None:
    code = "import os, sys; os.geteuid = lambda: 1000; from netengine import daemon; sys.exit(daemon.main())"
    command = [sys.executable, "-c", code, "--config-file=/dev/null"]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=DEADLINE
    )
    assert done.returncode == 1
    assert "needs to be started as root" in done.stderr


def test_it_holds_socket_pidfile_and_locks_and_leaves_none_of_them(host: Host, daemon: subprocess.Popen[str]) -> None:
    assert stat.S_IMODE(host.socket.stat().st_mode) == 0o660
    assert host.pid() == daemon.pid
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(host.socket))
    daemon.send_signal(signal.SIGTERM)
    assert daemon.wait(DEADLINE) == 0
    left = sorted(str(path.relative_to(host.root)) for path in host.root.rglob("*") if not path.is_dir())
    assert left == ["daemon.json"]


def test_sighup_is_ignored_and_said(host: Host, daemon: subprocess.Popen[str]) -> None:
    daemon.send_signal(signal.SIGHUP)
    assert daemon.stderr is not None
    assert "SIGHUP is ignored" in daemon.stderr.readline()
    assert daemon.poll() is None


def test_a_second_signal_ends_a_daemon_that_hangs(host: Host) -> None:
    process = host.start(FAKE_SERVER="hang")
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    assert process.stdout.readline() == "hanging\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(DEADLINE) == 128 + signal.SIGINT
    process.communicate()


def test_a_second_daemon_on_the_data_directory_is_refused(host: Host, daemon: subprocess.Popen[str]) -> None:
    second = host.run(f"--pidfile={host.root}/other.pid", f"--host=unix://{host.root}/other/x.sock")
    assert second.returncode == 1
    assert f"a netengined with pid {daemon.pid} is already running" in second.stderr
    assert "netengined.lock" in second.stderr


def test_a_second_daemon_on_the_run_directory_is_refused(host: Host, daemon: subprocess.Popen[str]) -> None:
    second = host.run(f"--data-root={host.root}/other")
    assert second.returncode == 1
    assert f"it holds {host.pidfile}" in second.stderr


def test_a_served_socket_is_refused_with_path_and_pid(host: Host, daemon: subprocess.Popen[str]) -> None:
    second = host.run(f"--data-root={host.root}/other", f"--exec-root={host.root}/run2")
    assert second.returncode == 1
    assert f"unix://{host.socket}: the process with pid {daemon.pid} serves it" in second.stderr
    assert host.socket.exists()


def test_after_a_kill_everything_is_taken_over(host: Host) -> None:
    first = host.start()
    first.kill()
    first.communicate()
    assert host.socket.exists()
    second = host.start()
    assert host.pid() == second.pid
    second.send_signal(signal.SIGTERM)
    assert second.wait(DEADLINE) == 0
    second.communicate()


def test_a_file_that_is_no_socket_is_not_replaced(host: Host) -> None:
    host.socket.parent.mkdir()
    host.socket.write_text("precious")
    done = host.run()
    assert done.returncode == 1
    assert "exists and is not a socket" in done.stderr
    assert host.socket.read_text() == "precious"


def test_detached_it_returns_when_it_serves_and_logs_to_a_file(host: Host) -> None:
    done = host.run("--detach")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    with socket.socket(socket.AF_UNIX) as client:  # no wait in between: ready means ready
        client.connect(str(host.socket))
    pid = host.pid()
    assert os.getsid(pid) not in (pid, os.getsid(0))
    assert f"serves on {host.socket}" in host.log.read_text()
    os.kill(pid, signal.SIGTERM)
    until(lambda: not host.pidfile.exists())


@pytest.mark.parametrize(
    ("mode", "text"),
    [
        ("refuse", "netengined: the fake server has no store\n"),
        ("crash", "netengined: ZeroDivisionError: the fake server divides\n"),
        ("die", "netengined: the daemon died before it was ready; its last words are in "),
    ],
)
def test_detached_it_hands_its_failure_to_the_terminal(host: Host, mode: str, text: str) -> None:
    done = host.run("--detach", FAKE_SERVER=mode)
    assert done.returncode == 1
    assert done.stderr.startswith(text)


def test_a_failure_in_the_foreground_is_one_line(host: Host) -> None:
    done = host.run(FAKE_SERVER="refuse")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "netengined: the fake server has no store"


def test_cleanup_prints_what_it_removed(host: Host) -> None:
    done = host.run("--cleanup")
    assert (done.returncode, done.stdout) == (0, f"removed nothing from {host.root}/data\n")


def test_cleanup_under_a_running_daemon_is_refused(host: Host, daemon: subprocess.Popen[str]) -> None:
    done = host.run("--cleanup")
    assert done.returncode == 1
    assert f"a netengined with pid {daemon.pid} is already running" in done.stderr


def test_systemd_is_told_of_readiness_and_stopping(host: Host) -> None:
    address = host.root / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(DEADLINE)
        manager.bind(str(address))
        process = host.start(NOTIFY_SOCKET=str(address))
        first = manager.recv(4096).decode().splitlines()
        assert first[:2] == ["READY=1", f"MAINPID={process.pid}"]
        process.send_signal(signal.SIGTERM)
        assert manager.recv(4096) == b"STOPPING=1"
        assert process.wait(DEADLINE) == 0
        process.communicate()


def test_a_socket_of_systemd_is_served_and_left_in_place(host: Host) -> None:
    path = host.root / "unit.sock"
    with socket.socket(socket.AF_UNIX) as unit:
        unit.bind(str(path))
        unit.listen()
        # sd_listen_fds(3) wants LISTEN_PID to be the daemon's own: only known between fork and exec.
        shell = 'exec 3<&"$1"; shift; LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=api exec "$@"'
        host.flags[0] = "--host=fd://"
        process = subprocess.Popen(
            ["bash", "-c", shell, "bash", str(unit.fileno()), *host.command()],
            env=host.environment(),
            pass_fds=[unit.fileno()],
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        assert f"serves on {path}" in process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE) == 0
        process.communicate()
    assert path.exists()


def test_a_socket_of_systemd_that_was_not_passed_is_said(host: Host) -> None:
    host.flags[0] = "--host=fd://"
    done = host.run()
    assert done.returncode == 1
    assert "no such socket was passed via socket activation" in done.stderr


def test_a_group_that_was_asked_for_must_exist(host: Host) -> None:
    done = host.run("--group=no-such-group-here")
    assert done.returncode == 1
    assert 'group: "no-such-group-here" does not exist' in done.stderr
