"""A name server process on loopback: sockets on free ports stand in for those of a sandbox."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from netengine.dns.client import NameServer, spawn


class Box:
    """The sandbox's side: where its questions go."""

    def __init__(self, ident: str, udp: int, tcp: int) -> None:
        self.ident, self.udp, self.tcp = ident, udp, tcp

    def ask_raw(self, packet: bytes, timeout: float = 6.0) -> bytes:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(timeout)
            sock.connect(("127.0.0.1", self.udp))
            sock.send(packet)
            return sock.recv(65535)


async def add_box(server: NameServer, ident: str, own: int = 0) -> Box:
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    udp.bind(("127.0.0.1", 0))
    tcp.bind(("127.0.0.1", 0))
    tcp.listen(64)
    extra = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(own)]
    try:
        await server.add(ident, udp, tcp, extra)
        return Box(ident, udp.getsockname()[1], tcp.getsockname()[1])
    finally:
        for one in (udp, tcp, *extra):
            one.close()


@asynccontextmanager
async def running(folder: Path, server_port: int = 53) -> AsyncIterator[NameServer]:
    """A name server that is gone at the end."""
    server = await spawn(folder / "control", folder / "log", server_port=server_port)
    process = server.process
    assert process is not None
    try:
        yield server
    finally:
        await server.close()
        process.kill()
        process.wait(10)
