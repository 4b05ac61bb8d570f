"""What happens to a question: known name, refusal, or another server's. Owns the sandboxes and the model they see.

The only place that changes either; `control` calls it with messages, `datagrams` and `tcp` with packets.
"""

from __future__ import annotations

import os
import socket
from time import monotonic

from netengine.dns import wire
from netengine.dns.datagrams import Datagrams
from netengine.dns.forwarder import PORT, Forwarder
from netengine.dns.loop import Loop
from netengine.dns.pending import Asker
from netengine.dns.protocol import MOST_DESCRIPTORS, Counters, NetworkChange, Ports, Settings, Sync, Update, is_address
from netengine.dns.stats import Tally
from netengine.dns.tcp import Idle, Listener
from netengine.dns.zones import View, Zones
from netengine.errors import Invalid, NotFound

SANDBOX_SOCKETS = MOST_DESCRIPTORS - 2  # sockets that a sandbox may bring to ask its own servers from


class Sandbox:
    """One sandbox's sockets, what it sees, and its counters."""

    def __init__(self, ident: str, udp: socket.socket, tcp: socket.socket, own: list[socket.socket]) -> None:
        self.ident = ident
        self.udp, self.tcp, self.own = udp, tcp, own
        self.ports = Ports(udp.getsockname()[1], tcp.getsockname()[1], len(own))
        self.tally = Tally()
        self.unsent: list[tuple[bytes, tuple[str, int]]] = []  # answers by UDP, and who to
        self.pending = 0  # questions that other servers have not answered yet
        self.settings: Settings | None = None
        self.view: View | None = None

    def flush(self) -> None:
        """Send what was answered: together, so that who waits for them is woken once."""
        unsent, self.unsent = self.unsent, []
        for reply, sender in unsent:
            try:
                self.udp.sendto(reply, sender)
            except OSError:
                self.tally.dropped += 1  # no buffer, or the sandbox is gone: UDP may lose it


class _Datagram(Asker):
    """Who asked by UDP."""

    __slots__ = ("_loop", "_sandbox", "_sender", "limit")

    def __init__(self, loop: Loop, sandbox: Sandbox, sender: tuple[str, int], limit: int) -> None:
        self._loop, self._sandbox, self._sender = loop, sandbox, sender
        self.limit = limit

    def answer(self, reply: bytes) -> None:
        unsent = self._sandbox.unsent
        if not unsent:
            self._loop.last(self._sandbox.flush)
        unsent.append((reply, self._sender))


