"""Clusters under load while something is done to their hosts; cluster_trials.py has what, and `scripts/soak --cluster` runs it.

Each trial is a lab of hosts with one overlay network. On every host a container lives long and pings others, and more come
and go all the while; then one thing after another is done to the hosts. What must hold throughout: no address is given twice,
no ping is lost, every request is answered in time, and changes go on as soon as a majority is there. Afterwards every kernel
has exactly the containers that there are.
"""

from __future__ import annotations

import http.client
import json
import random
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.clients.swarms import RUN, Swarm
from tests.daemons import Answer, _UnixConnection
from tests.hosts import wait_until

NET, SUBNET = "app", "10.9.0.0/16"
ANSWER_SECONDS = 30.0
"""In which every request must be answered, with whatever: the longest that a daemon waits for its store, and some."""
BACK_SECONDS = 45.0
"""In which a change must succeed again once a majority of managers runs."""
_FLOWS = 2
"""Pings of each host."""


@dataclass
class Deed:
    """One kind of thing that was done: seconds until a change went through again, of each time, and what went wrong."""

    what: str
    seconds: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


class Load:
    """Containers that come and go on every host, and the account of who has which address."""

    def __init__(self, swarm: Swarm) -> None:
        self.swarm = swarm
        self.wrong: list[str] = []
        self.came = self.refused = 0
        self.slowest = 0.0
        self.excused: set[str] = set()
        """Hosts that are not in the cluster for a while: what they answer is no surprise."""
        self._held: dict[str, str] = {}
        self._guard = threading.Lock()
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(host,)) for host in swarm.hosts]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def ask(self, host: str, method: str, path: str, body: object = None) -> Answer | None:
        """None when the daemon is away."""
        began = time.monotonic()
        connection = _UnixConnection(str(self.swarm.machine.path(f"{RUN}/{host}.sock")), 2 * ANSWER_SECONDS)
        try:
            raw = None if body is None else json.dumps(body)
            connection.request(method, path, raw, {"Content-Type": "application/json"} if raw else {})
            found = connection.getresponse()
            answer = Answer(found.status, dict(found.getheaders()), found.read())
        except TimeoutError:
            self.wrong.append(f"{host} did not answer {method} {path} within {2 * ANSWER_SECONDS:g} s")
            return None
        except (OSError, http.client.HTTPException):
            return None
        finally:
            connection.close()
        took = time.monotonic() - began
        self.slowest = max(self.slowest, took)
        if took > ANSWER_SECONDS:
            self.wrong.append(f"{host} answered {method} {path} with {answer.status} after {took:.0f} s")
        return answer

    def _run(self, host: str) -> None:
        number = 0
        while not self._end.is_set():
            number += 1
            name = f"{host}-{number}"
            try:
                self._come_and_go(host, name)
            except Exception as e:
                if host not in self.excused:
                    self.wrong.append(f"{name}: {type(e).__name__}: {e}")
            self._end.wait(0.2)

    def _come_and_go(self, host: str, name: str) -> None:
        body = {"Image": "sandbox", "HostConfig": {"NetworkMode": NET}}
        made = self.ask(host, "POST", f"/containers/create?name={name}", body)
        started = self.ask(host, "POST", f"/containers/{name}/start") if made else None
        if started is not None and started.status == 204:
            seen = self.ask(host, "GET", f"/containers/{name}/json")
            address = seen.json["NetworkSettings"]["Networks"][NET]["IPAddress"] if seen and seen.status == 200 else ""
            if address:
                with self._guard:
                    self.came += 1
                    if address in self._held:
                        self.wrong.append(f"{address} is that of {self._held[address]}, and was given to {name}")
                    self._held[address] = name
                self._end.wait(random.random())
                with self._guard:
                    if self._held.get(address) == name:
                        del self._held[address]
        else:
            self.refused += 1
            if started is not None and started.status != 503 and host not in self.excused:
                self.wrong.append(f"{name} was answered {started.status}: {started.message}")
            self._end.wait(0.5)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:  # a daemon that is away comes back
            gone = self.ask(host, "DELETE", f"/containers/{name}?force=1")
            if gone is not None and gone.status in (204, 404):
                return
            if gone is not None and gone.status != 503:
                self.wrong.append(f"{name} was not removed, {gone.status}: {gone.message}")
                return
            time.sleep(0.2)
        self.wrong.append(f"{name} could not be removed")


