"""A question under way: who waits for it, who has been asked, and what is still to come. Its story is the forwarder's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

from netengine.dns import wire

if TYPE_CHECKING:
    from netengine.dns.alarms import Alarms
    from netengine.dns.exchange import Exchange
    from netengine.dns.ports import Port
    from netengine.dns.server import Sandbox
    from netengine.dns.upstream import Upstream


class Asker(ABC):
    """Who waits for an answer. `limit`: the most bytes it takes; `stream`: whether it asks over TCP."""

    __slots__ = ()
    limit: int
    stream = False

    @abstractmethod
    def answer(self, reply: bytes) -> None:
        """Send it. Never raises: somebody who is gone is not waiting."""


class Nobody(Asker):
    """Asks to see whether a server lives."""

    limit = wire.LARGEST

    def answer(self, reply: bytes) -> None:
        """It was the question that mattered."""


class Asked(NamedTuple):
    """A question to one server: its id, when it went, and the host's port that it went from, if it did."""

    ident: bytes
    since: float
    port: Port | None = None


class Pending:
    """One question under way."""

    __slots__ = (
        "alarms", "asked", "asker", "done", "exchanges", "held", "own", "packet", "query", "sandbox", "servers", "start",
        "trace",
    )  # fmt: skip

    def __init__(
        self, sandbox: Sandbox, query: wire.Query, packet: bytes, asker: Asker, trace: list[str] | None
    ) -> None:
        self.sandbox, self.query, self.packet, self.asker, self.trace = sandbox, query, packet, asker, trace
        self.start = monotonic()
        self.servers: list[Upstream] = []  # not asked yet
        self.asked: dict[Upstream, Asked] = {}  # not answered yet, in their order
        self.held: tuple[int, bytes] | None = (
            None  # a later server's negative answer: how many came before it, the packet
        )
        self.exchanges: list[Exchange] = []
        self.alarms: list[Alarms[Pending]] = []  # that it may be in
        self.own = False
        self.done = False

    def say(self, line: str) -> None:
        if self.trace is not None:
            self.trace.append(line)
