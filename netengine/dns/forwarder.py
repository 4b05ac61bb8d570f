"""Unknown names, asked from other servers. The host's are asked from here, a sandbox's own from its own sockets.

A question goes out as it came, under a new random id; the servers get it with a head start each, in their order, and the first
usable response wins; but that there is no such name or record is believed to a later server only if those before it do not
answer soon, since with split horizons the first one may know better. What is lost on the way is sent once more after a second
(UDP). Over UDP each question to a host's server has a connected socket, and so a random port, of its own. In a sandbox no
sockets can be opened from here: its own servers are asked from those that came with it.
"""

from __future__ import annotations

import os
import socket
from abc import ABC, abstractmethod
from time import monotonic
from typing import TYPE_CHECKING

from netengine.dns import wire
from netengine.dns.alarms import Alarms
from netengine.dns.exchange import Exchange, Streams
from netengine.dns.loop import Loop
from netengine.dns.protocol import Settings
from netengine.dns.upstream import HEAD_STARTS, Upstream, canonical, destination, family_of

if TYPE_CHECKING:
    from netengine.dns.server import Sandbox

MOST_PENDING = 1024  # questions of one sandbox that are under way, as Docker's
MOST_SERVERS = 3
REPEAT = 1.0  # seconds after which an unanswered datagram is sent once more: a lost one must not cost the question
HOLD = 1.0  # seconds for which a later server's "no such name" waits for those before it
GIVE_UP = 4.0  # seconds
ITSELF = "127.0.0.11"  # asking this would be asking ourselves
PORT = 53
_NEVER = float("inf")


class Asker(ABC):
    """Who waits for an answer. `limit`: the most bytes it takes; `stream`: whether it asks over TCP."""

    limit: int
    stream = False

    @abstractmethod
    def answer(self, reply: bytes) -> None:
        """Send it. Never raises: somebody who is gone is not waiting."""


class _Nobody(Asker):
    """Asks to see whether a server lives."""

    limit = wire.LARGEST

    def answer(self, reply: bytes) -> None:
        """It was the question that mattered."""


_NOBODY = _Nobody()


class _Pending:
    """One question under way."""

    def __init__(
        self, sandbox: Sandbox, query: wire.Query, packet: bytes, asker: Asker, trace: list[str] | None
    ) -> None:
        self.sandbox, self.query, self.packet, self.asker, self.trace = sandbox, query, packet, asker, trace
        self.start = monotonic()
        self.servers: list[Upstream] = []  # not asked yet
        self.asked: dict[Upstream, bytes] = {}  # not answered yet, in their order, with the id of the question to each
        self.since: dict[Upstream, float] = {}  # when each was asked
        self.held: tuple[int, bytes] | None = (
            None  # a later server's negative answer: how many came before it, the packet
        )
        self.exchanges: list[Exchange] = []
        self.alarms: list[Alarms[_Pending]] = []  # that it may be in
        self.own = False
        self.done = False

    def say(self, line: str) -> None:
        if self.trace is not None:
            self.trace.append(line)


class _Own:
    """What a sandbox brought to ask its own servers with."""

    def __init__(self, sockets: list[socket.socket]) -> None:
        self.datagrams = [sock for sock in sockets if sock.type == socket.SOCK_DGRAM]
        self.streams = Streams([sock for sock in sockets if sock.type == socket.SOCK_STREAM])
        self.waiting: dict[bytes, tuple[_Pending, Upstream]] = {}


