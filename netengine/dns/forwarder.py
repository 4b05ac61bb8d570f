"""Unknown names, asked from other servers. The host's are asked from here, a sandbox's own from its own sockets.

A question goes out as it came, under a new random id; the servers get it with a head start each, in their order, and the first
usable response wins; but that there is no such name or record is believed to a later server only if those before it do not
answer soon, since with split horizons the first one may know better. What is lost on the way is sent once more after a second
(UDP). In a sandbox no sockets can be opened from here: its own servers are asked from those that came with it.
"""

from __future__ import annotations

import os
import socket
from time import monotonic
from typing import TYPE_CHECKING

from netengine.dns import wire
from netengine.dns.alarms import Alarms
from netengine.dns.exchange import Exchange, Streams
from netengine.dns.loop import Loop
from netengine.dns.pending import Asked, Asker, Nobody, Pending
from netengine.dns.ports import Ages, Pool
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


_NOBODY = Nobody()


class _Own:
    """What a sandbox brought to ask its own servers with."""

    def __init__(self, sockets: list[socket.socket]) -> None:
        self.datagrams = [sock for sock in sockets if sock.type == socket.SOCK_DGRAM]
        self.streams = Streams([sock for sock in sockets if sock.type == socket.SOCK_STREAM])
        self.waiting: dict[bytes, tuple[Pending, Upstream]] = {}


