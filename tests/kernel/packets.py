"""Packets for tests: conversations over TCP, UDP and ICMP, and what a raw socket sees and sends."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from scapy.layers.inet import ICMP, IP
from scapy.layers.l2 import Ether

from tests.hosts import ANSWER, Namespace, family_of
from tests.patience import patient

ETH_P_ALL = 3


def tcp(
    client: Namespace, address: str, port: int, server: Namespace, server_port: int | None = None, listens_at: str = ""
) -> str:
    """Words go there and back over TCP; the client's address as the server sees it."""
    at = listens_at or ("::" if ":" in address else "0.0.0.0")
    with server.listen(server_port or port, at) as listener, client.connect(address, port) as here:
        there, seen = listener.accept()
        with there:
            there.settimeout(patient(ANSWER))
            here.sendall(b"ping")
            assert there.recv(16) == b"ping"
            there.sendall(b"pong")
            assert here.recv(16) == b"pong"
        return str(seen[0])


def udp(
    client: Namespace, address: str, port: int, server: Namespace, server_port: int | None = None, listens_at: str = ""
) -> str:
    """A datagram goes there and one comes back to a connected socket; the client's address as the server sees it."""
    at = listens_at or ("::" if ":" in address else "0.0.0.0")
    with (
        server.socket(socket.SOCK_DGRAM, family_of(at)) as there,
        client.socket(socket.SOCK_DGRAM, family_of(address)) as here,
    ):
        there.bind((at, server_port or port))
        here.connect((address, port))
        here.send(b"ping")
        words, seen = there.recvfrom(16)
        there.sendto(words + b"pong", seen)
        assert here.recv(16) == b"pingpong"
        return str(seen[0])


def ping(client: Namespace, address: str, timeout: float = ANSWER) -> str:
    """An ICMP echo request, one of several, is answered; the address that the answer comes from. Raises TimeoutError."""
    number = int.from_bytes(os.urandom(2), "big")
    if ":" in address:
        return _ping6(client, address, number, timeout)
    deadline = time.monotonic() + patient(timeout)
    with client.inside(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)) as raw:
        raw.settimeout(min(1.0, patient(timeout)))
        while time.monotonic() < deadline:
            raw.sendto(bytes(ICMP(id=number) / b"payload"), (address, 0))
            try:
                while True:
                    answer = IP(raw.recv(2048))
                    if answer[ICMP].type == 0 and answer[ICMP].id == number:
                        return str(answer.src)
            except TimeoutError:
                continue
    raise TimeoutError(f"no answer from {address}")


def _ping6(client: Namespace, address: str, number: int, timeout: float) -> str:
    """Asks again and again: the kernel takes in a new IPv6 address on a work queue, which waits for whoever holds RTNL."""
    made = client.inside(lambda: socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6))
    deadline = time.monotonic() + patient(timeout)
    with made as raw:
        raw.settimeout(0.1)
        raw.connect((address, 0))
        while time.monotonic() < deadline:
            raw.send(struct.pack("!BBHHH7s", 128, 0, 0, number, 1, b"payload"))  # the kernel writes the checksum
            try:
                while True:
                    data, sender = raw.recvfrom(2048)
                    if data[0] == 129 and int.from_bytes(data[4:6], "big") == number:
                        return str(sender[0])
            except TimeoutError:
                continue
    raise TimeoutError(f"no answer from {address}")


def knock(client: Namespace, address: str, port: int, kind: int = socket.SOCK_DGRAM) -> None:
    """Send one datagram, or a SYN, and wait for nothing."""
    with client.socket(kind, family_of(address)) as sock:
        sock.setblocking(False)
        try:
            sock.connect((address, port))
            if kind == socket.SOCK_DGRAM:
                sock.send(b"knock")
        except BlockingIOError:
            pass


def send_frame(sender: Namespace, link: str, frame: Any) -> None:
    """Put a crafted Ethernet frame on a link."""
    with sender.inside(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)) as raw:
        raw.bind((link, 0))
        raw.send(bytes(frame))


class Ear:
    """What passes a link, from when it was made."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def hear(self, what: Callable[[Any], Any], timeout: float = 2.0) -> Any:
        """The first frame, as scapy shows it, for which `what` answers true. Raises AssertionError."""
        timeout = patient(timeout)
        deadline = time.monotonic() + timeout
        while (left := deadline - time.monotonic()) > 0:
            self._sock.settimeout(left)
            try:
                frame = Ether(self._sock.recv(65536))
            except TimeoutError:
                break
            if what(frame):
                return frame
        raise AssertionError(f"no such frame within {timeout:g} s")


@contextmanager
def listening(where: Namespace, link: str) -> Iterator[Ear]:
    with where.inside(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))) as raw:
        raw.bind((link, ETH_P_ALL))
        yield Ear(raw)
