"""run, start -a, attach and exec as processes: streams, terminals, signals, exit statuses."""

from __future__ import annotations

import os
import pty
import select
import signal
import struct
import termios
import threading
import time
from fcntl import ioctl

import pytest

ID = "a" * 64
WAITING = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
DEADLINE = 20


class Container:
    """A canned container: what it writes, whether it echoes its input, how it ends. Records the order of the calls."""

    def __init__(self, engine, *, output=b"", status=0, echo=False, tty=False, until_killed=False):
        self.engine, self.output, self.status, self.echo = engine, output, status, echo
        self.kind = "raw-stream" if tty else "multiplexed-stream"
        self.started, self.ended, self.killed = threading.Event(), threading.Event(), threading.Event()
        self.until_killed = until_killed
        engine.on("POST /containers/create", {"Id": ID, "Warnings": []}, 201)
        engine.on(f"POST /containers/{ID}/attach", self._attach)
        engine.on(f"POST /containers/{ID}/wait", self._wait)
        engine.on(f"POST /containers/{ID}/start", self._start)
        engine.on(f"POST /containers/{ID}/kill", self._kill)
        engine.on(f"POST /containers/{ID}/resize")

    def _start(self, request):
        self.started.set()
        request.connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

    def _kill(self, request):
        self.killed.set()
        request.connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

    def _attach(self, request):
        request.connection.sendall(self.engine.upgraded(self.kind))
        if not self.started.wait(DEADLINE):
            return  # the start was refused
        request.connection.sendall(self.output)
        while self.echo and (data := request.connection.recv(65536)):
            if data == b"\x04":
                break
            framed = data if self.kind == "raw-stream" else self.engine.frame(1, data)
            request.connection.sendall(framed)
        if self.until_killed:
            assert self.killed.wait(DEADLINE)
        self.ended.set()

    def _wait(self, request):
        request.connection.sendall(WAITING)  # the head at once, the body at the end: as the API promises
        assert self.ended.wait(DEADLINE)
        body = b'{"StatusCode": %d, "Error": null}' % self.status
        request.connection.sendall(b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))


def _finish(child, data=None):
    out, err = child.communicate(data, timeout=DEADLINE)
    return child.returncode, out, err


def test_run_keeps_streams_apart_and_returns_the_containers_status(engine, process):
    Container(engine, output=engine.frame(1, b"out\n") + engine.frame(2, b"err\n"), status=7)
    assert _finish(process("run", "--rm", "--name", "web", "host", "sh", "-c", "exit 7")) == (7, b"out\n", b"err\n")
    create, attach, wait, start = engine.requests
    assert (create.path, create.query, create.json["Cmd"]) == (
        "/containers/create",
        {"name": ["web"]},
        ["sh", "-c", "exit 7"],
    )
    assert attach.path.endswith("/attach") and attach.query == {"stream": ["1"], "stdout": ["1"], "stderr": ["1"]}
    assert wait.path.endswith("/wait") and wait.query == {"condition": ["removed"]}
    assert start.path.endswith("/start")  # last: nothing the process does can be missed


def test_frames_may_be_cut_anywhere(engine, process):
    stream = b"".join(engine.frame(1, bytes([65 + at]) * 50_000) for at in range(10))
    Container(engine, output=stream)
    status, out, _ = _finish(process("run", "host", "x"))
    assert (status, out) == (0, b"".join(bytes([65 + at]) * 50_000 for at in range(10)))


def test_standard_input_goes_in_and_its_end_too(engine, process):
    Container(engine, echo=True)
    child = process("run", "-i", "host", "cat", stdin=-1)
    data = os.urandom(1_000_000)
    assert _finish(child, data) == (0, data, b"")


def test_detached_prints_the_id_and_attaches_to_nothing(engine, process):
    Container(engine)
    assert _finish(process("run", "-d", "-p", "8080:80", "host")) == (0, f"{ID}\n".encode(), b"")
    assert [request.path.rpartition("/")[2] for request in engine.requests] == ["create", "start"]


@pytest.mark.parametrize(
    ("message", "status"),
    [
        ("driver failed: Bind for 0.0.0.0:8080 failed: port is already allocated", 125),
        ('exec: "nope": executable file not found in $PATH', 127),
        ('exec: "/etc/passwd": permission denied', 126),
    ],
)
@pytest.mark.parametrize("flags", [["-d"], []])
def test_a_refused_start(engine, process, message, status, flags):
    Container(engine).ended.set()
    engine.refuse(f"POST /containers/{ID}/start", 500, message)
    assert _finish(process("run", *flags, "host", "nope")) == (status, b"", f"netengine: {message}\n".encode())


def test_an_unknown_image_says_what_to_do(engine, process):
    engine.refuse("POST /containers/create", 404, "No such image: nope:latest")
    status, _, err = _finish(process("run", "nope"))
    assert status == 125
    assert err.startswith(b"netengine: No such image: nope:latest: 'netengine images'") and b"import" in err


def test_the_daemon_goes_away_in_the_middle(engine, process):
    container = Container(engine)

    def vanish(request):
        request.connection.sendall(WAITING)
        assert container.ended.wait(DEADLINE)

    engine.on(f"POST /containers/{ID}/wait", vanish)
    status, _, err = _finish(process("run", "host"))
    assert (status, b"closed the connection" in err) == (125, True)


