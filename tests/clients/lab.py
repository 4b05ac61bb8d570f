"""The machine that the client tests share: a host with a daemon, wired to a second one that plays the outside.

Most tests need a daemon, not a fresh one. So one runs for all of them, and after each test `reset` removes what the test
made and demands that the host is exactly as it was: that is the proof that nothing leaks. When it is not, the lab is thrown
away and the next test gets a new one.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.daemons import Client, Daemon, docker_cli, netengine_cli
from tests.hosts import Host, Namespace, wait_until, wire

HERE, HERE6 = "192.0.2.1", "2001:db8::1"
OUTSIDE, OUTSIDE6 = "192.0.2.2", "2001:db8::2"

# What runs in containers: answers `NAME sees PEER` over HTTP on each tcp:PORT and to each datagram on udp:PORT, IPv6 too.
# Starts in some 15 ms, where http.server takes 100; ends on SIGTERM, which PID 1 would otherwise ignore.
RESPONDER = r"""
import select, signal, socket, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
name, sockets = sys.argv[1], []
def said(peer):
    return f"{name} sees {peer[0].removeprefix('::ffff:')}"
for spec in sys.argv[2:]:
    kind, port = spec.split(":")
    sock = socket.socket(socket.AF_INET6, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.bind(("::", int(port)))
    if kind == "tcp":
        sock.listen(64)
    sockets.append(sock)
print("ready", flush=True)
while True:
    for sock in select.select(sockets, [], [])[0]:
        if sock.type == socket.SOCK_DGRAM:
            data, peer = sock.recvfrom(4096)
            sock.sendto(said(peer).encode(), peer)
            continue
        connection, peer = sock.accept()
        connection.settimeout(5)
        try:
            line = connection.recv(4096).split(b"\r\n")[0].decode()
            body = said(peer)
            connection.sendall(f"HTTP/1.0 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
            if line:
                print(line, flush=True)
        except OSError:
            pass
        connection.close()
"""

# Sends back what it receives, for as long as the connection lives: one long connection through a restart of the daemon.
ECHO = r"""
import socket
server = socket.create_server(("0.0.0.0", 7))
print("ready", flush=True)
while True:
    connection, _ = server.accept()
    while data := connection.recv(4096):
        connection.sendall(data)
"""

RESOLV_CONF = f"nameserver {OUTSIDE}\n"
"""What /etc/resolv.conf of `here` says, unless a test writes another. Nobody answers there unless a test does."""

PREDEFINED = {"bridge", "host", "none"}
BUILT_IN = {"host:latest", "sandbox:latest"}


def python(script: str, *arguments: str) -> list[str]:
    """The command that runs a script in a container, without the start-up cost of site packages."""
    return ["python3", "-I", "-S", "-c", script, *arguments]


class Lab:
    """`here` runs the daemon; `outside` is another machine on the wire (192.0.2.0/24), with routes to nothing else."""

    def __init__(self, directory: Path) -> None:
        self.here = Host("here", directory)
        self.outside = Host("outside", directory)
        wire(self.here, self.outside)
        self._own_etc()
        self._before_daemon = self._kernel()
        self.daemon = Daemon(self.here).start()
        self.docker = docker_cli(self.daemon)
        self.netengine = netengine_cli(self.daemon)
        self.api = self.daemon.request
        self._namespaces: list[Namespace] = []
        self._settled = self._kernel()

    def _own_etc(self) -> None:
        """An /etc of `here`'s own, above the machine's: its resolv.conf can be written without touching the machine's."""
        upper, work = self.here.disk / "etc", self.here.disk / "etc-work"
        options = f"lowerdir=/etc,upperdir={upper},workdir={work}"
        self.here.run(["mkdir", upper, work], check=True)
        self.here.run(["mount", "-t", "overlay", "overlay", "-o", options, "/etc"], check=True)
        self.write_resolv_conf(RESOLV_CONF)

    def write_resolv_conf(self, text: str) -> None:
        """Replace the host's /etc/resolv.conf as a DHCP client does: written beside it, then renamed over it."""
        beside = self.here.path("/etc/resolv.conf.new")
        beside.write_text(text)
        os.replace(beside, self.here.path("/etc/resolv.conf"))

    # ------------------------------------------------------------------ what tests ask for

    def serve(self, name: str, *flags: str, speak: tuple[str, ...] = ("tcp:80",), client: Client | None = None) -> str:
        """Run a container that answers `NAME sees PEER`, wait until it does, return its id."""
        run = client or self.docker
        return self.run(name, *flags, command=python(RESPONDER, name, *speak), client=run)

    def run(self, name: str, *flags: str, command: list[str], client: Client | None = None) -> str:
        """Run a container whose first line of output is `ready`; wait for that line; return its id."""
        identity = (client or self.docker)("run", "-d", "--name", name, *flags, "host", *command)
        wait_until(lambda: b"ready" in self.logs(name), lambda: f"{name} is not ready: {self.logs(name)!r}")
        return identity

    def idle(self, name: str, *flags: str, client: Client | None = None) -> str:
        """Run a container that only waits, for commands to be run in it; return its id."""
        return self.run(name, *flags, command=["sh", "-c", "echo ready; exec sleep infinity"], client=client)

    def logs(self, name: str) -> bytes:
        """The last lines of a container's log, raw, frame headers included."""
        return self.api("GET", f"/containers/{name}/logs?stdout=1&stderr=1&tail=20").body

    def sandbox(self, name: str) -> Namespace:
        """The network namespace of a running container, with a process or without."""
        key = self.api("GET", f"/containers/{name}/json").json["NetworkSettings"]["SandboxKey"]
        namespace = Namespace(self.here.path(key), name)
        self._namespaces.append(namespace)
        return namespace

    def let_go(self) -> None:
        """Close the sandboxes that were looked into: an open descriptor keeps a namespace alive."""
        while self._namespaces:
            self._namespaces.pop().close()

    def name_server(self) -> int:
        """The PID of the name server on the machine, 0 if none runs."""
        return next((pid for pid, command in self.here.pids().items() if "netengine.dns --control" in command), 0)

    def state(self, name: str) -> dict[str, Any]:
        return dict(self.api("GET", f"/containers/{name}/json").json["State"])

    def containers(self) -> set[str]:
        """The names of all containers, running or not."""
        listed = self.api("GET", "/containers/json?all=1").json
        return {name.removeprefix("/") for container in listed for name in container["Names"]}

    def networks(self) -> set[str]:
        return {network["Name"] for network in self.api("GET", "/networks").json}

    def images(self) -> set[str]:
        """The tags of all images but the built-in ones."""
        listed = self.api("GET", "/images/json").json
        return {tag for image in listed for tag in image["RepoTags"] or ()} - BUILT_IN

    def untouched(self) -> bool:
        """Whether the host is as it was before any test: nothing made, nothing left."""
        return not self._difference()

    # ------------------------------------------------------------------ after each test

    def reset(self) -> None:
        """Remove what the test made, then demand the state of the beginning."""
        self.let_go()
        if self.daemon.process is None or self.daemon.process.popen.poll() is not None:
            self.daemon.start()
        for process in self.here.processes + self.outside.processes:
            if process is not self.daemon.process:
                process.stop()
        self.here.processes[:] = [self.daemon.process] if self.daemon.process else []
        self.outside.processes.clear()
        self.write_resolv_conf(RESOLV_CONF)
        identities = [str(container["Id"]) for container in self.api("GET", "/containers/json?all=1").json]
        for identity in identities:
            answer = self.api("DELETE", f"/containers/{identity}?force=1&v=1")
            assert answer.status in (204, 404), f"container {identity} cannot be removed: {answer.body!r}"
        made = [n for n in self.api("GET", "/networks").json if n["Name"] not in PREDEFINED]
        for name in (n["Name"] for n in sorted(made, key=lambda n: n["ConfigOnly"])):  # those made from one go first
            answer = self.api("DELETE", f"/networks/{name}")
            assert answer.status == 204, f"network {name} cannot be removed: {answer.body!r}"
        for tag in self.images():
            answer = self.api("DELETE", f"/images/{tag}?force=1")
            assert answer.status == 200, f"image {tag} cannot be removed: {answer.body!r}"
        wait_until(lambda: not self._difference(), lambda: f"the test left things behind:\n{self._difference()}")
        # By id, because the control groups are the machine's: other daemons may be at work in them.
        parents = [Path("/sys/fs/cgroup/netengine"), *Path("/sys/fs/cgroup").glob("*/netengine")]
        groups = [str(parent / name) for parent in parents for name in identities if (parent / name).exists()]
        assert groups == [], "control groups are left"

    def _difference(self) -> str:
        # Stays once a network with IPv6 has made the daemon turn forwarding on.
        now = [fact for fact in self._kernel() if fact != "nft elements = { ip6 : drop }"]
        return "\n".join(
            line for line in difflib.unified_diff(self._settled, now, "before", "after", lineterm="", n=0) if line
        )

    def _kernel(self) -> list[str]:
        """Everything of the host that a test could leave behind, one line each, in a stable order."""
        self.here.await_burials(5)
        facts: list[str] = []
        for host in (self.here, self.outside):
            facts += [f"{host.name}: link {name}" for name in sorted(host.links())]
            # `linkdown` comes and goes with the first and last port of a bridge.
            routes = sorted(line.replace("linkdown", "").strip() for line in host.ip("route").splitlines())
            facts += [f"{host.name}: route {route}" for route in routes]
        # Elements come out in hash order: one each line, sorted.
        facts += sorted(f"nft {part}" for part in re.split(r"(?:,|\n)\s*", self.here.rules()) if part.strip())
        facts += [f"netns {name}" for name in sorted(self.here.namespaces())]
        facts += [f"mount {point}" for point in sorted(self.here.mounts())]
        daemon = getattr(self, "daemon", None)
        own = daemon.process.pid if daemon is not None and daemon.process is not None else 0
        facts += [f"process {command}" for pid, command in sorted(self.here.pids().items()) if pid != own]
        return facts

    def close(self, *, check: bool = True) -> None:
        """End the daemon with `--cleanup` and the hosts; the host must be as it was before the daemon ever started."""
        try:
            self.let_go()
            if check:
                self.daemon.cleanup()
                after = self._kernel()
                assert after == self._before_daemon, "\n".join(
                    difflib.unified_diff(
                        self._before_daemon, after, "before netengined", "after --cleanup", lineterm="", n=0
                    )
                )
        finally:
            if self.daemon in Daemon.alive:
                Daemon.alive.remove(self.daemon)
            self.outside.close()
            self.here.close()


def eventually(condition: Callable[[], object], what: str = "the condition to hold") -> None:
    """Retry a condition, taking OSError for "not yet", until it holds."""

    def attempt() -> bool:
        try:
            return bool(condition())
        except OSError:
            return False

    wait_until(attempt, what)
