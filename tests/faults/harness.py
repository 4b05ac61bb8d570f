"""The fault harness: a daemon that dies at a chosen step of an operation, and what must be true when it is back.

`FaultLab` is a host with a daemon and, beside it, a machine outside whose packets flow to a bystander container all the time.
`Operation` is one thing a client asks for, with the way there and back. `die_at` runs it, ends the daemon at one of its
failpoints (netengine/failpoints.py), starts the daemon again and checks everything that was promised.
"""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.daemons import Answer, Daemon
from tests.hosts import Host, wait_until, wire

HERE = "192.0.2.1"
_UDP, _TCP = 9000, 9001

# The bystander: sends back what it gets, by UDP and by TCP.
_ECHO = f"""
import select, socket
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); udp.bind(("0.0.0.0", {_UDP}))
server = socket.create_server(("0.0.0.0", {_TCP}))
streams = []
while True:
    for ready in select.select([udp, server, *streams], [], [])[0]:
        if ready is udp:
            udp.sendto(*udp.recvfrom(100))
        elif ready is server:
            streams.append(server.accept()[0])
        elif data := ready.recv(100):
            ready.sendall(data)
        else:
            streams.remove(ready)
"""

# Offsets in struct tcp_info, include/uapi/linux/tcp.h.
_TCP_INFO_TOTAL_RETRANS, _TCP_INFO_DSACK_DUPS, _TCP_INFO_SIZE = 100, 216, 224

_ECHO_WITHIN = 10.0
"""Seconds after which a datagram without an echo is lost. On a busy machine the bystander, or the thread that listens for
its echoes, may not get a processor for a second or two: that loses nothing."""


_OVERTAKEN = 100
"""By so many datagrams, half a second of them, one that was only slow is not overtaken."""


class Flow:
    """A datagram and eight bytes of a TCP stream every 5 ms from outside to the bystander, all the time."""

    def __init__(self, outside: Host) -> None:
        self._udp = outside.socket(socket.SOCK_DGRAM)
        self._udp.connect((HERE, _UDP))
        self._udp.setblocking(False)
        self._tcp = outside.connect(HERE, _TCP, timeout=5)
        self._seen: set[int] = set()
        self._counted = self._lost = 0
        self.sent = 0
        self.broken = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="flow", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._stop.wait(0.005):
                self.sent += 1
                words = struct.pack("=Q", self.sent)
                self._udp.send(words)
                self._tcp.sendall(words)
                if self._tcp.recv(8, socket.MSG_WAITALL) != words:
                    raise OSError("the TCP connection ended")
                self._collect()
        except OSError as e:
            self.broken = str(e) or type(e).__name__

    def _collect(self) -> None:
        try:
            while True:
                self._seen.add(struct.unpack("=Q", self._udp.recv(100))[0])
        except BlockingIOError:
            pass

    def lost(self) -> int:
        """Datagrams without an echo, and TCP segments that did not arrive the first time, so far."""
        assert not self.broken, f"the bystander's flow broke: {self.broken}"
        sent, counted = self.sent, self._counted
        missing = lambda: [n for n in range(counted + 1, sent + 1) if n not in self._seen]  # noqa: E731
        # One way, in order: what has not come back when a later one has is lost. When nothing has, it may be slow.
        overtaken = lambda: max(self._seen, default=0) > sent + _OVERTAKEN  # noqa: E731
        try:
            wait_until(lambda: not missing() or overtaken(), "echoes", _ECHO_WITHIN)
            wait_until(lambda: not self._segments_lost(), "word of segments that came twice", 0.5)
        except AssertionError:
            pass
        self._lost += len(missing())
        self._counted = sent
        return self._lost + self._segments_lost()

    def _segments_lost(self) -> int:
        """Segments that were sent again, without those that came twice: a receiver that finds no time for acknowledging has
        them sent again too, and says so (D-SACK, RFC 2883)."""
        return max(0, self.sent_again() - self._info(_TCP_INFO_DSACK_DUPS))

    def sent_again(self) -> int:
        """TCP segments that were sent more than once, for whatever reason."""
        return self._info(_TCP_INFO_TOTAL_RETRANS)

    def _info(self, offset: int) -> int:
        info = self._tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_SIZE)
        return int(struct.unpack_from("=I", info, offset)[0])

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(5)
        self._udp.close()
        self._tcp.close()


