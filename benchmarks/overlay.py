"""An overlay network across the hosts of a lab: what it carries beside a VXLAN made by hand on the same links, how soon a
container is reached from another host, what a host is told of it, and a daemon's restart beside many endpoints.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.paths import probe
from benchmarks.traffic import lasting
from tests.clients.swarms import ADDRESS, RUN, Swarm
from tests.faults.churn import Client, sandbox
from tests.hosts import Process, wait_until

NET, ENCRYPTED = "bench", "secret"
_VNI = 77  # of the tunnel made by hand; netengine's are above 4,095
_BATCH = 20
"""Endpoints that come while it is counted what other hosts are told."""


@dataclass
class Figures:
    """Gbit/s by way; milliseconds from the API's answer to the first echo; bytes by endpoints that were there; seconds."""

    throughput: dict[str, list[float]] = field(default_factory=dict)
    reached: list[float] = field(default_factory=list)
    told: dict[int, float] = field(default_factory=dict)
    restart: list[float] = field(default_factory=list)
    encryption: str = ""
    """Whose WireGuard it was: the kernel's, or wireguard-go."""
    each: int = 0
    """Endpoints on each host at the restart."""


class Lab(Swarm):
    """Three hosts, one of them a manager, with an attachable network; a client of each daemon."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, 3)
        self.docker("h1", "swarm", "init", "--advertise-addr", ADDRESS.format(1))
        token = self.token("h1")
        for host in self.hosts[1:]:
            self.docker(host, "swarm", "join", "--token", token, ADDRESS.format(1))
        create = ["network", "create", "-d", "overlay", "--attachable"]
        self.docker("h1", *create, "--subnet", "10.50.0.0/16", NET)
        self.docker("h1", *create, "--opt", "encrypted", ENCRYPTED)
        for host in self.hosts:
            wait_until(lambda h=host: ENCRYPTED in self.docker(h, "network", "ls"), f"{host} knows the networks")  # type: ignore[misc]

    def client(self, host: str) -> Client:
        return Client(str(self.machine.path(f"{RUN}/{host}.sock")))

    def start(self, client: Client, name: str, network: str = NET, address: str = "") -> None:
        path, body = sandbox(name, network)
        if address:
            body["NetworkingConfig"] = {"EndpointsConfig": {network: {"IPAMConfig": {"IPv4Address": address}}}}
        client("POST", path, body)
        client("POST", f"/containers/{name}/start")

    def remove(self, client: Client, name: str) -> None:
        client("DELETE", f"/containers/{name}?force=1")

    def address(self, client: Client, name: str, network: str = NET) -> str:
        return str(client("GET", f"/containers/{name}/json")["NetworkSettings"]["Networks"][network]["IPAddress"])

    def inside(self, host: str, name: str, argv: Sequence[str]) -> list[str]:
        """The argument vector of a command in a sandbox (or a namespace made by hand) of a host."""
        lab = [sys.executable, "-m", "netengine.cli.main", "lab", "exec", host]
        return [*lab, "ip", "netns", "exec", name, *argv]

    def background(self, host: str, name: str, argv: Sequence[str], ready: str) -> Process:
        """Start a command; it has printed `ready` when this returns."""
        process = self.machine.popen(self.inside(host, name, argv), stdin=subprocess.PIPE)
        assert process.popen.stdout is not None
        for line in process.popen.stdout:
            if ready in line.decode(errors="replace"):
                return process
        raise RuntimeError(f"{' '.join(argv)} ended on {host}")

    def received(self, host: str) -> int:
        """Bytes that the host has received on its cable."""
        return int(self.lab("exec", host, "cat", "/sys/class/net/eth0/statistics/rx_bytes"))


@contextmanager
def lab() -> Iterator[Lab]:
    with tempfile.TemporaryDirectory() as directory:
        made = Lab(Path(directory))
        try:
            yield made
        finally:
            made.close()


def measure(rounds: int, seconds: int, joins: int, each: int, restarts: int) -> tuple[Figures, list[str]]:
    found, missing = Figures(each=each), []
    with lab() as hosts:
        if shutil.which("iperf3"):
            found.throughput = _throughput(hosts, found, rounds, seconds)
        else:
            missing.append("throughput: no iperf3 (Debian: iperf3)")
        clients = {host: hosts.client(host) for host in hosts.hosts}
        hosts.start(clients["h2"], "watcher")
        hosts.start(clients["h3"], "bystander")
        with _watcher(hosts, "h2") as ask:
            found.reached = [_reached(hosts, clients["h1"], ask, f"10.50.200.{n + 1}") for n in range(joins)]
        found.told[3] = _told(hosts, clients["h1"], "few")
        _fill(hosts, each)
        found.told[3 * each] = _told(hosts, clients["h1"], "many")
        found.restart = [_restart(hosts, n) for n in range(restarts)]
    return found, missing


# -- throughput -----------------------------------------------------------------------------------------------------------


def _throughput(hosts: Lab, found: Figures, rounds: int, seconds: int) -> dict[str, list[float]]:
    """TCP from h2 to h1 by iperf3; the ways take turns."""
    _by_hand(hosts)
    targets = {"netengine": "10.50.100.1", "VXLAN by hand": "10.77.0.1", "netengine, encrypted": ""}
    one, two = hosts.client("h1"), hosts.client("h2")
    hosts.start(one, "server", address=targets["netengine"])
    hosts.start(two, "sender")
    hosts.start(one, "server-secret", ENCRYPTED)
    hosts.start(two, "sender-secret", ENCRYPTED)
    targets["netengine, encrypted"] = hosts.address(one, "server-secret", ENCRYPTED)
    ends = {
        "netengine": ("server", "sender"),
        "VXLAN by hand": ("hand", "hand"),
        "netengine, encrypted": ("server-secret", "sender-secret"),
    }
    servers = [
        hosts.background("h1", server, ["iperf3", "-s", "--forceflush"], "Server listening")
        for server, _ in ends.values()
    ]
    samples: dict[str, list[float]] = {way: [] for way in ends}
    for way, (_, sender) in ends.items():  # what has to be learned first is learned
        wait_until(lambda w=way, s=sender: _iperf(hosts, s, targets[w], min(seconds, 1)) > 0, f"{way} carries packets")  # type: ignore[misc]
    for _ in range(rounds):
        for way, (_, sender) in ends.items():
            samples[way].append(_iperf(hosts, sender, targets[way], seconds))
    found.encryption = (
        "the kernel's" if hosts.lab("exec", "h1", "ip", "link", "show", "type", "wireguard") else "wireguard-go"
    )
    for server in servers:
        server.stop()
    for client, names in ((one, ("server", "server-secret")), (two, ("sender", "sender-secret"))):
        for name in names:
            hosts.remove(client, name)
    return samples


def _iperf(hosts: Lab, sender: str, to: str, seconds: int) -> float:
    argv = hosts.inside("h2", sender, ["iperf3", "-c", to, *lasting(seconds), "-J", "--connect-timeout", "1000"])
    answer = json.loads(hosts.machine.run(argv, timeout=seconds + 20).stdout)
    return 0.0 if "error" in answer else float(answer["end"]["sum_received"]["bits_per_second"]) / 1e9


def _by_hand(hosts: Lab) -> None:
    """The same tunnel, typed by somebody who knows what he needs: 10.77.0.1 on h1, 10.77.0.2 on h2."""
    for host, own, other in (("h1", 1, 2), ("h2", 2, 1)):
        mac, far = f"02:00:00:00:00:0{own}", f"02:00:00:00:00:0{other}"
        # Else (module br_netfilter) what crosses a bridge passes netengine's rules too, and ends there on one of others.
        hosts.lab("exec", host, "sysctl", "-w", "net.bridge.bridge-nf-call-iptables=0")
        tunnel = f"type vxlan id {_VNI} local {ADDRESS.format(own)} dstport 4789 nolearning proxy"
        for words in (
            "netns add hand",
            "link add hand-br mtu 1450 type bridge",
            f"link add hand-vx mtu 1450 {tunnel}",
            "link set hand-vx master hand-br up",
            "link set hand-br up",
            f"link add hand-veth mtu 1450 type veth peer name eth0 address {mac} mtu 1450 netns hand",
            "link set hand-veth master hand-br up",
            f"-n hand address add 10.77.0.{own}/24 dev eth0",
            "-n hand link set eth0 up",
            f"neighbour add 10.77.0.{other} lladdr {far} dev hand-vx nud permanent",
        ):
            hosts.lab("exec", host, "ip", *words.split())
        hosts.lab("exec", host, "bridge", "fdb", "add", far, "dev", "hand-vx", "dst", ADDRESS.format(other), "self")


# -- reaching and being told ----------------------------------------------------------------------------------------------


@contextmanager
def _watcher(hosts: Lab, host: str) -> Iterator[Callable[[str], Callable[[], float]]]:
    """Asks an address from the sandbox `watcher` of a host; calling what it answers waits for the time of the first echo."""
    process = hosts.background(host, "watcher", probe("await"), "ready")
    sink, source = process.popen.stdin, process.popen.stdout
    assert sink is not None and source is not None

    def ask(address: str) -> Callable[[], float]:
        sink.write(f"{address}\n".encode())
        sink.flush()
        return lambda: float(source.readline())

    try:
        yield ask
    finally:
        process.stop()


def _reached(hosts: Lab, client: Client, ask: Callable[[str], Callable[[], float]], address: str) -> float:
    """Milliseconds from the answer of `start` to the first echo on another host, which asks from that moment on."""
    hosts.start(client, "joins", address=address)
    answered = time.monotonic()
    taken = (ask(address)() - answered) * 1000
    hosts.remove(client, "joins")
    return taken


def _told(hosts: Lab, client: Client, prefix: str) -> float:
    """Bytes that h3 receives for each endpoint that comes and goes on h1. Heartbeats of that second are among them."""
    before = hosts.received("h3")
    for n in range(_BATCH):
        hosts.start(client, f"{prefix}{n}")
    for n in range(_BATCH):
        hosts.remove(client, f"{prefix}{n}")
    _agree(hosts, client)
    return (hosts.received("h3") - before) / _BATCH


def _agree(hosts: Lab, client: Client) -> None:
    """Wait until h3 has heard of the last thing that happened on h1."""
    hosts.start(client, "last")
    address = hosts.address(client, "last")
    wait_until(lambda: address in _entries(hosts, "h3"), "h3 has heard of it", 30)
    hosts.remove(client, "last")
    wait_until(lambda: address not in _entries(hosts, "h3"), "h3 has heard of its end", 30)


def _entries(hosts: Lab, host: str) -> set[str]:
    """Addresses of containers elsewhere that the host's kernel knows."""
    shown = hosts.lab("exec", host, "ip", "neighbour", "show", "nud", "permanent")
    return {line.split()[0] for line in shown.splitlines() if " vx-" in line}


