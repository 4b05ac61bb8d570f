"""Does it stay flat? Endpoints from 1 to 900 on one bridge and published ports from 1 to 5,000: what one more costs, what a
connect through a port costs, what the daemon holds in memory; and how soon it serves again after kill -9.

An idle kernel and the C floor grow too: 900 ports of one bridge are a list for the kernel. So the floor is measured beside.
"""

from __future__ import annotations

import signal
import socket
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.bare import NEAR, Bare
from benchmarks.bench_host import Worker
from benchmarks.contenders import Floor, Netengine
from benchmarks.contenders.base import FIRST_PORT, call
from benchmarks.paths import INSIDE, connects, probe
from tests.hosts import Host, wire

CLIENTS = 16
PORTS_EACH = 200


@dataclass
class Growth:
    """Everything measured here. Milliseconds, microseconds and MiB, lists by N."""

    endpoints: list[int] = field(default_factory=list)
    attach: list[float] = field(default_factory=list)
    floor: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    attach_all: float = 0.0
    floor_all: float = 0.0
    attach_at_once: float = 0.0
    ports: list[int] = field(default_factory=list)
    publish: list[float] = field(default_factory=list)
    connect: list[float] = field(default_factory=list)
    connect_plain: float = 0.0
    ports_memory: list[float] = field(default_factory=list)
    two_hundred_ports: float = 0.0
    ready: list[float] = field(default_factory=list)
    ready_with: str = ""
    lost: int = 0
    sent: int = 0


class Scene:
    """netengine on a machine of its own with a neighbour, the floor on another."""

    def __init__(self, directory: Path) -> None:
        self.worker = Worker(Netengine, directory)
        self.neighbour = Host("beyond", directory)
        wire(self.worker.host, self.neighbour)
        self.socket = str(self.worker.host.path(Netengine.socket))

    def api(self, method: str, path: str, body: object = None) -> bytes:
        return call(self.socket, method, path, body)

    def sandbox(self, name: str, network: str = "none", **host_config: Any) -> None:
        wish = {"Image": "sandbox", "HostConfig": {"NetworkMode": network, **host_config}}
        self.api("POST", f"/containers/create?name={name}", wish)
        self.api("POST", f"/containers/{name}/start")

    def close(self) -> None:
        self.neighbour.close()
        self.worker.close()


def _timed(call: Any) -> float:
    began = time.perf_counter()
    call()
    return (time.perf_counter() - began) * 1000