class _Mortal(Daemon):
    """A daemon with failpoints."""

    failpoints: Path

    @property
    def argv(self) -> list[str]:
        return ["env", f"NETENGINE_FAILPOINTS={self.failpoints}", *super().argv]


class FaultLab:
    """`here` runs the daemon and the bystander, `outside` sends to it."""

    def __init__(self, directory: Path) -> None:
        self.here, self.outside = Host("here", directory), Host("outside", directory)
        wire(self.here, self.outside)
        self.failpoints = directory / "failpoints"
        self.failpoints.mkdir()
        self.daemon = _Mortal(self.here)
        self.daemon.failpoints = self.failpoints
        self.daemon.start()
        command = ["python3", "-I", "-S", "-c", _ECHO]
        ports = {f"{_UDP}/udp": [{"HostPort": str(_UDP)}], f"{_TCP}/tcp": [{"HostPort": str(_TCP)}]}
        self.ask("POST", "/networks/create", {"Name": "bystanders", "EnableIPv6": True})
        self.ask(
            "POST",
            "/containers/create?name=bystander",
            {"Image": "host", "Cmd": command, "HostConfig": {"NetworkMode": "bystanders", "PortBindings": ports}},
        )
        self.ask("POST", "/containers/bystander/start")
        wait_until(lambda: self.outside.reaches(HERE, _TCP), "the bystander answers")
        self.flow = Flow(self.outside)

    def ask(self, method: str, path: str, body: Any = None) -> Answer:
        """A call that must succeed."""
        answer = self.daemon.request(method, path, body)
        assert answer.status < 300, f"{method} {path}: {answer.status} {answer.body!r}"
        return answer

    @contextmanager
    def ask_first(self, method: str, path: str) -> Iterator[list[Answer]]:
        """Stop the daemon for the block, with a request on its way that it reads before anything that happens meanwhile is
        looked into. The answer is in the list after the block."""
        process = self.daemon.process
        assert process is not None
        answers: list[Answer] = []
        process.send(signal.SIGSTOP)
        try:
            with self.daemon.connect() as asking:
                asking.sendall(f"{method} {path} HTTP/1.0\r\nHost: here\r\n\r\n".encode())
                yield answers
                process.send(signal.SIGCONT)
                data = b"".join(iter(lambda: asking.recv(1 << 16), b""))
                answers.append(Answer(int(data.split()[1]), {}, data.partition(b"\r\n\r\n")[2]))
        finally:
            process.send(signal.SIGCONT)
            process.popen.send_signal(signal.SIGCONT)  # nsenter stops with its child, and does not go on with it

    def doctor(self) -> list[str]:
        """What the doctor finds, its notes on the host aside."""
        found = self.ask("GET", "/netengine/doctor").json
        return [f"{one['State']}: {one['What']}" for one in found["Differences"]]

    def facts(self) -> list[str]:
        """All that an operation could leave behind in the host's kernel and file system."""
        out = [f"link {name}" for name in self.here.links()]
        out += [f"nft {part}" for part in re.split(r"(?:,|\n)\s*", self.here.rules()) if part.strip()]
        out += [f"netns {name}" for name in self.here.namespaces()]
        out += [f"mount {point}" for point in self.here.mounts()]
        out += [f"route {' '.join(r.replace('linkdown', '').split())}" for r in self.here.ip("route").splitlines()]
        own = self.daemon.process.pid if self.daemon.process else 0
        out += [f"process {command}" for pid, command in self.here.pids().items() if pid != own]
        for root in (str(self.daemon.data_root), "/run/netengine"):
            out += [f"file {path}" for path in _files(self.here.path(root), root)]
        return sorted(line for line in out if not re.search(r"state\.db-(wal|shm)|\.log$", line))

    def settled(self) -> list[str]:
        """The same when nothing is left of what came before."""
        self.here.await_burials()
        return self.facts()

    def close(self) -> None:
        self.flow.stop()
        try:
            self.daemon.cleanup()
        finally:
            self.outside.close()
            self.here.close()