class Forwarder:
    """All questions under way."""

    def __init__(self, loop: Loop, port: int = PORT) -> None:
        self.loop, self.port = loop, port
        self._host_servers: tuple[str, ...] = ()
        self._upstreams: dict[tuple[str, str], Upstream] = {}  # by sandbox ("" is the host) and address
        self._lists: dict[
            str, tuple[tuple[str, ...], list[Upstream]]
        ] = {}  # by sandbox: as it was told, and what came of it
        self._head_starts = [Alarms[_Pending](seconds) for seconds in HEAD_STARTS]
        self._repeats, self._holds = Alarms[_Pending](REPEAT), Alarms[_Pending](HOLD)
        self._deadlines = Alarms[_Pending](GIVE_UP)
        self._alarms = (*self._head_starts, self._repeats, self._holds, self._deadlines)
        self._own: dict[str, _Own] = {}
        self._next = _NEVER  # not after any deadline; earlier, when the question it was of has been answered
        loop.timed.append(self)

    def set_host_servers(self, servers: tuple[str, ...]) -> None:
        """The host's servers, the preferred one in front."""
        self._host_servers = servers

    def adopt(self, sandbox: Sandbox) -> None:
        """Listen to a sandbox's own sockets."""
        own = self._own[sandbox.ident] = _Own(sandbox.own)
        for sock in own.datagrams:
            self.loop.watch(sock.fileno(), lambda _events, sock=sock: self._own_ready(sock, own.waiting))  # type: ignore[misc]

    def abandon(self, sandbox: Sandbox) -> None:
        """Forget a sandbox's questions: nobody is there to be answered."""
        own = self._own.pop(sandbox.ident, None)
        if own is not None:
            own.streams.closed = True
            for sock in own.datagrams:
                self.loop.forget(sock.fileno())
        for pending in [pending for pending in self._deadlines.all() if pending.sandbox is sandbox]:
            self._finish(pending)
        for key in [key for key in self._upstreams if key[0] == sandbox.ident]:
            del self._upstreams[key]
        self._lists.pop(sandbox.ident, None)

    def forward(
        self,
        sandbox: Sandbox,
        settings: Settings,
        query: wire.Query,
        packet: bytes,
        asker: Asker,
        trace: list[str] | None = None,
    ) -> None:
        """Ask for a sandbox. The asker gets an answer within GIVE_UP seconds, now or later; `trace` gets the reasons."""
        if sandbox.pending >= MOST_PENDING:
            sandbox.tally.refused += 1
            if trace is not None:
                trace.append(f"refused: {MOST_PENDING} questions of this sandbox are under way")
            asker.answer(wire.reply(query, wire.REFUSED))
            return
        own = bool(settings.servers)
        addresses = settings.servers if own else () if settings.internal else self._host_servers
        servers = self._servers(sandbox.ident if own else "", addresses)
        if not servers and trace is not None:
            internal = settings.internal and not own
            trace.append("the sandbox is on internal networks only: no server is asked" if internal else "no servers")
        sandbox.tally.forwarded += 1
        dead = [server for server in servers if server.dead]
        live = [server for server in servers if not server.dead] if dead else servers[:]
        self._begin(_Pending(sandbox, query, packet, asker, trace), live + dead, own)
        for server in dead if live else ():
            if server.takes_probe(monotonic()):
                self._begin(_Pending(sandbox, query, packet, _NOBODY, None), [server], own)

    def _servers(self, whose: str, addresses: tuple[str, ...]) -> list[Upstream]:
        """Those to ask, in order, with what is known of them."""
        told = self._lists.get(whose)
        if told is not None and told[0] is addresses:
            return told[1]
        usable = [a for a in dict.fromkeys(map(canonical, addresses)) if a != ITSELF][:MOST_SERVERS]
        servers = [self._upstreams.setdefault((whose, a), Upstream(a)) for a in usable]
        if addresses:
            self._lists[whose] = addresses, servers
        return servers

    def _begin(self, pending: _Pending, servers: list[Upstream], own: bool) -> None:
        pending.servers, pending.own = servers, own
        pending.sandbox.pending += 1
        self._put(self._deadlines, pending, pending.start)
        if not pending.asker.stream:
            self._put(self._repeats, pending, pending.start)
        self._ask_next(pending)

    def _ask_next(self, pending: _Pending) -> None:
        """Ask the next server that can be asked; if none is left and none owes an answer, give up."""
        while pending.servers and not pending.done:
            server = pending.servers.pop(0)
            ident = os.urandom(2)
            pending.asked[server], pending.since[server] = ident, monotonic()
            try:
                if not pending.own:
                    self._exchange(pending, server, ident)
                elif pending.asker.stream and self._own[pending.sandbox.ident].streams.has(family_of(server.address)):
                    self._ask_own_stream(pending, server, ident)
                else:
                    self._ask_own(pending, server, ident)
            except OSError as error:
                del pending.asked[server]
                server.missed(monotonic())
                pending.say(f"{server.address}: {error.strerror}")
                continue
            if pending.servers:
                self._put(self._head_starts[server.head_start()], pending, monotonic())
            return
        if not pending.asked and not pending.done:
            self._give_up(pending)

    def _exchange(self, pending: _Pending, server: Upstream, ident: bytes, pool: Streams | None = None) -> None:
        pending.exchanges.append(
            Exchange(
                self.loop,
                server,
                self.port,
                ident + pending.packet[2:],
                pending.asker.stream,
                lambda server, response: self.received(pending, server, response),
                lambda server, why: self.failed(pending, server, why),
                pool,
            )
        )

    def _ask_own_stream(self, pending: _Pending, server: Upstream, ident: bytes) -> None:
        """Over TCP from the sandbox, when one of its sockets is free."""
        streams, family = self._own[pending.sandbox.ident].streams, family_of(server.address)

        def go() -> bool:
            if pending.done or server not in pending.asked:
                return False
            try:
                self._exchange(pending, server, ident, streams)
            except OSError as error:
                self.failed(pending, server, str(error.strerror))
            return True

        if streams.is_free(family):
            self._exchange(pending, server, ident, streams)
        else:
            streams.wait(family, go)

    def _ask_own(self, pending: _Pending, server: Upstream, ident: bytes) -> None:
        waiting = self._own[pending.sandbox.ident].waiting
        while ident in waiting:  # at most 3 times 1,024 of 65,536 are taken
            ident = os.urandom(2)
        pending.asked[server] = ident
        self._send_own(pending, server, ident)
        waiting[ident] = (pending, server)  # not if it could not be sent: ids that nobody gives back run out

    def _send_own(self, pending: _Pending, server: Upstream, ident: bytes) -> None:
        family = family_of(server.address)
        sockets = [sock for sock in self._own[pending.sandbox.ident].datagrams if sock.family == family]
        if not sockets:
            raise OSError(97, "no socket of that family in the sandbox")
        where = destination(server.address, self.port)
        sockets[ident[0] % len(sockets)].sendto(ident + pending.packet[2:], where)

    def _repeat(self, pending: _Pending) -> None:
        """Ask those that owe an answer once more."""
        for exchange in list(pending.exchanges):
            exchange.repeat()
        for server, ident in list(pending.asked.items()) if pending.own else ():
            try:
                self._send_own(pending, server, ident)
            except OSError as error:
                self.failed(pending, server, str(error.strerror))

    def _own_ready(self, sock: socket.socket, waiting: dict[bytes, tuple[_Pending, Upstream]]) -> None:
        for _ in range(32):
            try:
                response, sender = sock.recvfrom(wire.LARGEST)
            except OSError:
                return
            known = waiting.get(response[:2])
            if known is not None and sender[:2] == (known[1].address, self.port):
                self.received(*known, response)

    def received(self, pending: _Pending, server: Upstream, response: bytes) -> None:
        """A packet from a server: an answer, a refusal that makes the next one be asked, or none of ours."""
        if pending.done or response[:2] != pending.asked.get(server):
            return
        bare = wire.is_refusal_without_question(response)
        if not bare and not wire.answers_to(response, pending.query):
            return
        now = monotonic()
        took = now - pending.start
        server.answered(now - pending.since[server])
        code = response[3] & 15
        if bare or code in (wire.SERVFAIL, wire.REFUSED):
            self.failed(pending, server, f"response code {code} after {took * 1e3:.1f} ms", missed=False)
            return
        if pending.trace is not None:
            where = "from the sandbox" if pending.own else "from the host"
            pending.say(f"{server.address}, asked {where}, answered after {took * 1e3:.1f} ms")
        before = list(pending.asked).index(server)
        if before and wire.is_negative(response):
            self._hold(pending, server, response, before)
            return
        for other in list(pending.asked)[:before]:
            if took > 4 * HEAD_STARTS[other.head_start()]:
                other.missed(now)  # it had its head start and more
        self._deliver(pending, response)

    def _hold(self, pending: _Pending, server: Upstream, response: bytes, before: int) -> None:
        """Keep a later server's word that there is no such name, until those before it have spoken or had their time."""
        pending.say(f"{server.address} knows no such name or record: those before it are waited for")
        self._own_gave(pending, server)
        if pending.held is None:
            self._put(self._holds, pending, monotonic())
        if pending.held is None or before < pending.held[0]:
            pending.held = (before, response)
        for alarms in self._head_starts:
            alarms.drop(pending)
        pending.servers.clear()

    def _deliver(self, pending: _Pending, response: bytes) -> None:
        reply = pending.query.ident + response[2:]
        if len(reply) > pending.asker.limit:
            reply = wire.truncated(response, pending.query)
        self._finish(pending)
        if pending.asker is not _NOBODY:
            pending.sandbox.tally.took(monotonic() - pending.start)
        pending.asker.answer(reply)

    def failed(self, pending: _Pending, server: Upstream, why: str, missed: bool = True) -> None:
        """A server cannot be reached or will not say: on to the next at once."""
        if pending.done or server not in pending.asked:
            return
        self._own_gave(pending, server)
        pending.say(f"{server.address}: {why}")
        if missed:
            server.missed(monotonic())
        if pending.held is not None and len(pending.asked) == 0:
            self._deliver(pending, pending.held[1])
        else:
            self._ask_next(pending)

    def _own_gave(self, pending: _Pending, server: Upstream) -> None:
        """A server owes nothing any more."""
        ident = pending.asked.pop(server)
        if pending.own and (own := self._own.get(pending.sandbox.ident)) is not None:
            own.waiting.pop(ident, None)

    def _give_up(self, pending: _Pending) -> None:
        if pending.held is not None:
            self._deliver(pending, pending.held[1])
            return
        self._finish(pending)
        if pending.asker is not _NOBODY:
            pending.sandbox.tally.failed += 1
        pending.say("no server gave an answer")
        pending.asker.answer(wire.reply(pending.query, wire.SERVFAIL))

    def _finish(self, pending: _Pending) -> None:
        pending.done = True
        pending.sandbox.pending -= 1
        for alarms in pending.alarms:
            alarms.drop(pending)
        for server in list(pending.asked):
            self._own_gave(pending, server)
        for exchange in pending.exchanges:
            exchange.close()
        pending.exchanges.clear()

    def _put(self, alarms: Alarms[_Pending], pending: _Pending, start: float) -> None:
        alarms.put(pending, start)
        pending.alarms.append(alarms)
        self._next = min(self._next, alarms.next() or _NEVER)

    def due(self) -> float | None:
        return None if self._next == _NEVER else self._next

    def expire(self, now: float) -> None:
        for alarms in self._head_starts:
            while (pending := alarms.take(now)) is not None:
                self._ask_next(pending)
        while (pending := self._repeats.take(now)) is not None:
            self._repeat(pending)
        while (pending := self._holds.take(now)) is not None:
            for server in pending.asked:
                server.missed(now)
            self._give_up(pending)
        while (pending := self._deadlines.take(now)) is not None:
            for server in pending.asked:
                server.missed(now)
                pending.say(f"{server.address}: no answer in {GIVE_UP:.0f} s")
            self._give_up(pending)
        self._next = min((due for alarms in self._alarms if (due := alarms.next()) is not None), default=_NEVER)