class Server:
    """All sandboxes of a host."""

    def __init__(self, loop: Loop, server_port: int = PORT) -> None:
        self.loop = loop
        self.zones = Zones()
        self.sandboxes: dict[str, Sandbox] = {}
        self.settings: dict[str, Settings] = {}
        self.forwarder = Forwarder(loop, server_port)
        self._datagrams = Datagrams()
        self._idle = Idle(loop)
        self._listeners: dict[str, Listener] = {}

    # Packets

    def _serve(self, sandbox: Sandbox) -> None:
        view, tally = sandbox.view, sandbox.tally
        start = monotonic()

        def other(packet: bytes, sender: tuple[str, int]) -> None:
            self.resolve(sandbox, packet, sender)

        try:
            served = self._datagrams.serve(sandbox.udp.fileno(), view.hot if view else {}, other)
        except OSError:
            tally.dropped += 1
            return
        tally.asked += served.received
        tally.dropped += served.lost
        if served.answered:
            tally.answered += served.answered
            tally.took(monotonic() - start, served.answered)

    def resolve(self, sandbox: Sandbox, packet: bytes, source: tuple[str, int] | Asker) -> bool:
        """Answer a packet, now or later; False if it is none to answer, and nobody will.

        `source`: the sender by UDP, or who asks in another way (and is counted here).
        """
        start = monotonic()
        tally = sandbox.tally
        query = wire.parse(packet)
        by_udp = isinstance(source, tuple)
        if not by_udp:
            tally.asked += 1
        if query is None:
            tally.dropped += 1
            return False
        asker = _Datagram(self.loop, sandbox, source, query.limit) if isinstance(source, tuple) else source
        problem = query.problem or (wire.REFUSED if query.qclass != wire.IN else 0)
        if problem:
            tally.refused += 1
            asker.answer(wire.reply(query, problem))
            return True
        view, settings = sandbox.view, sandbox.settings
        if view is None or settings is None:
            tally.failed += 1
            asker.answer(wire.reply(query, wire.SERVFAIL))
            return True
        answer = view.remember(packet, query) if by_udp else view.answer(query, asker.limit)
        if answer is None and answered_empty(settings, query):
            answer = wire.reply(query, wire.NOERROR)
        if answer is not None:
            tally.answered += 1
            asker.answer(answer)
            tally.took(monotonic() - start)
            return True
        self.forwarder.forward(sandbox, settings, query, packet, asker)
        return True

    # Sockets

    def add(self, ident: str, descriptors: list[int]) -> None:
        """Take a sandbox's sockets: UDP, listening TCP, and those to ask its own servers from. Replaces older ones."""
        sockets = []
        try:
            for fd in descriptors:
                sockets.append(socket.socket(fileno=fd))
        except OSError as error:
            for one in sockets:
                one.close()
            for fd in descriptors[len(sockets) :]:
                os.close(fd)
            raise Invalid(
                f"a descriptor for sandbox {ident} is no socket: {error}; pass UDP, TCP, then UDP ones"
            ) from None
        kinds = [one.type for one in sockets]
        stream, datagram = socket.SOCK_STREAM, socket.SOCK_DGRAM
        extra = len(sockets) - 2
        if kinds[:2] != [datagram, stream] or extra > SANDBOX_SOCKETS or set(kinds) > {datagram, stream}:
            for one in sockets:
                one.close()
            raise Invalid(
                f"sandbox {ident} came with {len(sockets)} sockets of types {[k.name for k in map(socket.SocketKind, kinds)]}; "
                f"pass a bound UDP socket, a listening TCP socket and at most {SANDBOX_SOCKETS} more sockets of both kinds"
            )
        for one in sockets:
            one.setblocking(False)
        old = self.sandboxes.get(ident)
        sandbox = Sandbox(ident, sockets[0], sockets[1], sockets[2:])
        if old is not None:
            sandbox.tally = old.tally
            self._close(old)
        self.sandboxes[ident] = sandbox
        self._look(sandbox)
        self.loop.watch(sandbox.udp.fileno(), lambda _events: self._serve(sandbox))
        self._listeners[ident] = Listener(self.loop, sandbox, self.resolve, self._idle)
        self.forwarder.adopt(sandbox)

    def remove(self, ident: str) -> None:
        """Close a sandbox's sockets and forget it. NotFound if there is none."""
        self.settings.pop(ident, None)
        sandbox = self.sandboxes.pop(ident, None)
        if sandbox is None:
            raise NotFound(f"sandbox {ident} has no sockets here; `hello` lists those that do")
        self._close(sandbox)

    def _close(self, sandbox: Sandbox) -> None:
        self.loop.forget(sandbox.udp.fileno())
        self._listeners.pop(sandbox.ident).close()
        self.forwarder.abandon(sandbox)
        for one in (sandbox.udp, sandbox.tcp, *sandbox.own):
            one.close()

    def _look(self, sandbox: Sandbox) -> None:
        """Give a sandbox the view of its present settings."""
        sandbox.settings = self.settings.get(sandbox.ident)
        sandbox.view = self.zones.view(sandbox.settings) if sandbox.settings is not None else None

    # The model

    def sync(self, model: Sync) -> tuple[str, ...]:
        """Make the model equal to another; what is the same in both is not touched. Returns the sandboxes closed."""
        for network in model.networks.values():
            _check_addresses(NetworkChange(put=network.entries))
        _check_servers([model.host_servers, *(s.servers for s in model.sandboxes.values())])
        for ident in self.zones.networks.keys() - model.networks.keys():
            self.zones.remove(ident)
        for ident, network in model.networks.items():
            known = self.zones.networks.get(ident)
            gone = known.entries.keys() - network.entries.keys() if known else ()
            self.zones.put(ident, network.name, network.entries, list(gone))
        self.settings = dict(model.sandboxes)
        self.forwarder.set_host_servers(model.host_servers)
        removed = tuple(self.sandboxes.keys() - self.settings.keys())
        for ident in removed:
            self.remove(ident)
        for sandbox in self.sandboxes.values():
            self._look(sandbox)
        return removed

    def update(self, change: Update) -> None:
        """Change the model. Invalid, and nothing changed, if any part of it cannot be."""
        for network in change.networks.values():
            if network is not None:
                _check_addresses(network)
        for ident, network in change.networks.items():
            if network is not None and network.name is None and ident not in self.zones.networks:
                raise Invalid(f"network {ident} is new and has no name; say its name once, or sync the whole model")
        _check_servers([change.host_servers or (), *(s.servers for s in change.sandboxes.values() if s)])
        anew = False
        for ident, network in change.networks.items():
            if network is None:
                anew |= self.zones.remove(ident)
            else:
                anew |= self.zones.put(ident, network.name, network.put, network.delete)
        for ident, settings in change.sandboxes.items():
            if settings is None:
                self.settings.pop(ident, None)
            else:
                self.settings[ident] = settings
        if change.host_servers is not None:
            self.forwarder.set_host_servers(change.host_servers)
        for ident in self.sandboxes if anew else change.sandboxes:
            if ident in self.sandboxes:
                self._look(self.sandboxes[ident])

    def counters(self) -> dict[str, Counters]:
        """Of every sandbox with sockets."""
        return {ident: sandbox.tally.counters() for ident, sandbox in self.sandboxes.items()}


def answered_empty(settings: Settings, query: wire.Query) -> bool:
    """Whether an unknown name stays here because the user set `ndots` (Docker's rule for names of one label)."""
    return settings.ndots is not None and query.qtype in (wire.A, wire.AAAA) and wire.is_single_label(query.name)


def _check_addresses(network: NetworkChange) -> None:
    for endpoint, entry in network.put.items():
        for family, addresses in ((4, entry.ipv4), (6, entry.ipv6)):
            for address in addresses:
                if not is_address(address) or (":" in address) != (family == 6):
                    raise Invalid(
                        f"endpoint {endpoint}: {address!r} is no IPv{family} address; give it without prefix length"
                    )


def _check_servers(lists: list[tuple[str, ...]]) -> None:
    for server in (server for servers in lists for server in servers):
        if not is_address(server):
            raise Invalid(f"{server!r} is no address of a name server; give an IPv4 or IPv6 address")
