"""First boot: the machine was just provisioned. The unit files as a user has them, and what the second boot must find again."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
from pathlib import Path

import pytest

from tests.clients.lab import ECHO, RESPONDER, python
from tests.daemons import SOCKET
from tests.hosts import REPO, wait_until
from tests.machine.whole import SERVICE, STATE, answers, docker, fetch, inspect, journal, run, unit


def serve(name: str, *flags: str) -> None:
    docker("run", "-d", "--name", name, *flags, "host", *python(RESPONDER, name, "tcp:80"))


def test_the_units_are_enabled_and_up():
    for name in (SERVICE, "netengine.socket"):
        assert run("systemctl", "is-enabled", name) == "enabled"
        assert run("systemctl", "is-active", name) == "active"
    assert unit(SERVICE, "Type", "SubState", "Result", "NRestarts") == ["notify", "running", "success", "0"]
    assert run("systemctl", "--failed", "--plain", "--no-legend") == ""


def test_the_docker_command_works_on_the_machine_s_own_network():
    assert "netengine" in docker("version")
    serve("web", "-p", "8080:80")
    wait_until(lambda: answers("http://127.0.0.1:8080/"), "the web server")
    assert fetch("http://127.0.0.1:8080/").startswith("web sees ")
    assert "docker0" in run("ip", "-br", "link") and "web" in run("ip", "netns", "list")


def test_members_of_the_group_may_use_the_socket_and_others_not():
    run("useradd", "--groups", "netengine", "alice")
    run("useradd", "mallory")
    found = Path(SOCKET).stat()
    assert (found.st_mode & 0o777, found.st_uid) == (0o660, 0)
    ask = ["curl", "-sS", "--unix-socket", SOCKET, "http://netengine/_ping"]
    assert run("runuser", "-u", "alice", "--", *ask) == "OK"
    assert run("runuser", "-u", "mallory", "--", *ask, check=False) == ""


@pytest.mark.parametrize("how", ["systemctl restart", "kill -9"])
def test_containers_and_connections_outlive_the_daemon(how: str):
    docker("run", "-d", "--name", "echo", "-p", "7777:7", "host", *python(ECHO))
    before = inspect("echo")
    (pid,) = unit(SERVICE, "MainPID")
    wait_until(lambda: "ready" in docker("logs", "echo"), "the echo server")
    with socket.create_connection(("127.0.0.1", 7777), 10) as connection:
        if how == "kill -9":
            os.kill(int(pid), signal.SIGKILL)
            wait_until(lambda: unit(SERVICE, "NRestarts") == ["1"], "systemd to start it again", 20)
        else:
            run("systemctl", "restart", SERVICE)
        wait_until(lambda: docker("ps", "-q", check=False), "the daemon's answer", 30)
        assert unit(SERVICE, "MainPID") != [pid]
        connection.sendall(b"still there?")
        assert connection.recv(100) == b"still there?"
    after = inspect("echo")
    for part in ("Pid", "StartedAt"):
        assert after["State"][part] == before["State"][part]
    assert after["NetworkSettings"] == before["NetworkSettings"]
    docker("rm", "-f", "echo")


def test_a_client_starts_a_stopped_service_through_the_socket():
    run("systemctl", "stop", SERVICE)
    assert fetch("http://127.0.0.1:8080/"), "containers go on without it"
    assert "web" in docker("ps", "--format", "{{.Names}}")
    assert unit(SERVICE, "ActiveState") == ["active"]


def test_processes_of_containers_are_not_the_service_s_to_kill():
    assert unit(SERVICE, "KillMode", "Delegate") == ["process", "yes"]
    pid = inspect("web")["State"]["Pid"]
    assert "netengine" in Path(f"/proc/{pid}/cgroup").read_text()


def test_the_journal_has_one_record_a_line_with_its_priority():
    records = journal()
    ours = [record for record in records if record["SYSLOG_IDENTIFIER"] == "netengined"]
    assert ours, "the daemon says something at start"
    for record in ours:
        text = record["MESSAGE"]
        assert not re.match(r"<\d>|\d{4}-\d\d-\d\d", text), f"a prefix that the journal knows itself: {text}"
        assert record["PRIORITY"] in ("4", "6"), f"{record['PRIORITY']}: {text}"
        assert "Traceback" not in text
    print(*(f"{record['PRIORITY']} {record['MESSAGE']}" for record in records[:20]), sep="\n")


def test_the_exposure_that_the_documents_name():
    """`systemd-analyze security`: 0 is harmless, 10 is an ordinary root service."""
    shown = run("systemd-analyze", "security", "--no-pager", SERVICE)
    match = re.search(r"Overall exposure level for netengine.service: (\S+) (\S+)", shown)
    assert match is not None, shown
    print(match.group())
    said = re.search(r"exposure level is ([\d.]+)", (REPO / "docs/security.md").read_text())
    assert said is not None and said.group(1) == match.group(1), (
        f"docs/security.md names another figure; now: {match.group()}"
    )


USUAL = """
import ctypes, mmap, os, pty, socket
mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)[0] = 195  # as a JIT compiler does
socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)
pty.openpty()
open("/dev/null", "w").write("x"), open("/dev/urandom", "rb").read(1), open("/tmp/x", "w").close()
os.chmod("/tmp/x", 0o6755)
print(os.uname().nodename, open("/proc/self/status").read().split("NoNewPrivs:")[1].split()[0])
"""
REFUSED = """
import ctypes, os, socket
libc = ctypes.CDLL(None, use_errno=True)
for name, number, *words in (("delete_module", 176, b"nothing", 0), ("swapoff", 168, b"/nothing"), ("iopl", 172, 3)):
    print(name, libc.syscall(number, *words), os.strerror(ctypes.get_errno()))
