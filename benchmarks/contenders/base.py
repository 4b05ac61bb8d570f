"""What every contender can be asked for, and the small means that they share."""

from __future__ import annotations

import json
import socket
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

FIRST_PORT = 20000
"""Port FIRST_PORT + n of a host leads to port 80 of namespace n."""


class Contender(ABC):
    """One way to connect namespaces. It works inside its own host; every call is one whole operation as its user would see it.

    A method may answer the milliseconds that it took by itself; otherwise whoever calls it takes the time.
    """

    name: str
    server = ""
    """The daemon that it needs in its host: "netengine", "docker" or "" for none."""

    @staticmethod
    def missing() -> str:
        """What is not installed, with the Debian package; "" when it can take part."""
        return ""

    @abstractmethod
    def prepare(self, count: int) -> None:
        """Make the network and `count` namespaces (for an engine: running containers), off the network."""

    @abstractmethod
    def attach(self, n: int) -> float | None:
        """Put namespace `n` on the network."""

    @abstractmethod
    def detach(self, n: int) -> float | None:
        """Take namespace `n` off the network."""

    @abstractmethod
    def port(self, n: int) -> float | None:
        """As `attach`, with TCP port FIRST_PORT + n of the host leading to port 80 of the namespace."""

    def run(self, n: int) -> float | None:
        """`docker run -d -p PORT:80 IMAGE true`, until the client has the id."""
        raise NotImplementedError


def can(contender: type[Contender], verb: str) -> bool:
    """Whether a contender does this at all."""
    return getattr(contender, verb) is not getattr(Contender, verb)


def namespaces(count: int) -> None:
    """Named network namespaces ns0 to ns(count-1)."""
    for n in range(count):
        run(["ip", "netns", "add", f"ns{n}"])


def address(n: int, first: str) -> str:
    """The address of namespace `n` in a /16 that begins with `first`: .0.2 and on."""
    return f"{first}.{n // 250}.{n % 250 + 2}"


def run(argv: Sequence[str], stdin: bytes = b"", env: Mapping[str, str] | None = None) -> str:
    """Run a command to its end and answer its output. Raises RuntimeError with its words when it fails."""
    done = subprocess.run(argv, input=stdin, env=env, capture_output=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(argv)}: {(done.stderr or done.stdout).decode(errors='replace')}")
    return done.stdout.decode()


def call(path_of_socket: str, method: str, path: str, body: object = None) -> bytes:
    """An HTTP request on a unix socket, a connection of its own; the answer's body. Raises RuntimeError from status 400 on."""
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path_of_socket)
        content = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Type: application/json\r\n"
        client.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
        answer = b""
        while piece := client.recv(65536):
            answer += piece
    if int(answer.split(None, 2)[1]) >= 400:
        raise RuntimeError(f"{method} {path}: {answer.decode(errors='replace')}")
    return answer.partition(b"\r\n\r\n")[2]
