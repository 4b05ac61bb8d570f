"""A server driven turn by turn inside the test's process: what it does shows without a process or a thread around it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

from netengine.dns.loop import Loop
from netengine.dns.protocol import Entry, NetworkChange, Settings, Update
from netengine.dns.server import Server

APP = NetworkChange(
    "app",
    {
        "e1": Entry(("web",), ("172.18.0.2",)),
        "e2": Entry(("db",), ("172.18.0.3", "172.18.0.4")),
        "e3": Entry(("many",), tuple(f"172.18.1.{n}" for n in range(1, 101))),
    },
)


class House:
    """A server with sandboxes on loopback, all on network `app`."""

    def __init__(self, port: int = 53, hosts: tuple[str, ...] = ()) -> None:
        self.loop = Loop()
        self.server = Server(self.loop, port)
        self.server.update(Update(0, {"n": APP}, {}, hosts))
        self._clients: list[socket.socket] = []

    def box(self, ident: str, settings: Settings | None = None, own: int = 0, streams: int = 0) -> None:
        """Add a sandbox."""
        sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.create_server(("127.0.0.1", 0))]
        sockets += [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(own)]
        sockets += [socket.socket(socket.AF_INET, socket.SOCK_STREAM) for _ in range(streams)]
        sockets[0].bind(("127.0.0.1", 0))
        self.server.add(ident, [one.detach() for one in sockets])
        self.server.update(Update(0, {}, {ident: settings or Settings(("n",))}))

    def client(self, ident: str, tcp: bool = False) -> socket.socket:
        """A client's socket, connected to a sandbox's."""
        ports = self.server.sandboxes[ident].ports
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM)
        sock.connect(("127.0.0.1", ports.tcp if tcp else ports.udp))
        sock.setblocking(False)
        self._clients.append(sock)
        return sock

    def until(self, condition: Callable[[], object], seconds: float = 10.0) -> int:
        """Let the loop turn until a condition holds; how many turns it took."""
        deadline, turns = monotonic() + seconds, 0
        while not condition():
            assert monotonic() < deadline, f"not within {seconds} s"
            self.loop.turn(0.01)
            turns += 1
        return turns

    def close(self) -> None:
        for ident in list(self.server.sandboxes):
            self.server.remove(ident)
        for sock in self._clients:
            sock.close()


@contextmanager
def house(port: int = 53, hosts: tuple[str, ...] = ()) -> Iterator[House]:
    one = House(port, hosts)
    try:
        yield one
    finally:
        one.close()


def received(sock: socket.socket) -> bytes | None:
    """What has come on a client's socket; None if nothing has, empty if it was closed."""
    try:
        return sock.recv(65535)
    except BlockingIOError:
        return None
    except ConnectionError:
        return b""


def framed(packet: bytes) -> bytes:
    """As it goes over TCP."""
    return len(packet).to_bytes(2, "big") + packet