try:
    socket.socket(socket.AF_TIPC, socket.SOCK_DGRAM)
except OSError as e:
    print("tipc", e.strerror)
"""


def test_what_the_unit_takes_from_containers_and_what_it_leaves_them():
    """Filters of system calls are inherited: a container must be able to do what it is for."""
    assert docker("run", "--rm", "--hostname", "boxy", "host", "python3", "-c", USUAL) == "boxy 0"
    assert docker("run", "--rm", "-t", "host", "tty").strip() == "/dev/pts/0"
    assert "uid=0" in docker("run", "--rm", "--user", "0", "host", "su", "-s", "/bin/sh", "-c", "id", "root")
    mounted = "mount -t tmpfs none /mnt && mknod /mnt/n c 1 3 && echo x >/mnt/n && echo done"
    assert docker("run", "--rm", "--privileged", "host", "sh", "-c", mounted) == "done"
    said = docker("run", "--rm", "--privileged", "host", "python3", "-c", REFUSED).splitlines()
    assert said[:3] == [f"{name} -1 Operation not permitted" for name in ("delete_module", "swapoff", "iopl")]
    assert said[3:] == ["tipc Address family not supported by protocol"]
    assert unit(SERVICE, "DevicePolicy") == ["closed"]


def test_what_the_next_boot_must_find_is_made():
    docker("network", "create", "chosen", "--subnet", "10.123.0.0/24")
    docker("network", "create", "given")  # a subnet from the pools
    docker("rm", "-f", "web")
    serve("always", "--restart", "always", "--network", "chosen", "--ip", "10.123.0.77", "-p", "8081:80")
    serve("drawn", "--restart", "always", "--network", "given")  # an address from the pool
    serve("unless", "--restart", "unless-stopped", "--network", "given", "--network-alias", "friend")
    serve("stopped", "--restart", "unless-stopped", "--network", "given")
    serve("never", "--network", "given", "-p", "8082:80")
    docker("stop", "-t", "1", "stopped")
    wait_until(lambda: answers("http://127.0.0.1:8081/"), "the web server")
    names = ("always", "drawn", "unless", "stopped", "never")
    STATE.write_text(
        json.dumps(
            {
                "boot": Path("/proc/sys/kernel/random/boot_id").read_text(),
                "networks": json.loads(docker("network", "inspect", "bridge", "chosen", "given")),
                "containers": {name: inspect(name) for name in names},
            }
        )
    )
