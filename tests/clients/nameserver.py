"""DNS on the wire for tests: questions put from inside a sandbox, and other people's name servers to forward them to."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Mapping
from types import TracebackType

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

from tests.hosts import Namespace

EMBEDDED = "127.0.0.11"


def ask(
    place: Namespace,
    name: str,
    kind: str = "A",
    *,
    tcp: bool = False,
    server: str = EMBEDDED,
    payload: int | None = None,
    timeout: float = 5.0,
) -> dns.message.Message:
    """The answer to a question put in a namespace. OSError when none comes; an answer to another question fails."""
    query = dns.message.make_query(name, kind, use_edns=payload is not None, payload=payload or 0)
    kind_of_socket = socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM
    with place.socket(kind_of_socket, timeout=timeout) as sock:
        sock.connect((server, 53))
        if tcp:
            answer = ask_over(sock, query)
        else:
            sock.send(query.to_wire())
            answer = dns.message.from_wire(sock.recv(65535))
    assert answer.id == query.id
    assert answer.question == query.question
    return answer


def ask_over(sock: socket.socket, query: dns.message.Message) -> dns.message.Message:
    """Ask over a TCP connection that stays open (RFC 1035 4.2.2)."""
    wire = query.to_wire()
    sock.sendall(len(wire).to_bytes(2, "big") + wire)
    return dns.message.from_wire(_exactly(sock, int.from_bytes(_exactly(sock, 2), "big")))


def _exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = sock.recv(size - len(data))
        if not more:
            raise ConnectionResetError("the name server closed the connection")
        data += more
    return data


def addresses(answer: dns.message.Message) -> list[str]:
    """What a name resolves to, in the order of the answer."""
    return [record.to_text() for rrset in answer.answer for record in rrset]


def look_up(place: Namespace, name: str, kind: str = "A", **options: float) -> list[str]:
    """The addresses, [] for none, whatever the reason."""
    return addresses(ask(place, name, kind, **options))  # type: ignore[arg-type]


class Upstream:
    """A name server on port 53 of an address of a namespace: knows `records`, and nothing else exists.

    `asked` holds (address of the asker, name, "udp" or "tcp"), in order. A `silent` one never answers, as a dead machine;
    one with `rcode` answers that and nothing else. Somebody `forges` answers of its, which arrive before its own: with another
    id, and to another question.
    """

    def __init__(
        self,
        place: Namespace,
        address: str,
        records: Mapping[str, str | list[str]] | None = None,
        *,
        silent: bool = False,
        rcode: int | None = None,
        forges: str = "",
    ) -> None:
        self.asked: list[tuple[str, str, str]] = []
        self.ports: set[int] = set()  # that UDP questions came from
        self._records = {name.lower(): value for name, value in (records or {}).items()}
        self._silent, self._rcode, self._forges = silent, rcode, forges
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._udp = place.socket(socket.SOCK_DGRAM, family)
        self._udp.bind((address, 53))
        self._tcp = place.inside(lambda: socket.create_server((address, 53), family=family))
        self._end, self._ended = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, name=f"DNS on {address}", daemon=True)
        self._thread.start()

    def __enter__(self) -> Upstream:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def names(self) -> list[str]:
        """The names that were asked for."""
        return [name for _, name, _ in self.asked]

    def close(self) -> None:
        self._end.close()
        self._thread.join(5)
        for sock in (self._udp, self._tcp, self._ended):
            sock.close()

    def _serve(self) -> None:
        while True:
            ready, _, _ = select.select([self._udp, self._tcp, self._ended], [], [])
            if self._ended in ready:
                return
            if self._udp in ready:
                packet, peer = self._udp.recvfrom(65535)
                self.ports.add(int(peer[1]))
                answer = self._answer(packet, str(peer[0]), "udp")
                for datagram in (*self._forged(packet), answer):
                    if datagram:
                        self._udp.sendto(datagram, peer)
            if self._tcp in ready:
                connection, peer = self._tcp.accept()
                connection.settimeout(2)
                with connection:
                    try:
                        packet = _exactly(connection, int.from_bytes(_exactly(connection, 2), "big"))
                        answer = self._answer(packet, str(peer[0]), "tcp")
                        connection.sendall(len(answer).to_bytes(2, "big") + answer)
                    except OSError:
                        pass

    def _forged(self, packet: bytes) -> list[bytes]:
        if not self._forges:
            return []
        query = dns.message.from_wire(packet)
        out = []
        for ident, name in ((query.id ^ 1, query.question[0].name.to_text()), (query.id, "other.example.")):
            other = dns.message.make_query(name, "A", id=ident)
            answer = dns.message.make_response(other)
            answer.answer.append(dns.rrset.from_text(name, 30, "IN", "A", self._forges))
            out.append(answer.to_wire())
        return out

    def _answer(self, packet: bytes, peer: str, over: str) -> bytes:
        query = dns.message.from_wire(packet)
        (question,) = query.question
        name = question.name.to_text()
        self.asked.append((peer, name, over))
        if self._silent:
            return b""
        answer = dns.message.make_response(query)
        answer.flags |= dns.flags.RA
        value = self._records.get(name.lower())
        if self._rcode is not None:
            answer.set_rcode(dns.rcode.Rcode(self._rcode))
        elif value is None:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        elif question.rdtype == dns.rdatatype.A:
            many = [value] if isinstance(value, str) else value
            answer.answer.append(dns.rrset.from_text_list(question.name, 30, "IN", "A", many))
        wire = answer.to_wire(max_size=65535)
        if over == "udp" and len(wire) > 512:
            answer.answer.clear()
            answer.flags |= dns.flags.TC
            wire = answer.to_wire()
        return wire
