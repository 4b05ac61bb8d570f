"""What a WireGuard link is told and asked: by text on the socket of a process of wireguard-go. `wgnetlink` is the same for the
kernel's own links.

Source: https://www.wireguard.com/xplatform/ (the configuration protocol).
"""

from __future__ import annotations

import base64
import os
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from netengine.errors import KernelRefused
from netengine.kernel import wgkeys

KEEPALIVE = 25
"""Seconds. A peer that is set up says something at once, so that the keys are agreed upon before the first packet; after that
often enough for a NAT router on the way to remember."""

_SOCKETS = Path("/var/run/wireguard")
_PATIENCE = 3.0  # seconds


@dataclass(frozen=True, slots=True)
class Peer:
    """As a link has it. `handshake` is 0 as long as keys were never agreed upon."""

    public_key: str
    endpoint: str
    allowed: tuple[str, ...]
    handshake: int = 0


@dataclass(frozen=True, slots=True)
class State:
    """`public_key` is "" for a link without a private key."""

    public_key: str
    port: int
    peers: tuple[Peer, ...]


class Device(Protocol):
    """One link."""

    def configure(self, private: bytes | None, port: int) -> None:
        """Set the private key, unless it stays as it is (None), and the port."""
        ...

    def set_peers(self, peers: Iterable[Peer]) -> None:
        """Add peers, or change those that are there."""
        ...

    def remove_peers(self, public_keys: Iterable[str]) -> None: ...

    def read(self) -> State: ...


class UserSpace:
    """The link of a process of wireguard-go."""

    def __init__(self, name: str) -> None:
        self._name = name
        self.path = socket_of(name)

    def configure(self, private: bytes | None, port: int) -> None:
        self._set([*([f"private_key={private.hex()}"] if private else []), f"listen_port={port}"])

    def set_peers(self, peers: Iterable[Peer]) -> None:
        self._set([line for peer in peers for line in _lines(peer)])

    def remove_peers(self, public_keys: Iterable[str]) -> None:
        self._set([line for key in public_keys for line in (f"public_key={_hex(key)}", "remove=true")])

    def read(self) -> State:
        return parse(self._exchange("get=1\n\n"))

    def _set(self, lines: list[str]) -> None:
        self._exchange("\n".join(["set=1", *lines]) + "\n\n")

    def _exchange(self, text: str) -> list[tuple[str, str]]:
        """What is sent holds the private key: no error names it."""
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as sock:
                sock.settimeout(_PATIENCE)
                sock.connect(str(self.path))
                sock.sendall(text.encode())
                answer = bytearray()
                while not answer.endswith(b"\n\n"):
                    data = sock.recv(1 << 16)
                    if not data:
                        break
                    answer += data
        except OSError as e:
            raise KernelRefused(
                f"wireguard-go does not answer for {self._name} ({self.path}): {e.strerror or e}"
            ) from None
        found = [(key, value) for key, _, value in (line.partition("=") for line in answer.decode().split("\n")) if key]
        number = next((int(value) for key, value in found if key == "errno"), -1)
        if number:
            words = os.strerror(abs(number)) if number != -1 else "no answer"
            raise KernelRefused(f"wireguard-go refused a setting of {self._name}: {words}")
        return found


def socket_of(name: str) -> Path:
    return _SOCKETS / f"{name}.sock"


def _hex(key: str) -> str:
    return base64.b64decode(key).hex()


def _base64(key: str) -> str:
    return base64.b64encode(bytes.fromhex(key)).decode()


def _lines(peer: Peer) -> Iterator[str]:
    yield f"public_key={_hex(peer.public_key)}"
    yield f"endpoint={peer.endpoint}"
    yield f"persistent_keepalive_interval={KEEPALIVE}"
    yield "replace_allowed_ips=true"
    for prefix in peer.allowed:
        yield f"allowed_ip={prefix}"


def parse(lines: Iterable[tuple[str, str]]) -> State:
    """The answer to get=1."""
    public, port = "", 0
    peers: list[_Heard] = []
    for key, value in lines:
        match key:
            case "private_key":
                public = wgkeys.public_of(bytes.fromhex(value)) if int(value, 16) else ""
            case "listen_port":
                port = int(value)
            case "public_key":
                peers.append(_Heard(_base64(value)))
            case "endpoint":
                peers[-1].endpoint = value
            case "allowed_ip":
                peers[-1].allowed.append(value)
            case "last_handshake_time_sec":
                peers[-1].handshake = int(value)
    return State(public, port, tuple(Peer(p.public_key, p.endpoint, tuple(p.allowed), p.handshake) for p in peers))


@dataclass(slots=True)
class _Heard:
    """A peer of which more is to come."""

    public_key: str
    endpoint: str = ""
    allowed: list[str] = field(default_factory=list)
    handshake: int = 0