def endpoints(most: int, step: int) -> Growth:
    """Connect `most` sandboxes one after another, then once more from 16 clients at once."""
    out = Growth()
    with tempfile.TemporaryDirectory() as directory:
        scene, floor = Scene(Path(directory)), Worker(Floor, Path(directory))
        try:
            scene.api("POST", "/networks/create", {"Name": "idle", "Internal": True, "IPAM": _subnet("10.6.0.0/16")})
            scene.api("POST", "/networks/create", {"Name": "bench", "IPAM": _subnet("10.7.0.0/16")})
            floor.ask("prepare", most)
            for n in range(most):
                wish = {"Image": "sandbox", "HostConfig": {"NetworkMode": "none"}}
                scene.api("POST", f"/containers/create?name=ns{n}", wish)
                scene.api("POST", "/networks/none/disconnect", {"Container": f"ns{n}"})
                scene.api("POST", f"/containers/ns{n}/start")
            window: tuple[list[float], list[float]] = ([], [])
            for n in range(most):
                window[0].append(
                    _timed(lambda n=n: scene.api("POST", "/networks/bench/connect", {"Container": f"ns{n}"}))
                )
                window[1].append(floor.ask("attach", n))
                if n + 1 == most or (n + 1) % step == 0 or n == 0:
                    out.endpoints.append(n + 1)
                    out.attach.append(sorted(window[0])[len(window[0]) // 2])
                    out.floor.append(sorted(window[1])[len(window[1]) // 2])
                    out.memory.append(scene.worker.memory())
                    out.attach_all += sum(window[0])
                    out.floor_all += sum(window[1])
                    window = ([], [])
            for n in range(most):
                scene.api("POST", "/networks/bench/disconnect", {"Container": f"ns{n}"})
            out.attach_at_once = _timed(lambda: _at_once(scene, most))
        finally:
            scene.close()
            floor.close()
    return out


def _subnet(prefix: str) -> dict[str, object]:
    return {"Config": [{"Subnet": prefix}]}


def _at_once(scene: Scene, count: int) -> None:
    """Connect all from CLIENTS threads."""
    failed: list[BaseException] = []

    def work(first: int) -> None:
        try:
            for n in range(first, count, CLIENTS):
                scene.api("POST", "/networks/bench/connect", {"Container": f"ns{n}"})
        except BaseException as e:
            failed.append(e)

    threads = [threading.Thread(target=work, args=(first,)) for first in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


def ports(most: int, step: int, tries: int) -> Growth:
    """Publish up to `most` ports, PORTS_EACH a sandbox; at each step one more (and away again), and connects through port 1."""
    out = Growth()
    with tempfile.TemporaryDirectory() as directory:
        scene = Scene(Path(directory))
        try:
            scene.api("POST", "/networks/create", {"Name": "bench", "IPAM": _subnet("10.7.0.0/16")})
            scene.sandbox("web", "bench", PortBindings={"80/tcp": [{"HostPort": str(FIRST_PORT)}]})
            scene.sandbox("more", "bench")
            host = scene.worker.host
            server = host.popen(["ip", "netns", "exec", "web", *probe("serve", 80)])
            assert server.popen.stdout is not None
            server.popen.stdout.readline()
            scene.neighbour.ip("route", "add", "10.7.0.0/16", "via", INSIDE)
            done = 1
            for target in (1, *range(step, most + 1, step)):
                while done < target:
                    few = range(done, min(done + PORTS_EACH, target))
                    bindings = {f"{n - done + 1}/tcp": [{"HostPort": str(FIRST_PORT + n)}] for n in few}
                    scene.sandbox(f"ports{done}", "bench", PortBindings=bindings)
                    done = few.stop
                spare = {FIRST_PORT + most: 99}
                taken = []
                for _ in range(tries):
                    taken.append(_timed(lambda p=spare: _publish(scene, p)))  # type: ignore[misc]
                    _publish(scene, spare, "unpublish")
                out.ports.append(target)
                out.publish.append(sorted(taken)[len(taken) // 2])
                through = sorted(connects(scene.neighbour, [], INSIDE, FIRST_PORT, 50 * tries))
                out.connect.append(through[len(through) // 2])
                out.ports_memory.append(scene.worker.memory())
            plain = sorted(_plain_connects(50 * tries))
            out.connect_plain = plain[len(plain) // 2]
        finally:
            scene.close()
    return out


def _publish(scene: Scene, ports: dict[int, int], verb: str = "publish") -> None:
    """Ports of the host that lead to ports of the sandbox `more`."""
    bindings = {f"{to}/tcp": [{"HostPort": str(port)}] for port, to in ports.items()}
    scene.api("POST", f"/netengine/containers/more/{verb}", {"PortBindings": bindings})


def _plain_connects(count: int) -> list[float]:
    """The same way without NAT and without any rule."""
    with tempfile.TemporaryDirectory() as directory:
        bare = Bare(Path(directory))
        try:
            server = bare.host.popen(["ip", "netns", "exec", "near", *probe("serve", 80)])
            assert server.popen.stdout is not None
            server.popen.stdout.readline()
            return connects(bare.neighbour, [], NEAR, 80, count)
        finally:
            bare.close()


def restart(sandboxes: int, published: int, times: int) -> Growth:
    """Kill the daemon and start it again, with packets flowing: how long until it serves, and how many are lost."""
    out = Growth(ready_with=f"{sandboxes} endpoints, {published} ports")
    with tempfile.TemporaryDirectory() as directory:
        scene = Scene(Path(directory))
        daemon = scene.worker.daemon
        assert daemon is not None
        try:
            scene.api("POST", "/networks/create", {"Name": "bench", "IPAM": _subnet("10.7.0.0/16")})
            each = -(-published // sandboxes)
            for n in range(sandboxes):
                first = FIRST_PORT + n * each
                few = range(min(each, published - n * each))
                scene.sandbox(
                    f"ns{n}", "bench", PortBindings={f"{80 + i}/udp": [{"HostPort": str(first + i)}] for i in few}
                )
            flow = _Flow(scene)
            for _ in range(times):
                daemon.stop(signal.SIGKILL)
                out.ready.append(_timed(lambda: daemon.start(60)) / 1000)
            out.sent, out.lost = flow.end()
        finally:
            scene.close()
    return out


class _Flow:
    """Datagrams from the neighbour to a published port and back, one every millisecond, until `end`."""

    def __init__(self, scene: Scene) -> None:
        server = scene.worker.host.popen(["ip", "netns", "exec", "ns0", *probe("echo", 80)])
        assert server.popen.stdout is not None
        server.popen.stdout.readline()
        self._socket = scene.neighbour.socket(socket.SOCK_DGRAM)
        self._socket.connect((INSIDE, FIRST_PORT))
        self._ended = threading.Event()
        self._sent = self._came = 0
        self._threads = [threading.Thread(target=self._send), threading.Thread(target=self._receive)]
        for thread in self._threads:
            thread.start()

    def _send(self) -> None:
        while not self._ended.wait(0.001):
            self._socket.send(b"x")
            self._sent += 1

    def _receive(self) -> None:
        while True:
            try:
                self._socket.recv(99)
            except TimeoutError:
                if self._ended.is_set():
                    return
            else:
                self._came += 1

    def end(self) -> tuple[int, int]:
        """Datagrams sent, and lost."""
        self._ended.set()
        for thread in self._threads:
            thread.join()
        self._socket.close()
        return self._sent, self._sent - self._came


def two_hundred_ports(times: int) -> tuple[float, float]:
    """Milliseconds of the start of a sandbox with 200 published ports, and with none; medians."""
    with tempfile.TemporaryDirectory() as directory:
        scene = Scene(Path(directory))
        try:
            scene.api("POST", "/networks/create", {"Name": "bench", "IPAM": _subnet("10.7.0.0/16")})
            taken: dict[int, list[float]] = {0: [], 200: []}
            for n in range(times):
                for count in taken:
                    bindings = {f"{1 + i}/tcp": [{"HostPort": str(FIRST_PORT + i)}] for i in range(count)}
                    wish = {"Image": "sandbox", "HostConfig": {"NetworkMode": "bench", "PortBindings": bindings}}
                    scene.api("POST", f"/containers/create?name=p{n}x{count}", wish)
                    taken[count].append(_timed(lambda c=count, n=n: scene.api("POST", f"/containers/p{n}x{c}/start")))
                    scene.api("DELETE", f"/containers/p{n}x{count}?force=1")
            return sorted(taken[200])[times // 2], sorted(taken[0])[times // 2]
        finally:
            scene.close()
