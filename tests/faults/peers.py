"""Others that rule a host's packets, real ones: firewalld, ufw, Docker's engine, iptables. Each runs in a test host alone.

They are unpacked by `scripts/install --test` into .cache/peers and mounted over the host's own /usr and /etc, so that nothing
of them is installed on the machine.
"""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.daemons import Daemon
from tests.hosts import REPO, Host, Namespace, Socket, wait_until

PEERS = REPO / ".cache/peers"


def mount_peers(host: Host) -> None:
    """Give the host the peers' programs and settings; what it changes in them is its own, and in memory."""
    if not (PEERS / ".packages").exists():
        wanted = "ufw, firewalld, Docker's engine and iptables"
        pytest.fail(f"{wanted} are not here: run `scripts/install --test` (nothing gets installed)", pytrace=False)
    for name in ("usr", "etc"):
        upper, work = (host.path(f"{host.disk}/peers-{name}-{part}") for part in ("upper", "work"))
        upper.mkdir()
        work.mkdir()
        at = f"{host.disk}/peers-{name}"
        options = f"lowerdir={PEERS / name}:/{name},upperdir={at}-upper,workdir={at}-work"
        host.run(["mount", "-t", "overlay", "peers", "-o", options, f"/{name}"], check=True)


class Firewalld:
    """firewalld with its bus. A host's packets are ruled by zone `public` unless said otherwise."""

    def __init__(self, host: Host) -> None:
        self.host = host
        actions = "/usr/share/polkit-1/actions/org.fedoraproject.FirewallD1"
        # Done by the package's postinst, which does not run.
        host.run(["cp", f"{actions}.server.policy.choice", f"{actions}.policy"], check=True)
        host.path("/run/dbus").mkdir()
        host.popen(["dbus-daemon", "--system", "--nofork", "--nopidfile"])
        wait_until(lambda: host.path("/run/dbus/system_bus_socket").exists(), "the bus")
        self._process = host.popen(["firewalld", "--nofork", "--nopid"])
        wait_until(lambda: self.host.run(["firewall-cmd", "--state"]).returncode == 0, "firewalld runs", 30)

    def __call__(self, *words: str) -> str:
        return self.host.run(["firewall-cmd", *words], check=True).stdout.strip()

    def restart(self) -> None:
        self._process.stop()
        self._process = self.host.popen(["firewalld", "--nofork", "--nopid"])
        wait_until(lambda: self.host.run(["firewall-cmd", "--state"]).returncode == 0, "firewalld runs", 30)


class Ufw:
    """ufw, enabled: denies what comes in and what is routed."""

    def __init__(self, host: Host) -> None:
        self.host = host
        for name in (
            "ufw.conf",
            "before.rules",
            "after.rules",
            "user.rules",
            "before6.rules",
            "after6.rules",
            "user6.rules",
        ):
            found = next(
                p for p in (f"/usr/share/ufw/iptables/{name}", f"/usr/share/ufw/{name}") if host.path(p).exists()
            )
            host.run(["cp", found, f"/etc/ufw/{name}"], check=True)
        self("--force", "enable")

    def __call__(self, *words: str) -> str:
        return self.host.run(["ufw", *words], check=True).stdout.strip()


class DockerEngine:
    """Docker's own engine with its usual socket, and containers whose ports are listened to from here."""

    def __init__(self, host: Host, directory: Path) -> None:
        self.host = host
        self._env = {"DOCKER_HOST": "unix:///run/docker.sock", "DOCKER_CONFIG": str(directory)}
        self._log = directory / "dockerd.log"
        self._served: dict[str, tuple[int, Namespace]] = {}
        self._sockets: list[Socket] = []
        self._start()

    def _start(self) -> None:
        argv = ["dockerd", "--data-root", f"{self.host.disk}/docker", "--storage-driver", "vfs"]
        with self._log.open("ab") as log:
            self._process = self.host.popen(argv, stdout=log, stderr=log)
        answers = lambda: self.host.run(["docker", "version"], env=self._env).returncode == 0  # noqa: E731
        wait_until(answers, lambda: f"dockerd answers:\n{self._log.read_text()[-2000:]}", 40)

    def __call__(self, *words: str) -> str:
        return self.host.run(["docker", *words], env=self._env, check=True).stdout.strip()

    def restart(self) -> None:
        self._process.stop(signal.SIGTERM)
        self._served.clear()
        self._start()

    def serve(self, name: str) -> None:
        """A container on the network `theirs` with a published port, where something listens."""
        port = 9000 + len(self._sockets)
        options = f"-d -i --stop-timeout 1 --name {name} --network theirs -p {port}:90"
        self("run", *options.split(), "sh", "/bin/sh")
        key = self("inspect", "-f", "{{.NetworkSettings.SandboxKey}}", name)
        inside = Namespace(self.host.path(key.removeprefix("/var")), name)  # /var/run is a link, and leads to ours
        self._sockets.append(inside.listen(90))
        self._served[name] = (port, inside)

    def broken(self, outside: Host, *names: str) -> list[str]:
        """What does not work of what Docker's containers should be able to do."""
        found = []
        with outside.listen(7790):
            for name in names:
                port, inside = self._served[name]
                if not outside.reaches("192.0.2.1", port, 1):
                    found.append(f"{name} from outside")
                if not inside.reaches("192.0.2.2", 7790, 1):
                    found.append(f"outside from {name}")
        return found