class Trial:
    """A lab of `count` hosts of which `managers` manage, with its load and its pings."""

    def __init__(self, directory: Path, count: int, managers: int, seed: int, *flags: str) -> None:
        self.random = random.Random(seed)
        self.swarm = Swarm(directory, count, "--managers", str(managers), *flags)
        self.load = Load(self.swarm)
        self.table: dict[str, Deed] = {}
        self.withdrawn: set[str] = set()
        """Hosts that are Down for a while, so that nobody reaches them."""
        self.unheard: set[str] = set()
        """Hosts that are cut off for a while, and must not be Down."""
        hosts = self.swarm.hosts
        self.docker = self.swarm.docker
        self.docker("h1", "network", "create", "-d", "overlay", "--attachable", "--subnet", SUBNET, NET)
        self.addresses: dict[str, str] = {}
        for host in hosts:
            wait_until(
                lambda h=host: NET in self.docker(h, "network", "ls", "--format", "{{.Name}}"), f"{NET} on {host}", 30
            )  # type: ignore[misc]
            self.docker(host, "run", "-d", "--name", f"stays-{host}", "--network", NET, "host", "sleep", "inf")
            self.addresses[host] = self.address(host)

    def __enter__(self) -> Trial:
        return self

    def __exit__(self, *_: object) -> None:
        self.load.stop()
        self.swarm.close()

    def run(self, deeds: Mapping[str, Callable[..., None]], rounds: int, *more: object) -> dict[str, Deed]:
        """Each deed once a round, in an order that is drawn anew; what came of each. `more` goes to all of them."""
        self.load.start()
        for _ in range(rounds):
            for what in self.random.sample(list(deeds), len(deeds)):
                with self.deed(what):
                    deeds[what](self, *more)
        self.finish()
        return self.table

    def address(self, host: str) -> str:
        """Of the container that stays."""
        form = f"{{{{.NetworkSettings.Networks.{NET}.IPAddress}}}}"
        return self.docker(host, "inspect", "-f", form, f"stays-{host}")

    def connect_again(self, host: str) -> None:
        """The container that stays, on a host that was out of the cluster: as soon as the store answers there."""

        def connected() -> bool:
            return self.swarm._docker(host, "network", "connect", NET, f"stays-{host}").returncode == 0

        wait_until(connected, lambda: f"stays-{host} is connected again{self.swarm.log(host)}", 60)
        self.addresses[host] = self.address(host)

    def ping(self) -> None:
        """From each host's container to that of the next and the one after it, five times a second."""
        for number, host in enumerate(self.swarm.hosts):
            for step in range(1, 1 + _FLOWS):
                other = self.swarm.hosts[(number + step) % len(self.swarm.hosts)]
                wait_until(lambda h=host, o=other: self.reaches(h, o), f"{host} reaches {other}", 30)  # type: ignore[misc]
                flow = f"echo $$ > /pid-{other}; exec ping -n -q -i 0.2 -W 5 {self.addresses[other]} > /to-{other}"
                self.docker(host, "exec", "-d", f"stays-{host}", "sh", "-c", flow)

    def lost(self) -> list[str]:
        """End the pings, and say which lost something: but for those of hosts that were withdrawn meanwhile."""
        out = []
        lost_for_a_while = self.withdrawn | self.unheard
        for host in self.swarm.hosts:
            pids = self.docker(host, "exec", f"stays-{host}", "sh", "-c", "cat /pid-*").split()
            self.docker(host, "exec", f"stays-{host}", "kill", "-INT", *pids)
            flows = wait_until(lambda h=host: self._flows(h), f"the pings of {host} end", 30)  # type: ignore[misc]
            # One that was on its way when the end came is nobody's loss.
            lost = [(to, sent, got) for to, sent, got in flows if sent - got > 1 and not {host, to} & lost_for_a_while]
            out += [f"{host} to {to}: {sent} pings, {got} answers" for to, sent, got in lost]
        return out

    def _flows(self, host: str) -> list[tuple[str, int, int]]:
        """(to, sent, answered) of the host's pings, once they have all ended."""
        said = self.swarm._docker(host, "exec", f"stays-{host}", "sh", "-c", "tail -n +1 /to-*").stdout
        found = re.findall(r"/to-(\w+) <==.*?(\d+) packets transmitted, (\d+) received", said, re.S)
        return [(to, int(sent), int(got)) for to, sent, got in found] if len(found) == _FLOWS else []

    def reaches(self, host: str, other: str) -> bool:
        argv = ("exec", f"stays-{host}", "ping", "-c1", "-W1", self.addresses[other])
        return self.swarm._docker(host, *argv).returncode == 0

    @contextmanager
    def deed(self, what: str) -> Iterator[Deed]:
        """Do something in the block while pings go; then a change must go through soon, and all nodes be Ready."""
        deed = self.table.setdefault(what, Deed(what))
        print(f"{what} ...", file=sys.stderr, flush=True)
        self.ping()
        before, since, wrong = len(self.load.wrong), int(time.time()), []
        try:
            yield deed
            began = time.monotonic()
            self.changes_go_on()
            deed.seconds.append(time.monotonic() - began)
            self.await_all_ready()
        except AssertionError as e:
            wrong.append(str(e))
        wrong += self.lost() + self.load.wrong[before:]
        told = (
            "events",
            "--since",
            str(since),
            "--until",
            "0s",
            "--filter",
            "type=node",
            "--format",
            "{{json .Actor.Attributes}}",
        )
        said = [json.loads(line) for line in self.swarm._docker(self.a_manager(), *told).stdout.splitlines()]
        down = {event["name"] for event in said if event.get("state.new") == "down"} - self.withdrawn
        wrong += [f"{host} was Down for a while" for host in sorted(down)]
        self.withdrawn, self.unheard = set(), set()
        deed.wrong += wrong
        for line in wrong:
            print(f"{what}: {line}", file=sys.stderr, flush=True)

    def changes_go_on(self) -> None:
        said = ""

        def goes() -> bool:
            nonlocal said
            manager = self.a_manager()
            label = f"at={time.monotonic_ns()}"
            done = self.swarm._docker(manager, "node", "update", "--label-add", label, manager) if manager else None
            said = done.stderr if done else "no manager answers"
            return done is not None and done.returncode == 0

        wait_until(goes, lambda: f"changes go on: {said}", BACK_SECONDS)

    def shown(self) -> dict[str, tuple[str, str]]:
        """(status, manager status) by node, by the first manager that answers."""
        form = "{{.Hostname}} {{.Status}} {{.ManagerStatus}}."
        for host in self.swarm.hosts:
            done = self.swarm._docker(host, "node", "ls", "--format", form)
            if done.returncode == 0 and "Unknown" not in done.stdout:
                rows = [line[:-1].split(" ") for line in done.stdout.splitlines()]
                return {name: (status, manager) for name, status, manager in rows}
        return {}

    def managers(self) -> list[str]:
        return [name for name, (_, manager) in self.shown().items() if manager]

    def a_manager(self) -> str:
        """One that answers, or ""."""
        return next((h for h in self.swarm.hosts if self.swarm._docker(h, "node", "ls", "-q").returncode == 0), "")

    def leader(self) -> str:
        return wait_until(lambda: next((n for n, (_, m) in self.shown().items() if m == "Leader"), ""), "a leader", 30)

    def await_all_ready(self) -> None:
        def ready() -> bool:
            rows = self.shown()
            nodes = self.swarm._docker(self.a_manager(), "node", "ls", "-q").stdout.split()
            ok = len(rows) == len(nodes) == len(self.swarm.hosts) and all(
                s == "Ready" and m != "Unreachable" for s, m in rows.values()
            )
            return ok and "Leader" in {m for _, m in rows.values()}

        wait_until(ready, lambda: f"all are Ready: {self.shown()}", 60)

    def leader_beside(self, host: str) -> str:
        """The leader as the managers other than one see it, if that is another; "" while there is none."""
        form = ("node", "ls", "--format", "{{.Hostname}} {{.ManagerStatus}}")
        rows = (self.swarm._docker(h, *form).stdout for h in ("h1", "h2", "h3") if h != host)
        found = [line.split()[0] for row in rows for line in row.splitlines() if line.endswith(" Leader")]
        return next((name for name in found if name != host), "")

    def changes_at(self, host: str) -> int:
        """What a change is answered on a host."""
        answer = self.load.ask(host, "POST", "/networks/create", {"Name": "never", "Driver": "overlay"})
        return answer.status if answer else 0

    @contextmanager
    def cut(self, host: str, others: Sequence[str]) -> Iterator[None]:
        try:
            for other in others:
                self.swarm.lab("partition", host, other)
            yield
        finally:
            self.swarm.lab("heal")

    def await_reach(self, host: str, seconds: float) -> None:
        """Between a host's container and all others, in both directions, within so many seconds."""
        for other in self.swarm.hosts:
            if other != host:
                wait_until(lambda o=other: self.reaches(host, o), f"{host} reaches {other}", seconds)  # type: ignore[misc]
                wait_until(lambda o=other: self.reaches(o, host), f"{other} reaches {host}", seconds)  # type: ignore[misc]

    def entries(self, host: str) -> set[str]:
        """The addresses elsewhere that a host's kernel knows."""
        said = self.swarm.run(host, "ip", "neigh", "show", "nud", "permanent").stdout
        return {line.split()[0] for line in said.splitlines() if " dev vx-" in line}

    def kill_daemon(self, host: str) -> None:
        pid = self.swarm.lab("exec", host, "cat", "/run/netengined.pid")
        self.swarm.run(host, "kill", "-9", pid)
        wait_until(lambda: self.swarm.run(host, "kill", "-0", pid).returncode != 0, "it is gone")

    def down(self) -> set[str]:
        return {host for host, (status, _) in self.shown().items() if status == "Down"}

    @contextmanager
    def away(self, *hosts: str) -> Iterator[None]:
        """Their daemons and their etcd are killed, and the daemons started again in the end."""
        try:
            for host in hosts:
                self.kill_daemon(host)
                if self.swarm.etcd_pid(host):
                    self.swarm.kill_etcd(host)
            yield
        finally:
            for host in hosts:
                self.swarm.start_daemon(host)

    def finish(self) -> None:
        """Nothing is left but what stays, anywhere."""
        swarm = self.swarm
        self.load.stop()
        last = self.table.setdefault("the end", Deed("the end"))
        stay = set(self.addresses.values())

        for host in swarm.hosts:
            wanted = stay - {self.addresses[host]}
            try:
                wait_until(lambda h=host, w=wanted: self.entries(h) == w, lambda h=host: f"{h}: {self.entries(h)}", 30)  # type: ignore[misc]
                done = swarm.run(host, sys.executable, "-m", "netengine.cli.main", "doctor")
                assert done.returncode == 0, f"doctor on {host}: {done.stdout}"
                for other in swarm.hosts:
                    assert host == other or self.reaches(host, other), f"{host} does not reach {other}"
            except AssertionError as e:
                last.wrong.append(str(e))
        for line in last.wrong:
            print(line, file=sys.stderr, flush=True)
