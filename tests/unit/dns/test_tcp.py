"""Questions over TCP: what owes an answer, and what does not."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import dns.message

from netengine.dns import tcp

_spec = importlib.util.spec_from_file_location("dns_inside", Path(__file__).with_name("inside.py"))
assert _spec is not None and _spec.loader is not None
inside = importlib.util.module_from_spec(_spec)
sys.modules["dns_inside"] = inside
_spec.loader.exec_module(inside)


def test_responses_sent_as_questions_do_not_stop_a_connection() -> None:
    with inside.house() as house:
        house.box("sb")
        client = house.client("sb", tcp=True)
        response = dns.message.make_response(dns.message.make_query("web", "A")).to_wire()
        for _ in range(tcp.MOST_PENDING * 2):
            client.sendall(inside.framed(response))
        client.sendall(inside.framed(dns.message.make_query("web", "A").to_wire()))
        got: list[bytes] = []
        house.until(lambda: got or (got.append(data) if (data := inside.received(client)) else None))
        assert dns.message.from_wire(got[0][2:]).answer


def test_a_message_without_header_closes_the_connection() -> None:
    with inside.house() as house:
        house.box("sb")
        client = house.client("sb", tcp=True)
        client.sendall(inside.framed(b"GET"))
        house.until(lambda: inside.received(client) == b"")
