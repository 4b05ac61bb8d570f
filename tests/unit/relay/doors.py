"""A relay within the test's process: its loop on a thread, doors on ::1, containers on 127.0.0.1."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec

from netengine.dns.loop import Loop
from netengine.relay import protocol
from netengine.relay.protocol import Door
from netengine.relay.server import Server

T = TypeVar("T")
SECONDS = 10


class Relay:
    """`open` makes a door to a target; `ask` speaks to the control socket as the daemon does."""

    def __init__(self, path: Path) -> None:
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listening.bind(str(path))
        listening.listen()
        self.loop = Loop()
        self.server = Server(self.loop, listening)
        self._listening = listening
        self._thread = threading.Thread(target=self.loop.run)
        self._thread.start()
        self.control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control.settimeout(SECONDS)
        self.control.connect(str(path))

    def ask(self, request: protocol.Request | bytes, *sockets: socket.socket) -> list[protocol.Answer]:
        data = request if isinstance(request, bytes) else msgspec.json.encode(request)
        socket.send_fds(self.control, [data], [s.fileno() for s in sockets])
        answers: list[protocol.Answer] = []
        while not answers or not isinstance(answers[-1], protocol.Done):
            answers.append(msgspec.json.decode(self.control.recv(protocol.LARGEST), type=protocol.Answer))
        return answers

    def done(self, request: protocol.Request | bytes, *sockets: socket.socket) -> protocol.Done:
        answer = self.ask(request, *sockets)[-1]
        assert isinstance(answer, protocol.Done)
        return answer

    def open(self, target: socket.socket) -> tuple[str, int]:
        """A door to the socket of a container; its address."""
        kind = target.type
        sock = socket.socket(socket.AF_INET6, kind)
        sock.bind(("::1", 0))
        if kind == socket.SOCK_STREAM:
            sock.listen()
        address, port = sock.getsockname()[:2]
        there, number = target.getsockname()[:2]
        door = Door(address, "tcp" if kind == socket.SOCK_STREAM else "udp", port, there, number)
        assert self.done(protocol.Open(door), sock).error == ""
        sock.close()
        return address, port

    def close(self) -> None:
        self.loop.running = False
        self.control.close()  # wakes the loop
        self._thread.join(SECONDS)
        for key in list(self.server.doors):
            self.server.close(key)
        self._listening.close()


def until(condition: Callable[[], T]) -> T:
    """Ask until the answer is true."""
    from tests.hosts import wait_until

    return wait_until(condition, "the relay to get there", SECONDS)
