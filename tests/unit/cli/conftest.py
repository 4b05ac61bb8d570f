"""A stand-in for the daemon: a real HTTP server on a real unix socket, which answers canned Docker API JSON and remembers."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

REPOSITORY = Path(__file__).parents[3]


@dataclass
class Request:
    method: str
    path: str  # decoded, without the version
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: bytes
    connection: socket.socket = field(repr=False)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Answer:
    """A canned answer. `raw` is sent as it is, head and all."""

    body: Any = None
    status: int = 200
    raw: bytes | None = None


Handler = Callable[[Request], Answer | None]


class FakeEngine:
    """Routes are "METHOD /path" of the decoded, unversioned target; what is not routed is 404 "page not found"."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.host = f"unix://{path}"
        self.requests: list[Request] = []
        self.routes: dict[str, Answer | Handler] = {}
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(16)
        threading.Thread(target=self._accept, daemon=True).start()

    def on(self, route: str, answer: Any = None, status: int = 200) -> None:
        self.routes[route] = answer if callable(answer) or isinstance(answer, Answer) else Answer(answer, status)

    def raw(self, route: str, data: bytes) -> None:
        """Answer with these very bytes, head and all, then close."""
        self.routes[route] = Answer(raw=data)

    @staticmethod
    def frame(stream: int, payload: bytes) -> bytes:
        """One frame of a multiplexed stream."""
        return bytes((stream, 0, 0, 0)) + len(payload).to_bytes(4, "big") + payload

    @staticmethod
    def upgraded(kind: str = "multiplexed-stream") -> bytes:
        """The head of an answer that turns into a stream."""
        return (
            f"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.{kind}\r\n"
            "Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
        ).encode()

    def refuse(self, route: str, status: int, message: str) -> None:
        self.on(route, {"message": message}, status)

    def asked(self, route: str) -> list[Request]:
        return [request for request in self.requests if f"{request.method} {request.path}" == route]

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as reader:
            request = self._read(reader, connection)
            self.requests.append(request)
            route = self.routes.get(f"{request.method} {request.path}", Answer({"message": "page not found"}, 404))
            answer = route(request) if callable(route) else route
            if answer is None:
                return
            if answer.raw is not None:
                connection.sendall(answer.raw)
                return
            body = b"" if answer.body is None else json.dumps(answer.body).encode()
            head = (
                f"HTTP/1.1 {answer.status} X\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            connection.sendall(head.encode() + body)

    @staticmethod
    def _read(reader: Any, connection: socket.socket) -> Request:
        method, target, _ = reader.readline().decode().split(" ")
        headers = {}
        while line := reader.readline().decode().strip():
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(reader.readline(), 16):
                body += reader.read(size)
                reader.readline()
            reader.readline()
        else:
            body = reader.read(int(headers.get("content-length", 0)))
        parts = urlsplit(target)
        return Request(
            method, unquote(parts.path).removeprefix("/v1.51"), parse_qs(parts.query), headers, body, connection
        )


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[FakeEngine]:
    fake = FakeEngine(tmp_path / "ne.sock")
    yield fake
    fake.close()


@dataclass
class Result:
    status: int
    out: str
    err: str


@pytest.fixture
def cli(
    engine: FakeEngine, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Result]:
    """Run one command line in this process, against the fake engine."""
    from netengine.cli.main import main

    monkeypatch.setenv("NETENGINE_HOST", engine.host)
    monkeypatch.setenv("TZ", "UTC")

    def run(*words: str) -> Result:
        capfd.readouterr()
        status = main(list(words))
        out, err = capfd.readouterr()
        return Result(status, out, err)

    return run


@pytest.fixture
def process(engine: FakeEngine) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start the command as a process of its own: for signals, terminals and standard input."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*words: str, **options: Any) -> subprocess.Popen[bytes]:
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "NETENGINE_HOST": engine.host}
        child = subprocess.Popen([sys.executable, "-m", "netengine.cli.main", *words], env=environment, **streams)
        started.append(child)
        return child

    yield start
    for child in started:
        if child.poll() is None:
            child.kill()
        child.communicate()
