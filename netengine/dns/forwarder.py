"""Unknown names, asked from other servers. The host's are asked from here, a sandbox's own from its own sockets.

A question goes out as it came, under a new random id; the servers get it with a short head start each, and the first usable
response wins. What is lost on the way is sent once more after a second (UDP). Over UDP each question to a host's server has a
connected socket, and so a random port, of its own. A sandbox's own servers are asked over UDP only, also for TCP: sockets
cannot be opened in its namespace from here.
"""

from __future__ import annotations

import os
import socket
from abc import ABC, abstractmethod
from collections import OrderedDict
from time import monotonic
from typing import TYPE_CHECKING

from netengine.dns import wire
from netengine.dns.loop import READ, WRITE, Loop
from netengine.dns.protocol import Settings

if TYPE_CHECKING:
    from netengine.dns.server import Sandbox

MOST_PENDING = 1024  # questions of one sandbox that are under way, as Docker's
MOST_SERVERS = 3
HEAD_START = 0.05  # seconds before the next server is asked too
REPEAT = 1.0  # seconds after which an unanswered datagram is sent once more: a lost one must not cost the question
GIVE_UP = 4.0  # seconds
MISSES = 2  # unanswered questions in a row until a server counts as dead
DEAD_SECONDS = 5.0  # then it is asked behind the others
ITSELF = "127.0.0.11"  # asking this would be asking ourselves
PORT = 53


class Asker(ABC):
    """Who waits for an answer. `limit`: the most bytes it takes; `stream`: whether it asks over TCP."""

    limit: int
    stream = False

    @abstractmethod
    def answer(self, reply: bytes) -> None:
        """Send it. Never raises: somebody who is gone is not waiting."""


class _Upstream:
    """What is known of a server's health."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.misses = 0
        self.dead_until = 0.0

    def missed(self, now: float) -> None:
        self.misses += 1
        if self.misses >= MISSES:
            self.dead_until = now + DEAD_SECONDS


class _Pending:
    """One question under way."""

    def __init__(self, sandbox: Sandbox, query: wire.Query, packet: bytes, asker: Asker, trace: list[str]) -> None:
        self.sandbox, self.query, self.packet, self.asker, self.trace = sandbox, query, packet, asker, trace
        self.start = monotonic()
        self.servers: list[_Upstream] = []  # not asked yet
        self.asked: dict[_Upstream, bytes] = {}  # not answered yet, with the id of the question to each
        self.exchanges: list[_Exchange] = []
        self.own = False
        self.done = False


class _Alarms:
    """Questions that each wait for the same number of seconds, and so are due in the order in which they came.

    One that is finished is taken out at once: thousands would stay in memory behind one that no server answers.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._due: OrderedDict[_Pending, float] = OrderedDict()

    def put(self, pending: _Pending, start: float) -> None:
        """Wait from `start`, which is not before that of any other; anew if it waits already."""
        self._due.pop(pending, None)
        self._due[pending] = start + self._seconds

    def drop(self, pending: _Pending) -> None:
        self._due.pop(pending, None)

    def next(self) -> float | None:
        return next(iter(self._due.values()), None)

    def take(self, now: float) -> _Pending | None:
        """One that is due, and waits no longer."""
        due = self.next()
        return None if due is None or due > now else self._due.popitem(last=False)[0]

    def of(self, sandbox: Sandbox) -> list[_Pending]:
        return [pending for pending in self._due if pending.sandbox is sandbox]


