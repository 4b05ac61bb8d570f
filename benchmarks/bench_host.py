"""A contender in a host of its own: network, mount and PID namespace, its daemon in it if it has one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from benchmarks.contenders.base import Contender
from tests.daemons import Daemon
from tests.hosts import ELSEWHERE, REPO, Host, Process, wait_until

DOCKERD = ("dockerd", "--exec-root", "/run/docker", "--pidfile", "/run/docker.pid", "-H", "unix:///run/docker.sock")


class Worker:
    """Answers how long the contender took for what it was asked."""

    def __init__(self, contender: type[Contender], directory: Path) -> None:
        self.name = contender.name
        self.host = Host(
            contender.__name__.lower(), directory, hidden=() if contender.server == "docker" else ELSEWHERE
        )
        self.daemon: Daemon | None = None
        self.server_pid = 0
        """Of netengined or dockerd; 0 for neither."""
        try:
            self._start_server(contender.server, directory)
            argv = [sys.executable, "-m", "benchmarks.worker", contender.__name__]
            self._process: Process = self.host.popen(argv, env={"PYTHONPATH": str(REPO)}, stdin=subprocess.PIPE)
        except BaseException:
            self.host.close()
            raise

    def _start_server(self, server: str, directory: Path) -> None:
        if server == "netengine":
            self.daemon = Daemon(self.host).start()
            assert self.daemon.process is not None
            self.server_pid = self.daemon.process.pid
        elif server == "docker":
            self.host.sysctl("net.ipv4.ip_forward", "1")
            # Bridged packets pass its rules, or it would turn that on for every host of this machine's kernel.
            with (directory / "dockerd.log").open("wb") as log:
                argv = [*DOCKERD, "--data-root", str(self.host.disk / "docker")]
                process = self.host.popen(argv, stdout=log, stderr=log)
            self.server_pid = process.pid
            ready = ["docker", "-H", "unix:///run/docker.sock", "version"]
            wait_until(lambda: self.host.run(ready).returncode == 0, "Docker Engine is up", 60)

    def ask(self, verb: str, *numbers: int) -> float:
        """Milliseconds that the contender took. Raises RuntimeError with its words when it failed."""
        popen = self._process.popen
        assert popen.stdin is not None and popen.stdout is not None
        popen.stdin.write(f"{verb} {' '.join(map(str, numbers))}\n".encode())
        popen.stdin.flush()
        answer = popen.stdout.readline()
        try:
            return float(answer)
        except ValueError:
            words = (answer + popen.stdout.read()).decode(errors="replace")
            raise RuntimeError(f"{self.name} failed at {verb} {numbers}: {words}") from None

    def memory(self) -> float:
        """Resident memory of the contender's daemon, in MiB."""
        lines = Path(f"/proc/{self.server_pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024

    def close(self) -> None:
        if self.daemon is not None and self.daemon.process is not None:
            self.daemon.stop()
        self.host.close()
