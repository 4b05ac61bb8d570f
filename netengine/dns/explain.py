"""What a sandbox is answered, and why: the same steps as for a packet, told in words."""

from __future__ import annotations

from collections.abc import Callable

import dns.exception
import dns.message
import dns.rcode

from netengine.dns import wire
from netengine.dns.pending import Asker
from netengine.dns.protocol import Answer, Explain
from netengine.dns.server import Server, answered_empty
from netengine.errors import Invalid, NotFound


class _Teller(Asker):
    """Asks as a client with room for all would, and tells the daemon."""

    limit = wire.LARGEST

    def __init__(self, done: Answer, lines: list[str], later: Callable[[Answer], None]) -> None:
        self._done, self._lines, self._later = done, lines, later

    def answer(self, reply: bytes) -> None:
        self._done.lines = tuple(self._lines)
        try:
            message = dns.message.from_wire(reply)
        except dns.exception.DNSException as error:
            self._done.rcode = "FORMERR"
            self._done.lines += (f"the answer cannot be read: {error}",)
        else:
            self._done.rcode = dns.rcode.to_text(message.rcode())
            self._done.records = tuple(text for rrset in message.answer for text in rrset.to_text().split("\n"))
        self._later(self._done)


def explain(server: Server, request: Explain, done: Answer, later: Callable[[Answer], None]) -> None:
    """Fill `done` and give it to `later`, now or when other servers have answered. NotFound, Invalid."""
    sandbox = server.sandboxes.get(request.sandbox)
    if sandbox is None or sandbox.view is None or sandbox.settings is None:
        raise NotFound(f"sandbox {request.sandbox} has no name service; connect it to a user-defined network")
    try:
        packet = dns.message.make_query(request.name, request.type, use_edns=0, payload=wire.OUR_UDP).to_wire()
    except (dns.exception.DNSException, ValueError) as error:
        raise Invalid(f"{request.name!r} of type {request.type!r} cannot be asked: {error}") from None
    query = wire.parse(packet)
    if query is None or query.problem:
        raise Invalid(f"{request.name!r} of type {request.type!r} cannot be asked")
    lines: list[str] = []
    teller = _Teller(done, lines, later)
    found = sandbox.view.find(query.name, query.qtype)
    if found is not None:
        lines.append(f"network {found.network.name}: found as {found.how}")
        for endpoint, _ in found.holders.members if found.holders else ():
            lines.append(f"endpoint {endpoint[:12]}: {', '.join(found.network.entries[endpoint].names)}")
        if not found.records:
            lines.append("known, but without a record of this type: answered empty, no server is asked")
        teller.answer(wire.reply(query, wire.NOERROR, found.records))
        return
    networks = ", ".join(network.name for network in sandbox.view.networks) or "none"
    lines.append(f"not known on the sandbox's networks ({networks})")
    if answered_empty(sandbox.settings, query):
        lines.append("ndots is set, and the name has one label: answered empty, no server is asked")
        teller.answer(wire.reply(query, wire.NOERROR))
        return
    server.forwarder.forward(sandbox, sandbox.settings, query, packet, teller, lines)