def _files(top: Path, shown: str) -> Iterator[str]:
    """All files below a directory; other file systems (a container's root, its sandbox) are not entered."""
    for entry in os.scandir(top):
        yield f"{shown}/{entry.name}"
        if entry.is_dir(follow_symlinks=False) and entry.stat(follow_symlinks=False).st_dev == top.stat().st_dev:
            yield from _files(Path(entry.path), f"{shown}/{entry.name}")


@dataclass(frozen=True)
class Operation:
    """What a client asks for. `states` are what `look` may answer afterwards: before it, after it, and, for one that is made
    of several (a forced removal stops first), between them."""

    name: str
    prepare: Callable[[FaultLab], None]
    act: Callable[[FaultLab], Answer]
    look: Callable[[FaultLab], str]
    states: tuple[str, ...]


def _box(image: str = "sandbox") -> dict[str, Any]:
    return {
        "Image": image,
        "Cmd": ["sleep", "1000"] if image == "host" else None,
        "StopTimeout": 0,
        "HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": "8080"}]}, "NetworkMode": "net"},
    }


def _network(lab: FaultLab) -> None:
    lab.ask("POST", "/networks/create", {"Name": "net", "EnableIPv6": True})


def _created(image: str = "sandbox") -> Callable[[FaultLab], None]:
    def prepare(lab: FaultLab) -> None:
        _network(lab)
        lab.ask("POST", "/containers/create?name=box", _box(image))

    return prepare


def _running(image: str = "sandbox") -> Callable[[FaultLab], None]:
    def prepare(lab: FaultLab) -> None:
        _created(image)(lab)
        lab.ask("POST", "/containers/box/start")

    return prepare


def _two_networks(lab: FaultLab) -> None:
    _running()(lab)
    lab.ask("POST", "/networks/create", {"Name": "other", "EnableIPv6": True})


def _on_two(lab: FaultLab) -> None:
    _two_networks(lab)
    lab.ask("POST", "/networks/other/connect", {"Container": "box"})


def _network_state(lab: FaultLab) -> str:
    return "there" if lab.daemon.request("GET", "/networks/net").status == 200 else "gone"


def _box_state(lab: FaultLab) -> str:
    answer = lab.daemon.request("GET", "/containers/box/json")
    if answer.status == 404:
        return "gone"
    running = bool(answer.json["State"]["Running"])
    published = bool(answer.json["NetworkSettings"]["Ports"].get("80/tcp"))
    assert running == published, "a port is published as long as its container runs"
    return "running" if running else "stopped"


def _connected(lab: FaultLab) -> str:
    networks = lab.ask("GET", "/containers/box/json").json["NetworkSettings"]["Networks"]
    endpoint = networks.get("other", {})
    assert bool(endpoint.get("IPAddress")) == bool(endpoint.get("GlobalIPv6Address")), "both families or none"
    return "connected" if endpoint.get("IPAddress") else "not connected"


_MORE_PORTS = {"PortBindings": {"81/tcp": [{"HostPort": "8081"}], "82/udp": [{"HostPort": "8082"}]}}
_POLICY = {"Action": "deny", "From": "box", "To": "network:net", "Ports": "80/tcp"}


def _with_more_ports(lab: FaultLab) -> None:
    _running()(lab)
    lab.ask("POST", "/netengine/containers/box/publish", _MORE_PORTS)


def _published(lab: FaultLab) -> str:
    box = lab.ask("GET", "/containers/box/json").json
    live = sum(bool(bindings) for bindings in box["NetworkSettings"]["Ports"].values())
    assert live == len(box["HostConfig"]["PortBindings"]), "what is published is what a restart would publish"
    return {1: "one port", 3: "three ports"}.get(live, f"{live} ports")


def _with_policy(lab: FaultLab) -> None:
    _running()(lab)
    lab.ask("POST", "/netengine/policies", _POLICY)


def _policy_state(lab: FaultLab) -> str:
    return "there" if lab.ask("GET", "/netengine/policies").json else "gone"


def _remove_policy(lab: FaultLab) -> Answer:
    (policy,) = lab.ask("GET", "/netengine/policies").json
    return lab.daemon.request("DELETE", f"/netengine/policies/{policy['Id']}")


def _call(method: str, path: str, body: Any = None) -> Callable[[FaultLab], Answer]:
    return lambda lab: lab.daemon.request(method, path, body)


