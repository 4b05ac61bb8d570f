"""What the daemon and the relay say to each other: one JSON message in each packet of a SOCK_SEQPACKET unix socket. No policy.

The daemon asks, the relay answers in order: one `Done` for each request, after as many `Listed` as it has doors where that
was the question. A door's socket travels with `Open`, and back with `Listed`, by SCM_RIGHTS.
"""

from __future__ import annotations

from typing import Literal

import msgspec

VERSION = 2
"""A process of version 1, which an earlier daemon may have left, knows no message about several doors."""

LARGEST = 1 << 16
"""Bytes of one message."""

MOST = 200
"""Doors in one message. The kernel passes 253 descriptors at once (SCM_MAX_FD)."""


class Door(msgspec.Struct, frozen=True):
    """A port of the host, and where what comes there is carried to."""

    address: str
    protocol: Literal["tcp", "udp"]
    port: int
    target: str
    target_port: int

    @property
    def key(self) -> tuple[str, str, int]:
        return self.address, self.protocol, self.port


class Open(msgspec.Struct, frozen=True, tag_field="op", tag="open"):
    """Serve the socket that comes with this; another one for the same port takes the place of the first."""

    door: Door


class Close(msgspec.Struct, frozen=True, tag_field="op", tag="close"):
    """Let go of the sockets of these ports and end what flows through them."""

    address: str
    protocol: str
    port: int


class OpenAll(msgspec.Struct, frozen=True, tag_field="op", tag="open-all"):
    """As `Open`, for several doors: their sockets come with this, in the same order."""

    doors: list[Door]


class CloseAll(msgspec.Struct, frozen=True, tag_field="op", tag="close-all"):
    """As `Close`, for several ports: (address, protocol, number) of each."""

    ports: list[tuple[str, str, int]]


class List(msgspec.Struct, frozen=True, tag_field="op", tag="list"):
    """Which doors are there? With their sockets, if so wished."""

    sockets: bool = False


Request = Open | Close | OpenAll | CloseAll | List


class Listed(msgspec.Struct, frozen=True, tag_field="is", tag="listed"):
    door: Door


class Done(msgspec.Struct, frozen=True, tag_field="is", tag="done"):
    """The request was carried out, or could not be (`error`)."""

    version: int = VERSION
    pid: int = 0
    connections: int = 0
    flows: int = 0
    error: str = ""


Answer = Listed | Done