def test_signals_are_passed_on(engine, process):
    container = Container(engine, status=130, until_killed=True, output=engine.frame(1, b"ready"))
    child = process("run", "host", "sleep", "9")
    assert child.stdout.read(5) == b"ready"
    child.send_signal(signal.SIGINT)
    assert child.wait(DEADLINE) == 130
    assert container.killed.is_set()
    assert engine.asked(f"POST /containers/{ID}/kill")[0].query == {"signal": ["INT"]}


def test_cidfile(engine, process, tmp_path):
    Container(engine)
    path = tmp_path / "cid"
    assert _finish(process("run", "-d", "--cidfile", str(path), "host"))[0] == 0
    assert path.read_text() == ID
    status, _, err = _finish(process("run", "-d", "--cidfile", str(path), "host"))
    assert (status, b"container ID file found" in err) == (125, True)


def test_create_prints_the_id_and_its_warnings(engine, process):
    engine.on("POST /containers/create", {"Id": ID, "Warnings": ["mind this"]}, 201)
    assert _finish(process("create", "host")) == (0, f"{ID}\n".encode(), b"WARNING: mind this\n")
    assert _finish(process("create", "-p", "x", "host"))[0] == 125
    engine.refuse("POST /containers/create", 409, "name taken")
    assert _finish(process("create", "host"))[0] == 1


def test_start_attached(engine, process):
    Container(engine, output=engine.frame(1, b"hi"), status=3)
    found = {"Id": ID, "Config": {"Tty": False, "OpenStdin": False}, "HostConfig": {"AutoRemove": False}}
    engine.on("GET /containers/web/json", found)
    assert _finish(process("start", "-a", "web")) == (3, b"hi", b"")


def test_attach_needs_a_running_container(engine, process):
    engine.on("GET /containers/web/json", {"Id": ID, "State": {"Running": False}, "Config": {}})
    status, _, err = _finish(process("attach", "web"))
    assert (status, b"start it first" in err) == (1, True)


def test_attach(engine, process):
    Container(engine, output=engine.frame(1, b"hi"), status=4).started.set()
    engine.on("GET /containers/web/json", {"Id": ID, "State": {"Running": True}, "Config": {"Tty": False}})
    assert _finish(process("attach", "web")) == (4, b"hi", b"")


def _exec(engine, output, status):
    engine.on("POST /containers/web/exec", {"Id": "e1"}, 201)
    engine.raw("POST /exec/e1/start", engine.upgraded() + output)
    engine.on("GET /exec/e1/json", {"ExitCode": status, "Running": False})


def test_exec(engine, process):
    _exec(engine, engine.frame(1, b"out") + engine.frame(2, b"err"), 5)
    assert _finish(process("exec", "-e", "A=1", "-w", "/tmp", "web", "ls", "-l")) == (5, b"out", b"err")
    body = engine.requests[0].json
    assert (body["Cmd"], body["Env"], body["WorkingDir"], body["AttachStdin"]) == (["ls", "-l"], ["A=1"], "/tmp", False)
    assert engine.requests[1].json == {"Detach": False, "Tty": False}


def test_exec_detached(engine, process):
    engine.on("POST /containers/web/exec", {"Id": "e1"}, 201)
    engine.on("POST /exec/e1/start")
    assert _finish(process("exec", "-d", "web", "true")) == (0, b"", b"")
    assert engine.requests[1].json["Detach"] is True


def test_exec_of_nothing_executable(engine, process):
    engine.on("POST /containers/web/exec", {"Id": "e1"}, 201)
    engine.refuse("POST /exec/e1/start", 400, 'exec: "nope": executable file not found in $PATH')
    assert _finish(process("exec", "web", "nope"))[0] == 127


def test_a_terminal_must_be_one(engine, process):
    status, _, err = _finish(process("run", "-it", "host"))
    assert (status, engine.requests) == (125, [])
    assert b"the input device is not a TTY" in err


def test_a_terminal_is_raw_while_it_runs_sized_and_given_back(engine, process):
    container = Container(engine, output=b"$ ", echo=True, tty=True)
    leader, follower = pty.openpty()
    ioctl(leader, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    before = termios.tcgetattr(follower)
    child = process("run", "-it", "host", "sh", stdin=follower, stdout=follower, stderr=follower)
    assert _read_until(leader, b"$ ") == b"$ "
    os.write(leader, b"\x03\r")  # Ctrl-C and Enter reach the container as they are
    assert _read_until(leader, b"\x03\r") == b"\x03\r"
    ioctl(leader, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 100, 0, 0))
    child.send_signal(signal.SIGWINCH)
    resizes = f"POST /containers/{ID}/resize"
    _until(lambda: len(engine.asked(resizes)) == 2)
    assert [request.query for request in engine.asked(resizes)] == [
        {"h": ["40"], "w": ["120"]},
        {"h": ["50"], "w": ["100"]},
    ]
    os.write(leader, b"\x04")
    assert child.wait(DEADLINE) == 0
    assert termios.tcgetattr(follower) == before
    assert container.ended.is_set()
    os.close(leader)
    os.close(follower)


def _read_until(descriptor, wanted):
    seen, end = b"", time.monotonic() + DEADLINE
    while wanted not in seen and time.monotonic() < end:
        if select.select([descriptor], [], [], 0.1)[0]:
            seen += os.read(descriptor, 4096)
    return seen


def _until(condition):
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        select.select([], [], [], 0.01)
