"""DNS questions and answers as bytes (RFC 1035, RFC 6891): the hot, small part of the protocol, by hand. Pure.

Questions of any other shape than "one question, at most one OPT" are read by dnspython, if they are short. Names are
handled in their wire form: labels with a length each, no compression, lower case (`.lower()` leaves lengths alone: they are
below 64, letters above). No sockets and no policy here.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Sequence
from typing import NamedTuple

import dns.exception
import dns.message
import dns.opcode

A, PTR, AAAA, SRV, OPT, ANY = 1, 12, 28, 33, 41, 255
IN = 1
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED, BADVERS = 0, 1, 2, 3, 4, 5, 16

QR, TC, RD, RA, CD = 0x8000, 0x0200, 0x0100, 0x0080, 0x0010
OPCODE = 0x7800

TTL = 600  # seconds, as Docker's
HEADER = 12
SMALLEST_UDP = 512  # what every client takes (RFC 1035, 2.3.4)
OUR_UDP = 1232  # what we say we take: passes every path unfragmented
LARGEST = 65535
ODD_RECORDS, ODD_BYTES = 8, 1232  # the most of a question of an odd shape: reading 64 KB of records takes a second

_TWO = struct.Struct("!HH")
_COUNTS = struct.Struct("!HHHH")
_RR = struct.Struct("!HHHIH")  # pointer to the question's name, type, class, ttl, length
_TO_QUESTION = 0xC00C


class Query(NamedTuple):
    """A question as read. `problem` is the response code of a question that can only be refused, else 0."""

    ident: bytes
    flags: int
    question: bytes  # name, type and class with the asker's case; empty if unreadable
    name: bytes  # lower case, wire form
    qtype: int
    qclass: int
    limit: int  # bytes that the asker takes over UDP
    edns: bool
    problem: int


def parse(packet: bytes) -> Query | None:
    """Read a question. None means: do not even answer (no header, or itself a response)."""
    if len(packet) < HEADER or packet[2] & 0x80:
        return None
    flags = packet[2] << 8 | packet[3]
    questions, answers, authorities, additionals = _COUNTS.unpack_from(packet, 4)
    if flags & OPCODE:
        return _problem(packet, flags, NOTIMP)
    end = end_of_name(packet, HEADER)
    if questions != 1 or end == 0 or end + 4 > len(packet):
        return _problem(packet, flags, FORMERR)
    qtype, qclass = _TWO.unpack_from(packet, end)
    name = packet[HEADER:end].lower()
    end += 4
    question = packet[HEADER:end]
    limit, edns, problem = SMALLEST_UDP, False, 0
    if answers or authorities or additionals > 1 or (additionals and packet[end : end + 3] != b"\x00\x00\x29"):
        if answers + authorities + additionals > ODD_RECORDS or len(packet) > ODD_BYTES:
            return _problem(packet, flags, FORMERR, question)
        try:
            message = dns.message.from_wire(packet, ignore_trailing=True)
        except (dns.exception.DNSException, ValueError):
            return _problem(packet, flags, FORMERR, question)
        if message.edns >= 0:
            limit, edns = max(message.payload, SMALLEST_UDP), True
            problem = 0 if message.edns == 0 else BADVERS
    elif additionals:
        if end + 11 > len(packet) or end + 11 + (packet[end + 9] << 8 | packet[end + 10]) > len(packet):
            return _problem(packet, flags, FORMERR, question)
        limit, edns = max(packet[end + 3] << 8 | packet[end + 4], SMALLEST_UDP), True
        problem = BADVERS if packet[end + 6] else 0
    return Query(packet[:2], flags, question, name, qtype, qclass, limit, edns, problem)


def _problem(packet: bytes, flags: int, code: int, question: bytes = b"") -> Query:
    return Query(packet[:2], flags, question, b"", 0, 0, SMALLEST_UDP, False, code)


def end_of_name(packet: bytes, at: int) -> int:
    """The offset behind an uncompressed name, 0 if it is malformed: cut off, longer than 255, or with a pointer."""
    start, size = at, len(packet)
    while at < size:
        label = packet[at]
        if label == 0:
            return at + 1 if at + 1 - start <= 255 else 0
        if label > 63:
            return 0
        at += label + 1
        if at - start > 254:
            return 0
    return 0


def reply(query: Query, code: int, records: Sequence[bytes] = (), limit: int = LARGEST) -> bytes:
    """The whole answer, at most `limit` bytes: records that do not fit are left out and TC is set."""
    flags = QR | RA | (query.flags & (OPCODE | RD | CD)) | (code & 15)
    opt = b"\x00" + struct.pack("!HHBBHH", OPT, OUR_UDP, code >> 4, 0, 0, 0) if query.edns else b""
    room = limit - HEADER - len(query.question) - len(opt)
    kept = list(records)
    size = sum(map(len, kept))
    while kept and size > room:
        size -= len(kept.pop())
        flags |= TC
    counts = _COUNTS.pack(1 if query.question else 0, len(kept), 0, 1 if opt else 0)
    return b"".join((query.ident, flags.to_bytes(2, "big"), counts, query.question, *kept, opt))


def truncated(response: bytes, query: Query) -> bytes:
    """Another server's response that is too long for the asker: its header and the question, with TC set."""
    flags = (response[2] << 8 | response[3]) | TC
    opt = b"\x00" + struct.pack("!HHIH", OPT, OUR_UDP, 0, 0) if query.edns else b""
    counts = _COUNTS.pack(1, 0, 0, 1 if opt else 0)
    return b"".join((query.ident, flags.to_bytes(2, "big"), counts, query.question, opt))