def _fill(hosts: Lab, each: int) -> None:
    """So many endpoints on every host."""

    def fill(host: str) -> None:
        client = hosts.client(host)
        for n in range(each):
            hosts.start(client, f"{host}-{n}")

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(fill, hosts.hosts))
    wait_until(
        lambda: all(len(_entries(hosts, h)) >= 2 * each for h in hosts.hosts), "all hosts know all endpoints", 60
    )


# -- restart --------------------------------------------------------------------------------------------------------------


def _restart(hosts: Lab, number: int) -> float:
    """Seconds from the start of a killed daemon until its kernel knows of an endpoint that came to h1 meanwhile."""
    client = hosts.client("h1")
    hosts.kill_daemon("h3")
    hosts.start(client, f"meanwhile{number}")
    address = hosts.address(client, f"meanwhile{number}")
    began = time.monotonic()
    hosts.start_daemon("h3")
    wait_until(lambda: address in _entries(hosts, "h3"), "h3 has caught up", 60)
    return time.monotonic() - began


def lines(found: Figures) -> list[str]:
    """What is shown of it besides the table of throughput."""
    reached = sorted(found.reached)
    middle = reached[len(reached) // 2]
    few, many = sorted(found.told)
    return [
        *([f"Encrypted is with {found.encryption}.", ""] if found.encryption else []),
        f"A container started on one host answered another host's echo request {middle:.1f} ms after the API's answer",
        f"(median of {len(reached)}, {reached[0]:.1f} to {reached[-1]:.1f}), having asked from then on.",
        "",
        f"For an endpoint that comes and goes a third host receives {found.told[few] / 1000:.1f} kB with {few} endpoints in",
        f"the network and {found.told[many] / 1000:.1f} kB with {many}, heartbeats among it.",
        "",
        f"With {found.each} endpoints on each of three hosts, a daemon was killed (SIGKILL), and started again when one more",
        "endpoint had come elsewhere. Until its kernel knew of that it took "
        f"{', '.join(f'{s:.2f}' for s in found.restart)} s.",
    ]
