"""Hosts of the lab: started with unshare, entered with nsenter, ended by the pid of their first process."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from netengine import processes
from netengine.errors import KernelRefused, Unavailable
from netengine.lab.record import Node, Record

NEEDED = {"unshare": "util-linux", "nsenter": "util-linux", "ip": "iproute2", "nft": "nftables"}
"""Programs, with Debian's packages."""

_NAMESPACES = ("--net", "--mount", "--uts", "--ipc", "--pid")
_PATIENCE = float(os.environ.get("NETENGINE_LAB_PATIENCE", "30"))


def check_programs() -> None:
    missing = sorted({package for program, package in NEEDED.items() if shutil.which(program) is None})
    if missing:
        raise Unavailable(f"a lab needs what Debian calls {', '.join(missing)}: apt-get install {' '.join(missing)}")


def start(name: str, directory: Path) -> Node:
    """New namespaces with a first process that holds them. Raises KernelRefused."""
    argv = ["unshare", *_NAMESPACES, "--fork", "--mount-proc", "--propagation", "private", "--"]
    argv += [sys.executable, "-m", "netengine.lab.init", name, str(directory)]
    process = subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": _python_path()},
    )
    assert process.stdout is not None
    said = process.stdout.readline().decode(errors="replace").strip()
    process.stdout.close()
    if said != "ready":
        process.kill()
        process.wait()
        raise KernelRefused(f"host {name} cannot be made: {said or 'no word from its first process'}")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    pid = int(children[0])
    return Node(name, pid, processes.started(pid) or 0)


def _python_path() -> str:
    """Where this very netengine is: a host starts in a directory of its own."""
    return str(Path(__file__).resolve().parents[2])


def inside(node: Node, argv: Sequence[str], *, only_network: bool = False) -> list[str]:
    """The argument vector that runs a command in a host."""
    entered = ("--net",) if only_network else _NAMESPACES
    return ["nsenter", "--target", str(node.pid), *entered, "--", *argv]


def run(node: Node, argv: Sequence[str], stdin: str = "", *, only_network: bool = False) -> str:
    """Run a command in a host to its end. Raises KernelRefused with its words."""
    done = subprocess.run(
        inside(node, argv, only_network=only_network), input=stdin, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise KernelRefused(f"on {node.name}: {' '.join(argv)}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def environment(record: Record, name: str) -> Mapping[str, str]:
    """What a command in a host finds: its own daemon is the one that docker and netengine speak to."""
    url = f"unix://{record.socket(name)}"
    return {**os.environ, "DOCKER_HOST": url, "NETENGINE_HOST": url}


def start_daemon(record: Record, name: str) -> subprocess.Popen[bytes]:
    """netengined on a host, its log in the lab's directory. It has not served yet when this returns."""
    home = record.directory / name
    home.mkdir(mode=0o711, exist_ok=True)
    argv = [sys.executable, "-m", "netengine.daemon", "--host", f"unix://{record.socket(name)}"]
    argv += ["--data-root", str(home / "data"), "--exec-root", "/run/netengine", "--pidfile", "/run/netengined.pid"]
    argv += ["--config-file", str(home / "daemon.json")]
    (home / "daemon.json").write_text("{}\n")
    with (home / "netengined.log").open("ab") as log:
        return subprocess.Popen(
            inside(record.hosts[name], argv),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": _python_path()},
        )


def answers(path: Path) -> bool:
    """Whether a daemon serves on a socket."""
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(2)
            client.connect(str(path))
            client.sendall(b"GET /_ping HTTP/1.0\r\nHost: lab\r\n\r\n")
            return b" 200 " in client.recv(256).split(b"\r\n")[0]
    except OSError:
        return False


def await_daemon(record: Record, name: str, process: subprocess.Popen[bytes]) -> None:
    """Raises KernelRefused with the end of its log when it ends or does not answer in time."""
    deadline = time.monotonic() + _PATIENCE
    while not answers(record.socket(name)):
        ended = process.poll() is not None
        if ended or time.monotonic() > deadline:
            log = (record.directory / name / "netengined.log").read_text(errors="replace").strip()
            why = f"ended with status {process.returncode}" if ended else f"did not answer within {_PATIENCE:g} s"
            raise KernelRefused(f"the daemon of {name} {why}: {log[-600:] or 'it logged nothing'}")
        time.sleep(0.02)


def end(node: Node) -> None:
    """Kill a host's first process; with it goes all that runs there."""
    if not node.is_alive:
        return
    os.kill(node.pid, signal.SIGKILL)
    deadline = time.monotonic() + _PATIENCE
    while node.is_alive:
        if time.monotonic() > deadline:
            raise KernelRefused(f"process {node.pid}, the first of {node.name}, does not end")
        time.sleep(0.01)
