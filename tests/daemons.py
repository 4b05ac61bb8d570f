"""The daemon in a test host, and its clients: the raw API, the real `docker` CLI, docker-py, the `netengine` command.

Everything goes over the daemon's unix socket, as users do it; nothing here imports netengine.
"""

from __future__ import annotations

import http.client
import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.hosts import REPO, Host, Process, wait_until
from tests.patience import patient

SOCKET = "/run/netengine/netengine.sock"
EXEC_ROOT = "/run/netengine"


@dataclass(frozen=True)
class Answer:
    """An HTTP answer of the daemon."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def message(self) -> str:
        """The text of an error; the body must be exactly `{"message": ...}` under exactly `application/json`."""
        assert self.headers["Content-Type"] == "application/json", "Docker's client compares without charset"
        assert list(self.json) == ["message"]
        return str(self.json["message"])


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def ask(
    socket_path: str,
    method: str,
    path: str,
    body: Any = None,
    *,
    raw: bytes | None = None,
    headers: dict[str, str] | None = None,
    timeout: float = 30.0,
) -> Answer:
    """One API call over a unix socket. `body` is sent as JSON; `raw` is sent as it is."""
    connection = _UnixConnection(socket_path, patient(timeout))
    sent = dict(headers or {})
    data = raw
    if body is not None:
        data = json.dumps(body).encode()
    if data is not None:
        sent.setdefault("Content-Type", "application/json")
    try:
        connection.request(method, path, body=data, headers=sent)
        answer = connection.getresponse()
        return Answer(answer.status, dict(answer.getheaders()), answer.read())
    finally:
        connection.close()


class Daemon:
    """`netengined` in a host, with a data directory of its own. Its log is in `log`, shown when a test fails."""

    alive: list[Daemon] = []

    def __init__(self, host: Host, *flags: str, config: dict[str, Any] | None = None) -> None:
        self.host = host
        self.flags = list(flags)
        self.hosts: tuple[str, ...] = (f"unix://{SOCKET}",)
        self.data_root = host.disk / "netengine"  # a path of the host
        self.config_file = host.directory / f"{host.name}-daemon.json"
        self.config_file.write_text(json.dumps(config or {}))
        self.log = host.directory / f"{host.name}-netengined.log"
        self.log.touch()
        self.process: Process | None = None
        self.socket_path = str(host.path(SOCKET))
        self.url = f"unix://{self.socket_path}"

    @property
    def argv(self) -> list[str]:
        argv = [sys.executable, "-m", "netengine.daemon", *(f"--host={host}" for host in self.hosts)]
        argv += ["--data-root", str(self.data_root), "--exec-root", EXEC_ROOT, "--config-file", str(self.config_file)]
        return [*argv, *self.flags]

    # ------------------------------------------------------------------ its life

    def start(self, timeout: float = 20.0) -> Daemon:
        """Start it and wait until it answers."""
        with self.log.open("ab") as log:
            self.process = self.host.popen(self.argv, env=ENVIRONMENT, stdout=log, stderr=log)
        process = self.process

        def ready() -> bool:
            if process.popen.poll() is not None:
                raise AssertionError(f"netengined ended with status {process.popen.returncode}:\n{self.tail()}")
            try:
                return self.request("GET", "/_ping", timeout=timeout).status == 200
            except (OSError, http.client.HTTPException):
                return False

        try:
            wait_until(ready, lambda: f"netengined did not answer on its socket:\n{self.tail()}", timeout)
        except AssertionError:
            process.stop()
            raise
        Daemon.alive.append(self)
        return self

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it by a signal and wait; the exit status. Containers and networks stay."""
        assert self.process is not None
        status = self.process.stop(number)
        self.process = None
        if self in Daemon.alive:
            Daemon.alive.remove(self)
        return status

    def kill9(self) -> None:
        self.stop(signal.SIGKILL)

    def restart(self, number: int = signal.SIGTERM) -> None:
        self.stop(number)
        self.start()

    def cleanup(self) -> subprocess.CompletedProcess[str]:
        """Stop it and let `netengined --cleanup` remove every trace from the host."""
        if self.process is not None:
            self.stop()
        return self.host.run([*self.argv, "--cleanup"], env=ENVIRONMENT, check=True)

    def tail(self, since: int = 0, limit: int = 6000) -> str:
        """The end of the log, from byte `since` on."""
        return self.log.read_bytes()[since:][-limit:].decode("utf-8", "replace")

    # ------------------------------------------------------------------ its clients

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        raw: bytes | None = None,
        headers: dict[str, str] | None = None,
        timeout: float = 30.0,
    ) -> Answer:
        """One API call. `body` is sent as JSON; `raw` is sent as it is."""
        return ask(self.socket_path, method, path, body, raw=raw, headers=headers, timeout=timeout)

    def connect(self) -> socket.socket:
        """A bare connection to the API socket."""
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(patient(10))
        sock.connect(self.socket_path)
        return sock


