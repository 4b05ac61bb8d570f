"""What the daemon and the name server say to each other: frames and messages. Shared by both sides; no policy.

A frame is a length (4 bytes, big-endian) and that many bytes of JSON. Descriptors travel by SCM_RIGHTS with the first byte
of the frame that they belong to. Requests are answered in order, one answer each: `seq` is repeated, then `ok` or `error`.
"""

from __future__ import annotations

import ipaddress
import struct

import msgspec

VERSION = 2
LENGTH = struct.Struct("!I")
LARGEST_FRAME = 64 << 20  # bytes; a model of 100,000 names is about 20 MB
MOST_DESCRIPTORS = 10  # UDP, TCP, and up to eight to ask the sandbox's own servers from


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """An endpoint's names (the first is what its addresses resolve back to) and addresses, without prefix length.

    services  port by service, `_http._tcp` say: SRV records of `_http._tcp.NAME`
    """

    names: tuple[str, ...] = ()
    ipv4: tuple[str, ...] = ()
    ipv6: tuple[str, ...] = ()
    services: dict[str, int] = {}


class Network(msgspec.Struct, frozen=True):
    """A network in full."""

    name: str
    entries: dict[str, Entry] = {}


class NetworkChange(msgspec.Struct, frozen=True, omit_defaults=True):
    """What changes in a network: endpoints that leave, then endpoints that come or are replaced."""

    name: str | None = None
    put: dict[str, Entry] = {}
    delete: tuple[str, ...] = ()


class Settings(msgspec.Struct, frozen=True, omit_defaults=True):
    """One sandbox.

    networks  ids of those it is on, the one asked first in front
    links     alias -> name of the target, seen by this sandbox alone
    servers   `--dns`: asked from the sandbox's own sockets; if empty, the host's are asked from the host
    internal  on internal networks only: the host's servers are never asked for it
    ndots     if set by the user, unknown names of one label are answered empty instead of asked for
    """

    networks: tuple[str, ...] = ()
    links: dict[str, str] = {}
    servers: tuple[str, ...] = ()
    internal: bool = False
    ndots: int | None = None


class Hello(msgspec.Struct, frozen=True, tag_field="op", tag="hello"):
    """Who is there: answered with pid, version and the sandboxes that have sockets."""

    seq: int


class Add(msgspec.Struct, frozen=True, tag_field="op", tag="add"):
    """Take the descriptors that come with this frame as a sandbox's sockets, instead of any it had."""

    seq: int
    sandbox: str


class Remove(msgspec.Struct, frozen=True, tag_field="op", tag="remove"):
    """Close a sandbox's sockets and forget its settings and counters."""

    seq: int
    sandbox: str


class Sync(msgspec.Struct, frozen=True, tag_field="op", tag="sync"):
    """The whole model. Sockets of sandboxes that it does not name are closed; `removed` of the answer says which."""

    seq: int
    networks: dict[str, Network] = {}
    sandboxes: dict[str, Settings] = {}
    host_servers: tuple[str, ...] = ()
    host_search: tuple[str, ...] = ()


class Update(msgspec.Struct, frozen=True, tag_field="op", tag="update"):
    """A change of the model: wholly done, or refused and nothing done. null removes a network, or a sandbox's settings."""

    seq: int
    networks: dict[str, NetworkChange | None] = {}
    sandboxes: dict[str, Settings | None] = {}
    host_servers: tuple[str, ...] | None = None


class Stats(msgspec.Struct, frozen=True, tag_field="op", tag="stats"):
    """Counters of every sandbox."""

    seq: int


class Explain(msgspec.Struct, frozen=True, tag_field="op", tag="explain"):
    """What a sandbox is answered, and why."""

    seq: int
    sandbox: str
    name: str
    type: str = "A"


class Stop(msgspec.Struct, frozen=True, tag_field="op", tag="stop"):
    """Answer, then end."""

    seq: int


Request = Hello | Add | Remove | Sync | Update | Stats | Explain | Stop


class Ports(msgspec.Struct, frozen=True):
    """The ports of a sandbox's two sockets, and how many it brought to ask its own servers from."""

    udp: int
    tcp: int
    own: int = 0


class Latency(msgspec.Struct, frozen=True):
    """From a question's arrival to its answer, in microseconds; upper bounds of histogram buckets (steps of 19 %)."""

    p50: int = 0
    p99: int = 0


class Counters(msgspec.Struct, frozen=True):
    """What happened to one sandbox's questions since its sockets came."""

    asked: int = 0
    answered: int = 0
    forwarded: int = 0
    failed: int = 0
    refused: int = 0
    dropped: int = 0
    latency_us: Latency = Latency()


class Answer(msgspec.Struct, omit_defaults=True):
    """Any answer; which fields are set depends on the request.

    rcode and records are `explain`'s: the response code's name and the records as text.
    """

    seq: int
    ok: bool = False
    error: str = ""
    pid: int = 0
    version: int = 0
    sandboxes: dict[str, Ports] = {}
    removed: tuple[str, ...] = ()
    stats: dict[str, Counters] = {}
    memory_kib: int = 0
    lines: tuple[str, ...] = ()
    rcode: str = ""
    records: tuple[str, ...] = ()


def is_address(text: str) -> bool:
    """Whether a text is an IPv4 or IPv6 address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def frame(message: Request | Answer) -> bytes:
    """A message as it goes over the socket."""
    body = msgspec.json.encode(message)
    return LENGTH.pack(len(body)) + body