def answers_to(response: bytes, query: Query) -> bool:
    """Whether a packet is a response that repeats the question (in whatever case)."""
    end = HEADER + len(query.question)
    return (
        len(response) >= end
        and response[2] & 0x80 != 0
        and response[4:6] == b"\x00\x01"
        and (response[HEADER:end] == query.question or response[HEADER:end].lower() == query.question.lower())
    )


def is_negative(response: bytes) -> bool:
    """Whether a response says that there is no such name, or no such record (RFC 2308)."""
    code = response[3] & 15
    return code == NXDOMAIN or (code == NOERROR and response[6:8] == b"\0\0" and not response[2] & (TC >> 8))


def is_refusal_without_question(response: bytes) -> bool:
    """Whether a response is an error that leaves the question out, as some servers send FORMERR, SERVFAIL and REFUSED."""
    return len(response) == HEADER and response[2] & 0x80 != 0 and response[3] & 15 in (FORMERR, SERVFAIL, REFUSED)


def address_record(address: str) -> bytes:
    """The A or AAAA record of an address, its owner name a pointer to the question's. ValueError if it is none."""
    parsed = ipaddress.ip_address(address)
    kind = A if parsed.version == 4 else AAAA
    return _RR.pack(_TO_QUESTION, kind, IN, TTL, len(parsed.packed)) + parsed.packed


def pointer_record(name: bytes) -> bytes:
    """The PTR record to a name in wire form."""
    return _RR.pack(_TO_QUESTION, PTR, IN, TTL, len(name)) + name


def service_record(port: int, target: bytes) -> bytes:
    """The SRV record (RFC 2782) of a port of a name in wire form; no priority, no weight."""
    return _RR.pack(_TO_QUESTION, SRV, IN, TTL, 6 + len(target)) + struct.pack("!HHH", 0, 0, port) + target


def split_service(name: bytes) -> tuple[bytes, bytes] | None:
    """(`_http._tcp`, `web`) of `_http._tcp.web`, in wire form; None for a name that does not begin like that."""
    first = name[0] + 1
    second = first + name[first] + 1 if first < len(name) else 0
    if not 0 < second < len(name) - 1 or name[1:2] != b"_" or name[first + 1 : first + 2] != b"_":
        return None
    return name[:second], name[second:]


def reverse_name(address: str) -> bytes:
    """`4.3.2.1.in-addr.arpa` (or `ip6.arpa`) of an address, in wire form."""
    return encode_name(ipaddress.ip_address(address).reverse_pointer) or b""


def encode_name(name: str) -> bytes | None:
    """A dotted name in wire form, case kept, or None if DNS cannot carry it (a label over 63 bytes, 255 in all)."""
    labels = [label.encode() for label in name.rstrip(".").split(".")]
    if any(not 0 < len(label) < 64 for label in labels):
        return None
    wire = b"".join(bytes((len(label),)) + label for label in labels) + b"\x00"
    return wire if len(wire) <= 255 else None


def decode_name(wire: bytes) -> str:
    """A name in wire form for people to read; bytes that are not printable ASCII as `\\ddd` (RFC 1035, 5.1)."""
    labels, at = [], 0
    while at < len(wire) and wire[at]:
        label = wire[at + 1 : at + 1 + wire[at]]
        labels.append("".join(chr(b) if 33 <= b < 127 and b not in b'.\\"' else f"\\{b:03d}" for b in label))
        at += wire[at] + 1
    return ".".join(labels) or "."


def is_single_label(name: bytes) -> bool:
    """Whether a name has exactly one label: `web`, neither `.` nor `web.app`."""
    return bool(name) and name[0] > 0 and len(name) == name[0] + 2
