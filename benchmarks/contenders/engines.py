"""The engines behind the Docker Engine API: netengine and Docker's own, asked by the same requests and the same client."""

from __future__ import annotations

import io
import shutil
import tarfile
from pathlib import Path

from benchmarks.contenders.base import FIRST_PORT, Contender, call, run

BUSYBOX = Path("/bin/busybox")


def busybox_archive() -> bytes:
    """A root file system of the machine's static busybox, as `docker import` reads it."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.add(BUSYBOX, "bin/busybox")
        for name in ("sh", "true", "sleep"):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(link)
    return packed.getvalue()


class Engine(Contender):
    """A connection for each request: the client's side is in the figure."""

    socket: str
    image: str

    def prepare(self, count: int) -> None:
        """Containers whose ports are published as soon as they are on a network that has a way out."""
        self.api("POST", "/networks/create", {"Name": "bench"})
        self.api("POST", "/networks/create", {"Name": "idle", "Internal": True})
        for n in range(count):
            self.start(f"ns{n}", "idle", {FIRST_PORT + n: 80} if n % 2 else {})

    def start(self, name: str, network: str = "bridge", ports: dict[int, int] | None = None) -> None:
        """A container that stays, on a network; `ports` of the host lead to ports of it."""
        bindings = {f"{to}/tcp": [{"HostPort": str(port)}] for port, to in (ports or {}).items()}
        wish = {
            "Image": self.image,
            "Cmd": ["sleep", "86400"],
            "ExposedPorts": {key: {} for key in bindings},
            "HostConfig": {"NetworkMode": network, "PortBindings": bindings},
        }
        self.api("POST", f"/containers/create?name={name}", wish)
        self.api("POST", f"/containers/{name}/start")

    def attach(self, n: int) -> None:
        self.api("POST", "/networks/bench/connect", {"Container": f"ns{n}"})

    def port(self, n: int) -> None:
        if n % 2 == 0:
            raise ValueError(f"container ns{n} publishes no port: every second one does")
        self.attach(n)

    def detach(self, n: int) -> None:
        self.api("POST", "/networks/bench/disconnect", {"Container": f"ns{n}"})

    def run(self, n: int) -> None:
        run(["docker", "-H", f"unix://{self.socket}", "run", "-d", "-p", f"{FIRST_PORT + n}:80", "busybox", "true"])

    def api(self, method: str, path: str, body: object = None) -> bytes:
        return call(self.socket, method, path, body)

    def load_busybox(self) -> None:
        """The image `busybox`, imported from the machine's static one."""
        argv = ["docker", "-H", f"unix://{self.socket}", "import", "-", "busybox"]
        run(argv, stdin=busybox_archive())


class Netengine(Engine):
    name = "netengine"
    server = "netengine"
    socket = "/run/netengine/netengine.sock"
    image = "sandbox"

    def prepare(self, count: int) -> None:
        if shutil.which("docker"):
            self.load_busybox()
        super().prepare(count)


class Docker(Engine):
    name = "Docker Engine"
    server = "docker"
    socket = "/run/docker.sock"
    image = "busybox"

    @staticmethod
    def missing() -> str:
        if not shutil.which("dockerd") or not BUSYBOX.exists():
            return "Docker Engine: not installed (Debian: docker.io and busybox-static)"
        return ""

    def prepare(self, count: int) -> None:
        self.load_busybox()
        super().prepare(count)