OPERATIONS = (
    Operation(
        "network create",
        lambda lab: None,
        _call("POST", "/networks/create", {"Name": "net", "EnableIPv6": True}),
        _network_state,
        ("gone", "there"),
    ),
    Operation("network remove", _network, _call("DELETE", "/networks/net"), _network_state, ("there", "gone")),
    Operation(
        "connect",
        _two_networks,
        _call(
            "POST",
            "/networks/other/connect",
            {"Container": "box", "EndpointConfig": {"DriverOpts": {"rate": "100mbit"}}},
        ),
        _connected,
        ("not connected", "connected"),
    ),
    Operation(
        "disconnect",
        _on_two,
        _call("POST", "/networks/other/disconnect", {"Container": "box"}),
        _connected,
        ("connected", "not connected"),
    ),
    Operation(
        "container create",
        _network,
        _call("POST", "/containers/create?name=box", _box()),
        _box_state,
        ("gone", "stopped"),
    ),
    Operation(
        "publish",
        _running(),
        _call("POST", "/netengine/containers/box/publish", _MORE_PORTS),
        _published,
        ("one port", "three ports"),
    ),
    Operation(
        "unpublish",
        _with_more_ports,
        _call("POST", "/netengine/containers/box/unpublish", _MORE_PORTS),
        _published,
        ("three ports", "one port"),
    ),
    Operation(
        "policy add", _running(), _call("POST", "/netengine/policies", _POLICY), _policy_state, ("gone", "there")
    ),
    Operation("policy remove", _with_policy, _remove_policy, _policy_state, ("there", "gone")),
    Operation("start", _created(), _call("POST", "/containers/box/start"), _box_state, ("stopped", "running")),
    Operation("stop", _running(), _call("POST", "/containers/box/stop"), _box_state, ("running", "stopped")),
    Operation("remove", _created(), _call("DELETE", "/containers/box"), _box_state, ("stopped", "gone")),
    Operation(
        "remove --force",
        _running(),
        _call("DELETE", "/containers/box?force=1"),
        _box_state,
        ("running", "stopped", "gone"),
    ),
    Operation(
        "start a process",
        _created("host"),
        _call("POST", "/containers/box/start"),
        _box_state,
        ("stopped", "running"),
    ),
    Operation(
        "stop a process",
        _running("host"),
        _call("POST", "/containers/box/stop?t=0"),
        _box_state,
        ("running", "stopped"),
    ),
)


SPEAKING = tuple(o for o in OPERATIONS if o.name not in ("container create", "remove"))
"""Operations that ask something of the kernel."""


def cases(operations: Iterable[Operation]) -> pytest.MarkDecorator:
    """The operations as those of a test. Policies are refused where the rules do not see what stays within a bridge."""
    policies = pytest.mark.needs("br_netfilter")
    return pytest.mark.parametrize(
        "operation",
        [pytest.param(o, id=o.name, marks=policies if o.name.startswith("policy") else []) for o in operations],
    )


def undo(lab: FaultLab) -> None:
    """Remove what operations make, whether it is there or not."""
    policies = [f"/netengine/policies/{policy['Id']}" for policy in lab.ask("GET", "/netengine/policies").json]
    for path in (*policies, "/containers/box?force=1", "/networks/other", "/networks/net"):
        answer = lab.daemon.request("DELETE", path)
        assert answer.status in (200, 204, 404), f"DELETE {path}: {answer.status} {answer.body!r}"


def points(lab: FaultLab, operation: Operation) -> list[str]:
    """The failpoints that the operation passes, by one run of it. Leaves nothing."""
    return _reached(lab, operation, "0")


def _reached(lab: FaultLab, operation: Operation, arm: str) -> list[str]:
    operation.prepare(lab)
    reached = lab.failpoints / "reached"
    reached.unlink(missing_ok=True)
    (lab.failpoints / "arm").write_text(arm)
    answer = operation.act(lab)
    (lab.failpoints / "arm").unlink()
    assert answer.status < 300, answer.body
    undo(lab)
    lab.here.await_burials()
    return reached.read_text().splitlines()


def exchanges(lab: FaultLab, operation: Operation) -> list[str]:
    """The places of the operation at which the kernel may refuse: as `points`."""
    return _reached(lab, operation, "ENOMEM 0 0")


