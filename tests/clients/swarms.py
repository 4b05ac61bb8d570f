"""Clusters for tests: the hosts of `netengine lab`, with the real docker CLI on each. Nothing here imports netengine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.cluster.etcd_members import etcd_program
from tests.daemons import Answer, ask
from tests.hosts import ELSEWHERE, Host, wait_until
from tests.patience import patient

RUN = "/run/netengine-lab"
ADDRESS = "192.168.99.{}"


class Swarm:
    """A lab of `count` hosts h1 and on, at 192.168.99.1 and on, on a machine of the test's own."""

    def __init__(self, directory: Path, count: int, *flags: str, has_etcd: bool = True) -> None:
        program = etcd_program()
        self.machine = Host("machine", directory, ELSEWHERE if has_etcd else (*ELSEWHERE, program))
        # Without installed etcd the one that `scripts/install --test` has unpacked.
        self._environment = {
            "NETENGINE_LAB_PATIENCE": str(round(patient(60))),
            "PATH": f"{os.environ['PATH']}:{Path(program).parent}",
        }
        try:
            self.lab("up", str(count), *flags)
        except BaseException:
            self.machine.close()
            raise
        self.hosts = [f"h{n}" for n in range(1, count + 1)]

    def close(self) -> None:
        """End it; nothing may be left, and no daemon may have stumbled."""
        try:
            logs = {host: self.machine.path(f"{RUN}/{host}/netengined.log").read_text() for host in self.hosts}
            self.lab("down")
            for host, text in logs.items():
                at = text.find("Traceback")
                assert at < 0, f"{host}: {text[max(0, at - 300) : at + 2000]}"
            wait_until(lambda: not self.machine.pids(), lambda: f"processes are left: {self.machine.pids()}", 20)
        finally:
            self.machine.close()

    # -- commands -----------------------------------------------------------------------------------------------------

    def _lab(self, *words: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-m", "netengine.cli.main", "lab", *words]
        return self.machine.run(argv, timeout=patient(180), env=self._environment)

    def lab(self, *words: str) -> str:
        done = self._lab(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def argv(self, host: str, *words: str) -> list[str]:
        """That runs a command on a host, from the machine."""
        return [sys.executable, "-m", "netengine.cli.main", "lab", "exec", host, *words]

    def run(self, host: str, *words: str) -> subprocess.CompletedProcess[str]:
        """A command on a host."""
        return self._lab("exec", host, *words)

    def _docker(self, host: str, *words: str) -> subprocess.CompletedProcess[str]:
        return self.machine.run(["docker", "-H", f"unix://{RUN}/{host}.sock", *words], timeout=patient(120))

    def docker(self, host: str, *words: str) -> str:
        """The docker CLI on a host, which must succeed."""
        done = self._docker(host, *words)
        assert done.returncode == 0, f"docker {' '.join(words)} on {host}: {done.stderr}{self.log(host)}"
        return done.stdout.strip()

    def netengine(self, host: str, *words: str) -> str:
        """The netengine command on a host, which must succeed."""
        done = self.run(host, sys.executable, "-m", "netengine.cli.main", *words)
        assert done.returncode == 0, f"netengine {' '.join(words)} on {host}: {done.stderr}{self.log(host)}"
        return done.stdout.strip()

    def refused(self, host: str, *words: str) -> str:
        """What the docker CLI says when the daemon refuses."""
        done = self._docker(host, *words)
        assert done.returncode != 0, f"docker {' '.join(words)} on {host}: {done.stdout}"
        return done.stderr.strip().removeprefix("Error response from daemon: ")

    # -- what there is ------------------------------------------------------------------------------------------------

    def nodes(self, host: str) -> dict[str, tuple[str, str, str]]:
        """(status, availability, manager status) by host name, as `docker node ls` shows them on a host."""
        form = "{{.Hostname}} {{.Status}} {{.Availability}} {{.ManagerStatus}}."
        rows = [line[:-1].split(" ") for line in self.docker(host, "node", "ls", "--format", form).splitlines()]
        return {name: (status, availability, manager) for name, status, availability, manager in rows}

    def managers(self, host: str) -> dict[str, str]:
        """Manager status by host name, of those that have one."""
        return {name: row[2] for name, row in self.nodes(host).items() if row[2]}

    def asked(self, host: str, path: str) -> Answer:
        """What the API of a host's daemon answers. It costs no process: for what is asked until it is so."""
        return ask(str(self.machine.path(f"{RUN}/{host}.sock")), "GET", path, timeout=120)

    def info(self, host: str) -> dict[str, Any]:
        """The Swarm section of `docker info`."""
        answer = self.asked(host, "/info")
        assert answer.status == 200, f"{answer.message}{self.log(host)}"
        return dict(answer.json["Swarm"])

    def state(self, host: str) -> str:
        return str(self.info(host)["LocalNodeState"])

    def token(self, host: str, role: str = "worker") -> str:
        return self.docker(host, "swarm", "join-token", "-q", role)

    def await_nodes(self, host: str, **wanted: tuple[str, str]) -> None:
        """Wait until nodes have this status and manager status on a host; "Leader" and "Reachable" are the same here."""

        def seen() -> dict[str, tuple[str, str]]:
            answer = self.asked(host, "/nodes")
            rows = {}
            for node in answer.json if answer.status == 200 else ():
                manager = node.get("ManagerStatus") or {}
                rows[node["Description"]["Hostname"]] = (
                    node["Status"]["State"].title(),
                    manager.get("Reachability", "").title(),
                )
            return rows

        wait_until(
            lambda: wanted.items() <= seen().items(),
            lambda: f"{wanted} on {host}: {seen()}{self.log(host)}",
            60,
        )

    # -- the hosts' insides -------------------------------------------------------------------------------------------

    def log(self, host: str) -> str:
        text = self.machine.path(f"{RUN}/{host}/netengined.log").read_text()
        return "\n" + "\n".join(text.splitlines()[-12:])

    def kill_daemon(self, host: str) -> None:
        """By SIGKILL; what it has started runs on."""
        pid = self.daemon_pid(host)
        self.lab("exec", host, "kill", "-9", pid)
        self.await_end(host, pid)

    def daemon_pid(self, host: str) -> str:
        """In the host, by what the daemon itself has written down."""
        return self.lab("exec", host, "cat", "/run/netengined.pid")

    def await_end(self, host: str, pid: str, after: str = "") -> None:
        wait_until(lambda: pid not in self._processes(host), f"process {pid} of {host} is gone {after}".rstrip())

    def _processes(self, host: str) -> dict[str, str]:
        """The programs that run on a host, by their PIDs there. A zombie is one: its other threads may hold its files still."""
        processes = self.machine.path("/proc")
        first = json.loads(self.machine.path(f"{RUN}/lab.json").read_text())["hosts"][host]["pid"]
        own, found = os.readlink(processes / str(first) / "ns/pid"), {}
        for entry in processes.iterdir():
            try:
                if entry.name.isdigit() and os.readlink(entry / "ns/pid") == own:
                    status = dict(line.split(":\t", 1) for line in (entry / "status").read_text().splitlines())
                    found[status["NSpid"].split()[-1]] = status["Name"]
            except OSError:
                continue  # it has ended meanwhile
        return found

    def pid_of(self, host: str, wanted: str) -> str:
        """The pid of a program on a host, in the host; "" when it does not run."""
        return next((pid for pid, program in self._processes(host).items() if program == wanted), "")

    def etcd_pid(self, host: str) -> str:
        return self.pid_of(host, "etcd")

    def kill_etcd(self, host: str, signal: str = "KILL") -> None:
        self.lab("exec", host, "kill", f"-{signal}", self.etcd_pid(host))

    def clean_up(self, host: str) -> str:
        """`netengined --cleanup` on a host whose daemon does not run."""
        words = [
            "--data-root",
            f"{RUN}/{host}/data",
            "--exec-root",
            "/run/netengine",
            "--pidfile",
            "/run/netengined.pid",
        ]
        return self.lab("exec", host, sys.executable, "-m", "netengine.daemon", *words, "--cleanup")

    def start_daemon(self, host: str, failpoints: str = "") -> None:
        """Start a host's daemon again, in the way that the lab does; with a directory of failpoints, if one is given."""
        home = f"{RUN}/{host}"
        argv = ["env", f"NETENGINE_FAILPOINTS={failpoints}"] if failpoints else []
        argv += [sys.executable, "-m", "netengine.daemon", "--host", f"unix://{RUN}/{host}.sock", "--data-root"]
        argv += [f"{home}/data", "--exec-root", "/run/netengine", "--pidfile", "/run/netengined.pid", "--detach"]
        done = self.run(host, *argv, "--config-file", f"{home}/daemon.json")
        assert done.returncode == 0, done.stderr

    def cluster_directory(self, host: str) -> Path:
        return self.machine.path(f"{RUN}/{host}/data/cluster")

    def files_of(self, host: str) -> list[str]:
        """What a host keeps of a cluster on its disk."""
        directory = self.cluster_directory(host)
        return sorted(str(p.relative_to(directory)) for p in directory.rglob("*")) if directory.exists() else []

    def is_alone(self, host: str) -> bool:
        """Whether nothing on the host is left of a cluster: no state, no file, no member of etcd."""
        return self.state(host) == "inactive" and not self.files_of(host) and not self.etcd_pid(host)
