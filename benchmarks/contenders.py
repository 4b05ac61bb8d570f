"""Who takes part: each attaches a network namespace to a bridge network, and detaches it, in its own way.

Code here runs inside the contender's host (benchmarks/worker.py), so that nobody pays for getting there.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

SOCKET = "/run/netengine/netengine.sock"
CNI = Path("/usr/lib/cni")
NETAVARK = Path("/usr/lib/podman/netavark")


class Contender(ABC):
    """One way to attach a namespace. Every call is one whole operation as its user would see it."""

    name: str

    @abstractmethod
    def prepare(self, count: int) -> None:
        """Make the network and `count` namespaces."""

    @abstractmethod
    def attach(self, n: int) -> None: ...

    @abstractmethod
    def detach(self, n: int) -> None: ...

    def namespaces(self, count: int) -> None:
        for n in range(count):
            run(["ip", "netns", "add", f"ns{n}"])


class Netengine(Contender):
    """POST /networks/NAME/connect of a running sandbox, a connection each: the client's side is in the figure."""

    name = "netengine"

    def prepare(self, count: int) -> None:
        self._call("POST", "/networks/create", {"Name": "bench"})
        for n in range(count):
            wish = {"Image": "sandbox", "HostConfig": {"NetworkMode": "bridge"}}
            self._call("POST", f"/containers/create?name=ns{n}", wish)
            self._call("POST", f"/containers/ns{n}/start")

    def attach(self, n: int) -> None:
        self._call("POST", "/networks/bench/connect", {"Container": f"ns{n}"})

    def detach(self, n: int) -> None:
        self._call("POST", "/networks/bench/disconnect", {"Container": f"ns{n}"})

    def _call(self, method: str, path: str, body: object = None) -> None:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(SOCKET)
            content = b"" if body is None else json.dumps(body).encode()
            head = f"{method} {path} HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Type: application/json\r\n"
            client.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
            answer = b""
            while piece := client.recv(65536):
                answer += piece
        if int(answer.split()[1]) >= 400:
            raise RuntimeError(f"{method} {path}: {answer!r}")


class ByHand(Contender):
    """`ip -batch` and `nft -f`, two processes: what a careful administrator's script does."""

    name = "ip+nft by hand"

    def prepare(self, count: int) -> None:
        self.namespaces(count)
        self._ip("link add br0 type bridge", "addr add 10.7.0.1/16 dev br0", "link set br0 up")
        run(["nft", "-f", "-"], stdin=b"add table ip t\nadd set ip t s { type ipv4_addr; }\n")

    def attach(self, n: int) -> None:
        ip = f"10.7.{n // 250}.{n % 250 + 2}"
        self._ip(
            f"link add v{n} type veth peer name eth0 netns ns{n}",
            f"link set v{n} master br0 up",
            f"-n ns{n} link set lo up",
            f"-n ns{n} addr add {ip}/16 dev eth0",
            f"-n ns{n} link set eth0 up",
            f"-n ns{n} route add default via 10.7.0.1",
        )
        run(["nft", "-f", "-"], stdin=f"add element ip t s {{ {ip} }}\n".encode())

    def detach(self, n: int) -> None:
        self._ip(f"link del v{n}")
        run(["nft", "-f", "-"], stdin=f"delete element ip t s {{ 10.7.{n // 250}.{n % 250 + 2} }}\n".encode())

    def _ip(self, *lines: str) -> None:
        outside = [line for line in lines if not line.startswith("-n ")]
        run(["ip", "-batch", "-"], stdin="\n".join(outside).encode())
        inside = [line.split(" ", 2) for line in lines if line.startswith("-n ")]
        if inside:
            batch = "\n".join(words[2] for words in inside).encode()
            run(["ip", "-n", inside[0][1], "-batch", "-"], stdin=batch)


class CniPlugins(Contender):
    """The CNI reference plugins bridge and host-local, executed as a container runtime does."""

    name = "CNI plugins"
    config = {
        "cniVersion": "0.4.0", "name": "bench", "type": "bridge", "bridge": "cni0", "isGateway": True,
        "isDefaultGateway": True, "ipMasq": False,
        "ipam": {"type": "host-local", "subnet": "10.88.0.0/16", "dataDir": "/run/cni-bench"},
    }  # fmt: skip

    def prepare(self, count: int) -> None:
        self.namespaces(count)

    def attach(self, n: int) -> None:
        self._call("ADD", n)

    def detach(self, n: int) -> None:
        self._call("DEL", n)

    def _call(self, verb: str, n: int) -> None:
        env = {
            "CNI_COMMAND": verb, "CNI_CONTAINERID": f"c{n}", "CNI_NETNS": f"/run/netns/ns{n}", "CNI_IFNAME": "eth0",
            "CNI_PATH": str(CNI), "PATH": os.environ["PATH"],
        }  # fmt: skip
        run([str(CNI / "bridge")], env=env, stdin=json.dumps(self.config).encode())


class Netavark(Contender):
    """Podman's netavark, without its name server."""

    name = "netavark"

    def prepare(self, count: int) -> None:
        self.namespaces(count)

    def attach(self, n: int) -> None:
        self._call("setup", n)

    def detach(self, n: int) -> None:
        self._call("teardown", n)

    def _call(self, verb: str, n: int) -> None:
        address = f"10.89.{n // 250}.{n % 250 + 2}"
        network = {
            "name": "bench", "id": "b" * 64, "driver": "bridge", "network_interface": "podman9", "internal": False,
            "ipv6_enabled": False, "dns_enabled": False, "ipam_options": {"driver": "host-local"},
            "subnets": [{"subnet": "10.89.0.0/16", "gateway": "10.89.0.1"}],
        }  # fmt: skip
        asked = {
            "container_id": f"c{n}", "container_name": f"c{n}", "network_info": {"bench": network},
            "networks": {"bench": {"static_ips": [address], "interface_name": "eth0"}},
        }  # fmt: skip
        argv = [str(NETAVARK), "--config", "/run", verb, f"/run/netns/ns{n}"]
        run(argv, stdin=json.dumps(asked).encode())


def run(argv: Sequence[str], stdin: bytes = b"", env: Mapping[str, str] | None = None) -> None:
    """Run a command to its end. Raises RuntimeError with its words when it fails."""
    done = subprocess.run(argv, input=stdin, env=env, capture_output=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(argv)}: {(done.stderr or done.stdout).decode(errors='replace')}")


def available() -> tuple[list[type[Contender]], list[str]]:
    """Those that can run here, and a sentence on each that cannot."""
    there: list[type[Contender]] = [Netengine, ByHand]
    missing = []
    if (CNI / "bridge").exists():
        there.append(CniPlugins)
    else:
        missing.append("CNI plugins: not installed (Debian: containernetworking-plugins)")
    if NETAVARK.exists() and shutil.which("iptables"):
        there.append(Netavark)
    else:
        missing.append("netavark: not installed (Debian: netavark and iptables)")
    missing.append("Docker Engine: not taken part yet")
    return there, missing