class _Exchange:
    """One question to one of the host's servers, on a socket of its own."""

    def __init__(self, forwarder: Forwarder, pending: _Pending, server: _Upstream, packet: bytes) -> None:
        self._forwarder, self._pending, self._server = forwarder, pending, server
        self._stream = pending.asker.stream
        self._out = len(packet).to_bytes(2, "big") + packet if self._stream else packet
        self._in = bytearray()
        family = socket.AF_INET6 if ":" in server.address else socket.AF_INET
        self._sock = socket.socket(family, socket.SOCK_STREAM if self._stream else socket.SOCK_DGRAM)
        try:
            self._sock.setblocking(False)
            try:
                self._sock.connect((server.address, forwarder.port))
            except BlockingIOError:
                pass
            if not self._stream:
                self._sock.send(packet)
            forwarder.loop.watch(self._sock.fileno(), self._ready, WRITE if self._stream else READ)
        except OSError:
            self._sock.close()
            raise

    def _ready(self, events: int) -> None:
        try:
            response = self._tcp(events) if self._stream else self._sock.recv(wire.LARGEST)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._forwarder.failed(self._pending, self._server, str(error.strerror))
            self.close()
            return
        if response is not None:
            self._forwarder.received(self._pending, self._server, response)

    def repeat(self) -> None:
        """Send the datagram again, from the same port under the same id: either's answer will do."""
        if self._stream or self._sock.fileno() < 0:
            return
        try:
            self._sock.send(self._out)
        except BlockingIOError:
            pass
        except OSError as error:  # maybe of the first one: a refusal is told with the next call
            self._forwarder.failed(self._pending, self._server, str(error.strerror))
            self.close()

    def _tcp(self, events: int) -> bytes | None:
        if self._out:
            self._out = self._out[self._sock.send(self._out) :]
            if not self._out:
                self._forwarder.loop.change(self._sock.fileno(), READ)
            return None
        data = self._sock.recv(wire.LARGEST)
        if not data:
            raise ConnectionResetError(104, "the server closed the connection")
        self._in += data
        if len(self._in) < 2 or len(self._in) < 2 + int.from_bytes(self._in[:2], "big"):
            return None
        return bytes(self._in[2 : 2 + int.from_bytes(self._in[:2], "big")])

    def close(self) -> None:
        if self._sock.fileno() >= 0:
            self._forwarder.loop.forget(self._sock.fileno())
            self._sock.close()