def _path() -> str:
    """PATH for what runs in a host: this Python's scripts first, so that `netengine` is the one under test."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


ENVIRONMENT = {"PYTHONPATH": str(REPO), "PYTHONDONTWRITEBYTECODE": "1", "PATH": _path()}


class Failed(AssertionError):
    """A client command ended with an exit status other than 0. `code` and `text` (standard error) say how."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.code = done.returncode
        self.out = done.stdout
        self.text = done.stderr.strip()
        words = " ".join(word if len(word) < 80 else f"{word[:60].strip()}..." for word in done.args)
        super().__init__(f"{words}: exit {done.returncode}\n{done.stdout}{done.stderr}")


class Client:
    """A command-line client of a daemon, run inside the daemon's host."""

    def __init__(self, daemon: Daemon, argv: list[str], env: dict[str, str]) -> None:
        self.daemon = daemon
        self.host = daemon.host
        self._argv = argv
        self._env = {**ENVIRONMENT, **env}

    def __call__(self, *words: str, stdin: str | bytes = b"", timeout: float = 30) -> str:
        """Run to the end and return standard output without the last newline. Raises `Failed`."""
        done = self.run(*words, stdin=stdin, timeout=timeout)
        if done.returncode != 0:
            raise Failed(done)
        return done.stdout.rstrip("\n")

    def run(self, *words: str, stdin: str | bytes = b"", timeout: float = 30) -> subprocess.CompletedProcess[str]:
        return self.host.run([*self._argv, *words], env=self._env, stdin=stdin, timeout=timeout)

    def refused(self, *words: str, stdin: str | bytes = b"") -> Failed:
        """Run a command that must fail; how it failed."""
        try:
            output = self(*words, stdin=stdin)
        except Failed as failed:
            return failed
        raise AssertionError(f"{' '.join(words)} succeeded: {output}")

    def json(self, *words: str) -> Any:
        return json.loads(self(*words))

    def inspect(self, name: str) -> Any:
        (found,) = self.json("inspect", name)
        return found

    def address(self, container: str, network: str = "bridge") -> str:
        return str(self.inspect(container)["NetworkSettings"]["Networks"][network]["IPAddress"])

    def start(self, *words: str, **options: Any) -> Process:
        """Leave a command running: `logs --follow`, `events`."""
        return self.host.popen([*self._argv, *words], env=self._env, **options)

    def terminal(self, *words: str) -> Terminal:
        """Run a command on a terminal, as a person does."""
        return Terminal(self.host.argv([*self._argv, *words]), {**os.environ, **self._env, "TERM": "dumb"})


class Terminal:
    """A person at a pseudo-terminal of 24 lines by 80 columns: types, and waits for what must appear."""

    def __init__(self, argv: list[str], env: dict[str, str]) -> None:
        self.seen = ""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execvpe(argv[0], argv, env)
        self.resize(24, 80)

    def resize(self, lines: int, columns: int) -> None:
        import termios

        termios.tcsetwinsize(self.fd, (lines, columns))
        os.kill(self.pid, signal.SIGWINCH)

    def type(self, text: str) -> None:
        os.write(self.fd, text.encode())

    def expect(self, pattern: str, timeout: float = 15.0) -> str:
        """Read until the regular expression appears; what came after it stays for the next call."""
        deadline = time.monotonic() + patient(timeout)
        while (found := re.search(pattern, self.seen)) is None:
            left = deadline - time.monotonic()
            if left <= 0 or not self._read(left):
                raise AssertionError(f"the terminal never showed {pattern!r}, but: {self.seen!r}")
        self.seen = self.seen[found.end() :]
        return found.group()

    def _read(self, timeout: float) -> bool:
        ready, _, _ = select.select([self.fd], [], [], timeout)
        if not ready:
            return False
        try:
            data = os.read(self.fd, 4096)
        except OSError:  # EIO: the other side is gone
            return False
        self.seen += data.decode("utf-8", "replace")
        return bool(data)

    def end(self, timeout: float = 15.0) -> int:
        """Wait for the command to end; its exit status."""
        deadline = time.monotonic() + patient(timeout)
        while True:
            if select.select([self.fd], [], [], 0.01)[0]:
                self._read(0)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                os.close(self.fd)
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                os.close(self.fd)
                raise AssertionError(f"the command did not end; the terminal shows {self.seen!r}")


def docker_cli(daemon: Daemon) -> Client:
    """The real docker CLI, from PATH or from where `scripts/install --test` puts it."""
    unpacked = REPO / ".cache/docker/usr/bin/docker"
    program = shutil.which("docker") or (str(unpacked) if unpacked.exists() else None)
    if program is None:
        pytest.fail(
            "the docker CLI is not installed: run `scripts/install --test`, or put `docker` on PATH", pytrace=False
        )
    home = daemon.host.directory / "docker-config"
    home.mkdir(exist_ok=True)
    return Client(daemon, [program], {"DOCKER_HOST": f"unix://{SOCKET}", "DOCKER_CONFIG": str(home)})


def netengine_cli(daemon: Daemon) -> Client:
    """netengine's own command, as `python -m` so that it is this tree's."""
    return Client(daemon, [sys.executable, "-m", "netengine.cli.main"], {"NETENGINE_HOST": f"unix://{SOCKET}"})
