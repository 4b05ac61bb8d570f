"""Who answers: each in a host of its own, asked by dnsperf from inside a sandbox there."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from benchmarks.bench_host import DOCKERD
from benchmarks.contenders import engines
from benchmarks.contenders.engines import busybox_archive
from netengine.kernel.nameservice import rules
from tests.daemons import Daemon
from tests.hosts import ELSEWHERE, Host, Process, wait_until

AARDVARK = Path("/usr/lib/podman/aardvark-dns")
UPSTREAM = "127.0.0.1"
_PORT = 40001
_SOURCE = Path(__file__).with_name("responder.c")


class Contender(ABC):
    """A name server that knows n0, n1, ... and asks the responder on the host's loopback for the rest."""

    name: str
    server: str
    """Where clients ask."""
    client = "box"
    """The network namespace under /run/netns that asks."""
    has_memory = True
    most_sandboxes = 300
    hidden: Sequence[str] = ELSEWHERE

    def __init__(self, directory: Path, responder: Path) -> None:
        self.directory = directory / self.__class__.__name__.lower()
        self.directory.mkdir()
        self.responder = responder
        self.host = Host(self.__class__.__name__.lower(), self.directory, hidden=self.hidden)

    def __enter__(self) -> Contender:
        resolv_conf = self.directory / "resolv.conf"
        resolv_conf.write_text(f"nameserver {UPSTREAM}\n")
        self.host.run(["mount", "--bind", resolv_conf, "/etc/resolv.conf"], check=True)
        ready(self.host.popen([self.responder, UPSTREAM, "53"]))
        self.begin()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.end()
        self.host.close()

    @abstractmethod
    def begin(self) -> None: ...

    @abstractmethod
    def prepare(self, sandboxes: int, names: int) -> None:
        """Have so many sandboxes and names; not fewer than before."""

    def end(self) -> None:  # noqa: B027
        """Stop what the end of the host would not. Most have nothing of the kind."""

    @abstractmethod
    def pid(self) -> int:
        """Of the process that answers."""

    def memory_mib(self) -> float:
        """Resident."""
        return int(Path(f"/proc/{self.pid()}/statm").read_text().split()[1]) * 4096 / (1 << 20)

    def scheduled(self) -> tuple[float, float]:
        """Seconds that its threads have run so far, in the kernel too, and that they were ready to and waited."""
        fields = [path.read_text().split() for path in Path(f"/proc/{self.pid()}/task").glob("*/schedstat")]
        return sum(int(ran) for ran, _, _ in fields) / 1e9, sum(int(waited) for _, waited, _ in fields) / 1e9

    def _only(self, words: str) -> int:
        found = [pid for pid, command in self.host.pids().items() if words in command and "nsenter" not in command]
        if len(found) != 1:
            raise RuntimeError(f"{self.name}: {len(found)} processes are called {words}")
        return found[0]

    def dnsperf(self, questions: Path, seconds: float, *flags: str) -> str:
        """Its report. Four clients with up to 100 questions under way between them."""
        enter = ["nsenter", f"--net={self.place}"]
        argv = ["dnsperf", "-s", self.server, "-d", questions, "-l", str(seconds), "-c", "4", "-T", "1", "-q", "100"]
        return self.host.run([*enter, *argv, *flags], check=True).stdout

    @property
    def place(self) -> str:
        """The network namespace that asks, as a file of the host."""
        return f"/run/netns/{self.client}"


class Bare(Contender):
    """The responder in the place of netengine's name server: on a port of 127.0.0.11 in a sandbox, behind the same rules."""

    name = "bare responder, in C"
    server = "127.0.0.11"
    has_memory = False

    def begin(self) -> None:
        self.host.ip("netns", "add", self.client)
        self.host.ip("-n", self.client, "link", "set", "lo", "up")
        enter = ["ip", "netns", "exec", self.client]
        self.host.run([*enter, "nft", "-f", "-"], stdin=rules(_PORT, _PORT), check=True)
        ready(self.host.popen([*enter, self.responder, self.server, str(_PORT)]))

    def prepare(self, sandboxes: int, names: int) -> None:
        """It answers anything."""

    def pid(self) -> int:
        return self._only(f"{self.responder} {self.server}")


class Netengine(Contender):
    """The name server of a running daemon, with sandboxes as users make them. The names are aliases."""

    name = "netengine"
    server = "127.0.0.11"

    def begin(self) -> None:
        self._daemon = Daemon(self.host).start()
        self._sandboxes = 0
        self._ask("POST", "/networks/create", {"Name": "app", "IPAM": {"Config": [{"Subnet": "10.7.0.0/16"}]}})

    def prepare(self, sandboxes: int, names: int) -> None:
        for n in range(self._sandboxes, sandboxes):
            wish = {"Image": "sandbox", "HostConfig": {"NetworkMode": "app"}}
            name = self.client if n == 0 else f"s{n}"
            self._ask("POST", f"/containers/create?name={name}", wish)
            self._ask("POST", f"/containers/{name}/start")
        self._sandboxes = max(sandboxes, self._sandboxes)
        self._ask("POST", "/networks/app/disconnect", {"Container": self.client, "Force": True})
        aliases = {"Container": self.client, "EndpointConfig": {"Aliases": [f"n{n}" for n in range(names)]}}
        self._ask("POST", "/networks/app/connect", aliases)

    def end(self) -> None:
        self._daemon.cleanup()
        if self._daemon in Daemon.alive:
            Daemon.alive.remove(self._daemon)

    def pid(self) -> int:
        return self._only("netengine.dns --control")

    def _ask(self, method: str, path: str, body: object = None) -> None:
        answer = self._daemon.request(method, path, body)
        if answer.status >= 400:
            raise RuntimeError(f"{method} {path}: {answer.body!r}")