class Forwarder:
    """All questions under way."""

    def __init__(self, loop: Loop, port: int = PORT) -> None:
        self.loop, self.port = loop, port
        self._host_servers: tuple[str, ...] = ()
        self._upstreams: dict[tuple[str, str], _Upstream] = {}  # by sandbox ("" is the host) and address
        self._head_starts, self._repeats, self._deadlines = _Alarms(HEAD_START), _Alarms(REPEAT), _Alarms(GIVE_UP)
        self._alarms = (self._head_starts, self._repeats, self._deadlines)
        self._own: dict[str, dict[bytes, tuple[_Pending, _Upstream]]] = {}
        loop.timed.append(self)

    def set_host_servers(self, servers: tuple[str, ...]) -> None:
        """The host's servers, the preferred one in front."""
        self._host_servers = servers

    def adopt(self, sandbox: Sandbox) -> None:
        """Listen to a sandbox's own sockets."""
        waiting = self._own[sandbox.ident] = {}
        for sock in sandbox.own:
            self.loop.watch(sock.fileno(), lambda _events, sock=sock: self._own_ready(sock, waiting))  # type: ignore[misc]

    def abandon(self, sandbox: Sandbox) -> None:
        """Forget a sandbox's questions: nobody is there to be answered."""
        for sock in sandbox.own:
            self.loop.forget(sock.fileno())
        for pending in self._deadlines.of(sandbox):
            self._finish(pending)
        self._own.pop(sandbox.ident, None)
        for key in [key for key in self._upstreams if key[0] == sandbox.ident]:
            del self._upstreams[key]

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
        lines = [] if trace is None else trace
        if sandbox.pending >= MOST_PENDING:
            sandbox.tally.refused += 1
            lines.append(f"refused: {MOST_PENDING} questions of this sandbox are under way")
            asker.answer(wire.reply(query, wire.REFUSED))
            return
        pending = _Pending(sandbox, query, packet, asker, lines)
        pending.own = bool(settings.servers)
        addresses = settings.servers if pending.own else () if settings.internal else self._host_servers
        usable = [address for address in addresses if address != ITSELF][:MOST_SERVERS]
        whose = sandbox.ident if pending.own else ""
        servers = [self._upstreams.setdefault((whose, a), _Upstream(a)) for a in dict.fromkeys(usable)]
        pending.servers = sorted(servers, key=lambda server: server.dead_until > pending.start)
        sandbox.pending += 1
        sandbox.tally.forwarded += 1
        self._deadlines.put(pending, pending.start)
        if pending.own or not asker.stream:
            self._repeats.put(pending, pending.start)
        if not servers:
            internal = settings.internal and not pending.own
            lines.append("the sandbox is on internal networks only: no server is asked" if internal else "no servers")
        self._ask_next(pending)

    def _ask_next(self, pending: _Pending) -> None:
        """Ask the next server that can be asked; if none is left and none owes an answer, give up."""
        while pending.servers and not pending.done:
            server = pending.servers.pop(0)
            ident = os.urandom(2)
            pending.asked[server] = ident
            try:
                if pending.own:
                    self._ask_own(pending, server, ident)
                else:
                    pending.exchanges.append(_Exchange(self, pending, server, ident + pending.packet[2:]))
            except OSError as error:
                del pending.asked[server]
                server.missed(monotonic())
                pending.trace.append(f"{server.address}: {error.strerror}")
                continue
            if pending.servers:
                self._head_starts.put(pending, monotonic())
            return
        if not pending.asked and not pending.done:
            self._fail(pending)

    def _ask_own(self, pending: _Pending, server: _Upstream, ident: bytes) -> None:
        waiting = self._own[pending.sandbox.ident]
        while ident in waiting:  # at most 3 times 1,024 of 65,536 are taken
            ident = os.urandom(2)
        pending.asked[server] = ident
        self._send_own(pending, server, ident)
        waiting[ident] = (pending, server)  # not if it could not be sent: ids that nobody gives back run out

    def _send_own(self, pending: _Pending, server: _Upstream, ident: bytes) -> None:
        family = socket.AF_INET6 if ":" in server.address else socket.AF_INET
        sockets = [sock for sock in pending.sandbox.own if sock.family == family]
        if not sockets:
            raise OSError(97, "no socket of that family in the sandbox")
        sockets[ident[0] % len(sockets)].sendto(ident + pending.packet[2:], (server.address, self.port))

    def _repeat(self, pending: _Pending) -> None:
        """Ask those that owe an answer once more."""
        for exchange in list(pending.exchanges):
            exchange.repeat()
        for server, ident in list(pending.asked.items()) if pending.own else ():
            try:
                self._send_own(pending, server, ident)
            except OSError as error:
                self.failed(pending, server, str(error.strerror))

    def _own_ready(self, sock: socket.socket, waiting: dict[bytes, tuple[_Pending, _Upstream]]) -> None:
        for _ in range(32):
            try:
                response, sender = sock.recvfrom(wire.LARGEST)
            except OSError:
                return
            known = waiting.get(response[:2])
            if known is not None and sender[:2] == (known[1].address, self.port):
                self.received(*known, response)

    def received(self, pending: _Pending, server: _Upstream, response: bytes) -> None:
        """A packet from a server: an answer, a refusal that makes the next one be asked, or none of ours."""
        if pending.done or response[:2] != pending.asked.get(server):
            return
        bare = wire.is_refusal_without_question(response)
        if not bare and not wire.answers_to(response, pending.query):
            return
        server.misses, server.dead_until = 0, 0.0
        code = response[3] & 15
        took = f"{(monotonic() - pending.start) * 1e3:.1f} ms"
        if bare or code in (wire.SERVFAIL, wire.REFUSED):
            self.failed(pending, server, f"response code {code} after {took}", missed=False)
            return
        where = "from the sandbox" if pending.own else "from the host"
        pending.trace.append(f"{server.address}, asked {where}, answered after {took}")
        reply = pending.query.ident + response[2:]
        if len(reply) > pending.asker.limit:
            reply = wire.truncated(response, pending.query)
        now = monotonic()
        for other, asked in pending.asked.items():
            if other is not server and asked and now - pending.start > HEAD_START * 4:
                other.missed(now)  # it had its head start and more
        self._finish(pending)
        pending.sandbox.tally.took(now - pending.start)
        pending.asker.answer(reply)

    def failed(self, pending: _Pending, server: _Upstream, why: str, missed: bool = True) -> None:
        """A server cannot be reached or will not say: on to the next at once."""
        if pending.done or server not in pending.asked:
            return
        self._own.get(pending.sandbox.ident, {}).pop(pending.asked.pop(server), None)
        pending.trace.append(f"{server.address}: {why}")
        if missed:
            server.missed(monotonic())
        self._ask_next(pending)

    def _fail(self, pending: _Pending) -> None:
        self._finish(pending)
        pending.sandbox.tally.failed += 1
        pending.trace.append("no server gave an answer")
        pending.asker.answer(wire.reply(pending.query, wire.SERVFAIL))

    def _finish(self, pending: _Pending) -> None:
        pending.done = True
        pending.sandbox.pending -= 1
        for alarms in self._alarms:
            alarms.drop(pending)
        for exchange in pending.exchanges:
            exchange.close()
        pending.exchanges.clear()
        if pending.own:
            waiting = self._own.get(pending.sandbox.ident, {})
            for ident in pending.asked.values():
                waiting.pop(ident, None)

    def due(self) -> float | None:
        return min((due for alarms in self._alarms if (due := alarms.next()) is not None), default=None)

    def expire(self, now: float) -> None:
        while (pending := self._head_starts.take(now)) is not None:
            self._ask_next(pending)
        while (pending := self._repeats.take(now)) is not None:
            self._repeat(pending)
        while (pending := self._deadlines.take(now)) is not None:
            for server in pending.asked:
                server.missed(now)
                pending.trace.append(f"{server.address}: no answer in {GIVE_UP:.0f} s")
            self._fail(pending)
