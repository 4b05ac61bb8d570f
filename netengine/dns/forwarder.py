"""Unknown names, asked from other servers. The host's are asked from here, a sandbox's own from its own sockets."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from netengine.dns import wire
from netengine.dns.loop import Loop
from netengine.dns.protocol import Settings

if TYPE_CHECKING:
    from netengine.dns.server import Sandbox


class Asker(ABC):
    """Who waits for an answer. `limit`: the most bytes it takes."""

    limit: int

    @abstractmethod
    def answer(self, reply: bytes) -> None:
        """Send it. Never raises: somebody who is gone is not waiting."""


class Forwarder:
    """All questions under way."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop

    def set_host_servers(self, servers: tuple[str, ...]) -> None:
        """The host's servers."""

    def adopt(self, sandbox: Sandbox) -> None:
        """Listen to a sandbox's own sockets."""

    def abandon(self, sandbox: Sandbox) -> None:
        """Forget its questions."""

    def forward(self, sandbox: Sandbox, settings: Settings, query: wire.Query, packet: bytes, asker: Asker) -> None:
        """Ask."""
        sandbox.tally.failed += 1
        asker.answer(wire.reply(query, wire.SERVFAIL))