@dataclass
class Death:
    """One kill: at which point of which operation, what state was found, how long the start took, what was wrong."""

    operation: str
    point: str
    state: str = ""
    restart_seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)


def die_at(lab: FaultLab, operation: Operation, number: int, point: str, clean: Iterable[str]) -> Death:
    """End the daemon at failpoint `number` (from 1) of the operation and hold it to its promises. `clean` is `facts` of the
    lab when nothing is under way."""
    death = Death(operation.name, f"{number} ({point})")
    operation.prepare(lab)
    lost = lab.flow.lost()
    (lab.failpoints / "arm").write_text(str(number))
    try:
        answer = operation.act(lab)
        death.wrong.append(f"the daemon was not killed, but answered {answer.status}")
    except (OSError, http.client.HTTPException):
        pass
    (lab.failpoints / "arm").unlink()
    lab.daemon.kill9()
    began = time.monotonic()
    lab.daemon.start()
    death.restart_seconds = time.monotonic() - began
    death.state, wrong = _promises(lab, operation)
    death.wrong += wrong
    death.wrong += _left_behind(lab, clean)
    if (more := lab.flow.lost() - lost) > 0:
        death.wrong.append(f"the bystander lost {more} packets")
    return death


def _left_behind(lab: FaultLab, clean: Iterable[str]) -> list[str]:
    """What is otherwise than it was after all has been undone."""
    undo(lab)
    clean = list(clean)
    try:
        wait_until(lambda: lab.facts() == clean, "what was left goes away", 8)
    except AssertionError:
        now = lab.facts()
        wrong = [f"left behind: {line}" for line in now if line not in clean]
        return wrong + [f"lost: {line}" for line in clean if line not in now]
    return []


def _promises(lab: FaultLab, operation: Operation) -> tuple[str, list[str]]:
    """What state it is in, and what was promised and is not so: all in agreement, wholly there or gone, and it can be done."""
    wrong = [f"doctor: {finding}" for finding in lab.doctor()]
    state = operation.look(lab)
    if state not in operation.states:
        wrong.append(f"neither there nor gone: {state}")
    if state == operation.states[-1]:
        # It was done: once more from the beginning.
        undo(lab)
        operation.prepare(lab)
    answer = operation.act(lab)
    if answer.status >= 300:
        wrong.append(f"done again: {answer.status} {answer.body.decode()}")
    elif operation.look(lab) != operation.states[-1]:
        wrong.append(f"done again, and it is {operation.look(lab)}")
    return state, wrong


@dataclass
class Refusal:
    """A shortage: from which exchange of which operation on, what was answered, what state was found, what was wrong."""

    operation: str
    point: str
    answer: str = ""
    state: str = ""
    wrong: list[str] = field(default_factory=list)


def refuse_at(
    lab: FaultLab, operation: Operation, error: str, first: int, last: int, point: str, clean: Iterable[str]
) -> Refusal:
    """Have the kernel's exchanges `first` to `last` (from 1) of the operation fail with an error, by its name, and hold the
    daemon to its promises."""
    refusal = Refusal(operation.name, f"{first} ({point})")
    operation.prepare(lab)
    lost = lab.flow.lost()
    (lab.failpoints / "arm").write_text(f"{error} {first} {last}")
    answer = operation.act(lab)
    (lab.failpoints / "arm").unlink()
    refusal.answer = f"{answer.status} {answer.body.decode()}"
    if answer.status >= 300 and not re.search("[Mm]emory|buffer space", refusal.answer):
        refusal.wrong.append(f"the reason is not said: {refusal.answer}")
    try:
        wait_until(lambda: not lab.doctor(), "all agree again", 15)
    except AssertionError:
        pass  # the findings are in what follows
    refusal.state, wrong = _promises(lab, operation)
    refusal.wrong += wrong
    if answer.status < 300 and refusal.state != operation.states[-1]:
        refusal.wrong.append(f"answered {answer.status}, and it was not done")
    refusal.wrong += _left_behind(lab, clean)
    if (more := lab.flow.lost() - lost) > 0:
        refusal.wrong.append(f"the bystander lost {more} packets")
    return refusal