class Libvirt:
    """What libvirt makes for its network `default`: a bridge, dnsmasq on it, rules for it, and a guest."""

    def __init__(self, host: Host) -> None:
        self.host = host
        host.sysctl("net.ipv4.ip_forward", "1")
        for words in (
            "link add virbr0 type bridge",
            "address add 192.168.122.1/24 dev virbr0",
            "link set virbr0 up",
            "netns add guest",
            "link add vnet0 type veth peer name eth0 netns guest",
            "link set vnet0 master virbr0 up",
            "-n guest address add 192.168.122.50/24 dev eth0",
            "-n guest link set eth0 up",
            "-n guest route add default via 192.168.122.1",
        ):
            host.ip(*words.split())
        for words in (
            "-N LIBVIRT_FWO",
            "-N LIBVIRT_FWI",
            "-A FORWARD -j LIBVIRT_FWI",
            "-A FORWARD -j LIBVIRT_FWO",
            "-A LIBVIRT_FWO -s 192.168.122.0/24 -i virbr0 -j ACCEPT",
            "-A LIBVIRT_FWO -i virbr0 -j REJECT",
            "-A LIBVIRT_FWI -d 192.168.122.0/24 -o virbr0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
            "-A LIBVIRT_FWI -o virbr0 -j REJECT",
            "-t nat -A POSTROUTING -s 192.168.122.0/24 ! -d 192.168.122.0/24 -j MASQUERADE",
        ):
            host.run(["iptables", *words.split()], check=True)
        serve = "--interface=virbr0 --bind-interfaces --except-interface=lo --address=/guest.test/192.168.122.50"
        self._dnsmasq = host.popen(
            ["dnsmasq", "--conf-file=/dev/null", "--keep-in-foreground", "--user=root", *serve.split()]
        )
        self.guest = Namespace(host.path("/run/netns/guest"), "guest")
        ask = ["ip", "netns", "exec", "guest", "dig", "+short", "+tries=1", "+time=1", "@192.168.122.1", "guest.test"]
        self._ask = lambda: host.run(ask).stdout.strip()
        wait_until(lambda: self._ask() == "192.168.122.50", "dnsmasq answers")

    def broken(self, outside: Host) -> list[str]:
        found = [] if self._ask() == "192.168.122.50" else ["names from the guest"]
        with outside.listen(7790):
            return found if self.guest.reaches("192.0.2.2", 7790, 1) else [*found, "outside from the guest"]


class Site:
    """A network with a sandbox `web` that publishes port 8080 and a sandbox `client`, and what must be possible there."""

    def __init__(self, daemon: Daemon, outside: Host, network: str = "site") -> None:
        self.daemon, self.here, self.outside = daemon, daemon.host, outside
        self._ask("/networks/create", {"Name": network})
        ports = {"80/tcp": [{"HostPort": "8080"}]}
        for name, host in (("web", {"PortBindings": ports}), ("client", {})):
            body = {"Image": "sandbox", "HostConfig": {**host, "NetworkMode": network}}
            self._ask(f"/containers/create?name={name}", body)
            self._ask(f"/containers/{name}/start")
        self.web, self.client = self.sandbox("web"), self.sandbox("client")
        self._servers = [self.web.listen(80), outside.listen(7777), self.here.listen(7778)]
        found = daemon.request("GET", "/containers/web/json").json["NetworkSettings"]["Networks"][network]
        self.address, self.gateway = found["IPAddress"], found["Gateway"]
        self.bridge = f"br-{found['NetworkID'][:12]}"

    def _ask(self, path: str, body: object = None) -> None:
        answer = self.daemon.request("POST", path, body)
        assert answer.status < 300, answer.body

    def sandbox(self, name: str) -> Namespace:
        identity = self.daemon.request("GET", f"/containers/{name}/json").json["Id"]
        return Namespace(self.here.path(f"/run/netengine/netns/{identity}"), name)

    def broken(self) -> list[str]:
        """What does not work of all that should."""
        ways = {
            "a published port from outside": lambda: self.outside.reaches("192.0.2.1", 8080, 1),
            "a published port from the host": lambda: self.here.reaches("192.0.2.1", 8080, 1),
            "a container from a container": lambda: self.client.reaches(self.address, 80, 1),
            "outside from a container": lambda: self.client.reaches("192.0.2.2", 7777, 1),
            "a container from the host": lambda: self.here.reaches(self.address, 80, 1),
        }
        return [what for what, works in ways.items() if not works()]

    def close(self) -> None:
        for server in self._servers:
            server.close()
        for one in (self.web, self.client):
            one.close()


def findings(daemon: Daemon) -> list[str]:
    """What the doctor says about the surroundings."""
    host = daemon.request("GET", "/netengine/doctor").json["Host"]
    return [f"{one['What']}; {one['Remedy']}" for one in host]