class Aardvark(Contender):
    """Podman's aardvark-dns on the address of a bridge, as netavark sets it up. One entry carries the names.

    What a forwarded question costs it grows with the names that it knows (version 1.4): 28 µs with 20, 600 µs with 10,000.
    """

    name = "aardvark-dns"
    server = "10.7.0.1"

    def begin(self) -> None:
        ip = self.host.ip
        ip("netns", "add", self.client)
        ip("link", "add", "br0", "type", "bridge")
        ip("address", "add", f"{self.server}/16", "dev", "br0")
        ip("link", "set", "br0", "up")
        ip("link", "add", "v0", "type", "veth", "peer", "name", "eth0", "netns", self.client)
        ip("link", "set", "v0", "master", "br0", "up")
        ip("-n", self.client, "address", "add", "10.7.0.2/16", "dev", "eth0")
        ip("-n", self.client, "link", "set", "eth0", "up")
        self._started = False

    def prepare(self, sandboxes: int, names: int) -> None:
        config = self.directory / "config"
        config.mkdir(exist_ok=True)
        lines = [self.server, f"{'0' * 64} 10.7.0.2  " + ",".join(f"n{n}" for n in range(names))]
        lines += [f"{n:064d} 10.7.{n // 250 + 1}.{n % 250 + 1}  s{n}" for n in range(1, sandboxes)]
        (config / "app").write_text("\n".join(lines) + "\n")
        if self._started:  # it has put itself into the background
            old = self.pid()
            os.kill(old, signal.SIGKILL)
            wait_until(lambda: old not in self.host.pids(), "the end of aardvark-dns", 10)
        self._started = True
        log = (self.directory / "log").open("wb")
        self.host.popen([AARDVARK, "--config", config, "-p", "53", "run"], stdout=log, stderr=log)
        wait_until(lambda: "n0" in self._answer(), lambda: f"aardvark-dns does not answer: {self._answer()}", 10)

    def _answer(self) -> str:
        enter = ["nsenter", f"--net=/run/netns/{self.client}"]
        return self.host.run(
            [*enter, "dig", "+noall", "+answer", "+tries=1", "+time=1", f"@{self.server}", "n0."]
        ).stdout

    def pid(self) -> int:
        return self._only(str(AARDVARK))


class Docker(Contender):
    """Docker Engine's name server, which is part of dockerd. At most one sandbox: hundreds take it minutes."""

    name = "Docker Engine"
    server = "127.0.0.11"
    has_memory = False  # dockerd does all the rest too
    most_sandboxes = 1
    hidden = ()

    def begin(self) -> None:
        self.host.sysctl("net.ipv4.ip_forward", "1")
        with (self.directory / "dockerd.log").open("wb") as log:
            self.host.popen([*DOCKERD, "--data-root", self.host.disk / "docker"], stdout=log, stderr=log)
        wait_until(lambda: self._docker("version").returncode == 0, "Docker Engine is up", 60)
        self._docker("import", "-", "busybox", stdin=busybox_archive())
        self._docker("network", "create", "app")
        self._docker("run", "-d", "--name", self.client, "--network", "app", "busybox", "sleep", "86400")
        self._pid = self._docker("inspect", "-f", "{{.State.Pid}}", self.client).stdout.strip()

    def prepare(self, sandboxes: int, names: int) -> None:
        self._docker("network", "disconnect", "app", self.client)
        body = {"Container": self.client, "EndpointConfig": {"Aliases": [f"n{n}" for n in range(names)]}}
        argv = ["curl", "-sSf", "--unix-socket", "/run/docker.sock", "-H", "Content-Type: application/json"]
        self.host.run([*argv, "-d", "@-", "http://d/networks/app/connect"], stdin=json.dumps(body), check=True)

    @property
    def place(self) -> str:
        return f"/proc/{self._pid}/ns/net"

    def pid(self) -> int:
        return self._only(DOCKERD[0])

    def _docker(self, *words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[str]:
        return self.host.run(["docker", "-H", "unix:///run/docker.sock", *words], stdin=stdin, timeout=60)


def ready(process: Process) -> None:
    """Wait for its first line. Raises RuntimeError with its words if that is not `ready`."""
    out = process.popen.stdout
    line = out.readline() if out is not None else b""
    if line != b"ready\n":
        raise RuntimeError(f"the responder did not start: {line!r}")


def compiled(directory: Path) -> Path:
    """The responder, compiled."""
    out = directory / "responder"
    subprocess.run(["cc", "-O2", "-o", str(out), str(_SOURCE)], check=True, capture_output=True)
    return out


def available() -> tuple[list[type[Contender]], list[str]]:
    """Those that can run here, and a sentence on each that cannot. Without dnsperf or a compiler nobody can."""
    for program, package in (("dnsperf", "dnsperf"), ("cc", "gcc")):
        if shutil.which(program) is None:
            return [], [f"all name servers: no {program} here (Debian: {package})"]
    there: list[type[Contender]] = [Bare, Netengine]
    missing = []
    if AARDVARK.exists():
        there.append(Aardvark)
    else:
        missing.append("aardvark-dns: not installed (Debian: aardvark-dns)")
    if absent := engines.Docker.missing():
        missing.append(absent)
    else:
        there.append(Docker)
    return there, missing