class Forwarder:
    """All questions under way."""

    def __init__(self, loop: Loop, port: int = PORT) -> None:
        self.loop, self.port = loop, port
        self._host_servers: tuple[str, ...] = ()
        self._upstreams: dict[tuple[str, str], Upstream] = {}  # by sandbox ("" is the host) and address
        self._lists: dict[
            str, tuple[tuple[str, ...], list[Upstream]]
        ] = {}  # by sandbox: as it was told, and what came of it
        self._head_starts = [Alarms[Pending](seconds) for seconds in HEAD_STARTS]
        self._repeats, self._holds = Alarms[Pending](REPEAT), Alarms[Pending](HOLD)
        # The end of questions: of those over TCP, and of datagrams once they were sent again. Each waits in one of three.
        self._deadlines, self._lasts = Alarms[Pending](GIVE_UP), Alarms[Pending](max(GIVE_UP - REPEAT, 0.0))
        self._alarms = (*self._head_starts, self._repeats, self._holds, self._deadlines, self._lasts)
        self._own: dict[str, _Own] = {}
        self._ages = Ages(loop)
        self._pools: dict[Upstream, Pool] = {}
        self._next = _NEVER  # not after any deadline; earlier, when the question it was of has been answered
        loop.timed.append(self)

    def set_host_servers(self, servers: tuple[str, ...]) -> None:
        """The host's servers, the preferred one in front."""
        self._host_servers = servers
        for pool in self._pools.values():
            pool.renew()

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
        for alarms in (self._repeats, self._deadlines, self._lasts):
            for pending in [pending for pending in alarms.all() if pending.sandbox is sandbox]:
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
        self._begin(Pending(sandbox, query, packet, asker, trace), live + dead, own)
        for server in dead if live else ():
            if server.takes_probe(monotonic()):
                self._begin(Pending(sandbox, query, packet, _NOBODY, None), [server], own)

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

    def _begin(self, pending: Pending, servers: list[Upstream], own: bool) -> None:
        pending.servers, pending.own = servers, own
        pending.sandbox.pending += 1
        self._put(self._deadlines if pending.asker.stream else self._repeats, pending, pending.start)
        self._ask_next(pending)

    def _ask_next(self, pending: Pending) -> None:
        """Ask the next server that can be asked; if none is left and none owes an answer, give up."""
        while pending.servers and not pending.done:
            server = pending.servers.pop(0)
            now = monotonic()
            pending.asked[server] = Asked(b"", now)  # those that fail meanwhile must find it
            try:
                if not pending.asker.stream:
                    self._ask_datagram(pending, server, now)
                elif pending.own and self._own[pending.sandbox.ident].streams.has(family_of(server.address)):
                    self._ask_own_stream(pending, server, now)
                elif pending.own:
                    self._ask_own(pending, server, now)
                else:
                    self._exchange(pending, server, now)
            except OSError as error:
                del pending.asked[server]
                server.missed(monotonic())
                pending.say(f"{server.address}: {error.strerror}")
                continue
            if pending.servers:
                self._put(self._head_starts[server.head_start()], pending, now)
            return
        if not pending.asked and not pending.done:
            self._give_up(pending)

    def _ask_datagram(self, pending: Pending, server: Upstream, now: float) -> None:
        if pending.own:
            self._ask_own(pending, server, now)
            return
        pool = self._pools.get(server)
        if pool is None:
            pool = self._pools[server] = Pool(self.loop, self._ages, server, self.port, self.received, self.failed)
        port, ident = pool.ask(pending)
        pending.asked[server] = Asked(ident, now, port)

    def _exchange(self, pending: Pending, server: Upstream, now: float, pool: Streams | None = None) -> None:
        ident = os.urandom(2)
        pending.asked[server] = Asked(ident, now)
        pending.exchanges.append(
            Exchange(
                self.loop,
                server,
                self.port,
                ident + pending.packet[2:],
                lambda server, response: self.received(pending, server, response),
                lambda server, why: self.failed(pending, server, why),
                pool,
            )
        )

    def _ask_own_stream(self, pending: Pending, server: Upstream, now: float) -> None:
        """Over TCP from the sandbox, when one of its sockets is free."""
        streams, family = self._own[pending.sandbox.ident].streams, family_of(server.address)

        def go() -> bool:
            if pending.done or server not in pending.asked:
                return False
            try:
                self._exchange(pending, server, now, streams)
            except OSError as error:
                self.failed(pending, server, str(error.strerror))
            return True

        if streams.is_free(family):
            self._exchange(pending, server, now, streams)
        else:
            streams.wait(family, go)

    def _ask_own(self, pending: Pending, server: Upstream, now: float) -> None:
        waiting = self._own[pending.sandbox.ident].waiting
        while (ident := os.urandom(2)) in waiting:  # at most 3 times 1,024 of 65,536 are taken
            pass
        pending.asked[server] = Asked(ident, now)
        self._send_own(pending, server, ident)
        waiting[ident] = (pending, server)  # not if it could not be sent: ids that nobody gives back run out

    def _send_own(self, pending: Pending, server: Upstream, ident: bytes) -> None:
        family = family_of(server.address)
        sockets = [sock for sock in self._own[pending.sandbox.ident].datagrams if sock.family == family]
        if not sockets:
            raise OSError(97, "no socket of that family in the sandbox")
        where = destination(server.address, self.port)
        sockets[ident[0] % len(sockets)].sendto(ident + pending.packet[2:], where)

    def _repeat(self, pending: Pending) -> None:
        """Ask those that owe an answer once more."""
        for server, (ident, _, port) in list(pending.asked.items()):
            try:
                if port is not None:
                    port.send(ident + pending.packet[2:])
                elif not pending.asker.stream:
                    self._send_own(pending, server, ident)
            except OSError as error:
                self.failed(pending, server, str(error.strerror))
        if not pending.done:
            self._put(self._lasts, pending, monotonic())

    def _own_ready(self, sock: socket.socket, waiting: dict[bytes, tuple[Pending, Upstream]]) -> None:
        for _ in range(32):
            try:
                response, sender = sock.recvfrom(wire.LARGEST)
            except OSError:
                return
            known = waiting.get(response[:2])
            if known is not None and sender[:2] == (known[1].address, self.port):
                self.received(*known, response)

    def received(self, pending: Pending, server: Upstream, response: bytes) -> None:
        """A packet from a server: an answer, a refusal that makes the next one be asked, or none of ours."""
        asked = pending.asked.get(server)
        if asked is None or response[:2] != asked.ident:
            return
        bare = wire.is_refusal_without_question(response)
        if not bare and not wire.answers_to(response, pending.query):
            return
        now = monotonic()
        took = now - pending.start
        server.answered(now - asked.since)
        code = response[3] & 15
        if bare or code in (wire.SERVFAIL, wire.REFUSED):
            self.failed(pending, server, f"response code {code} after {took * 1e3:.1f} ms", missed=False)
            return
        if pending.trace is not None:
            where = "from the sandbox" if pending.own else "from the host"
            pending.say(f"{server.address}, asked {where}, answered after {took * 1e3:.1f} ms")
        before = list(pending.asked).index(server) if len(pending.asked) > 1 else 0
        if before and wire.is_negative(response):
            self._hold(pending, server, response, before)
            return
        for other in list(pending.asked)[:before]:
            if took > 4 * HEAD_STARTS[other.head_start()]:
                other.missed(now)  # it had its head start and more
        self._deliver(pending, response)

    def _hold(self, pending: Pending, server: Upstream, response: bytes, before: int) -> None:
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

    def _deliver(self, pending: Pending, response: bytes) -> None:
        reply = pending.query.ident + response[2:]
        if len(reply) > pending.asker.limit:
            reply = wire.truncated(response, pending.query)
        self._finish(pending)
        if pending.asker is not _NOBODY:
            pending.sandbox.tally.took(monotonic() - pending.start)
        pending.asker.answer(reply)

    def failed(self, pending: Pending, server: Upstream, why: str, missed: bool = True) -> None:
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

    def _own_gave(self, pending: Pending, server: Upstream) -> None:
        """A server owes nothing any more."""
        ident, _, port = pending.asked.pop(server)
        if port is not None:
            port.done(ident)
        elif pending.own and (own := self._own.get(pending.sandbox.ident)) is not None:
            own.waiting.pop(ident, None)

    def _give_up(self, pending: Pending) -> None:
        if pending.held is not None:
            self._deliver(pending, pending.held[1])
            return
        self._finish(pending)
        if pending.asker is not _NOBODY:
            pending.sandbox.tally.failed += 1
        pending.say("no server gave an answer")
        pending.asker.answer(wire.reply(pending.query, wire.SERVFAIL))

    def _finish(self, pending: Pending) -> None:
        pending.done = True
        pending.sandbox.pending -= 1
        for alarms in pending.alarms:
            alarms.drop(pending)
        for server in list(pending.asked):
            self._own_gave(pending, server)
        for exchange in pending.exchanges:
            exchange.close()
        pending.exchanges.clear()

    def _put(self, alarms: Alarms[Pending], pending: Pending, start: float) -> None:
        due = alarms.put(pending, start)
        pending.alarms.append(alarms)
        if due < self._next:
            self._next = due

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
        for alarms in (self._deadlines, self._lasts):
            while (pending := alarms.take(now)) is not None:
                for server in pending.asked:
                    server.missed(now)
                    pending.say(f"{server.address}: no answer in {GIVE_UP:.0f} s")
                self._give_up(pending)
        self._next = min((due for alarms in self._alarms if (due := alarms.next()) is not None), default=_NEVER)
