"""Packets that once broke something (tests/corpus/dns.txt), again, one after the other at one server.

It drops or answers each, and goes on.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import dns.message
import pytest

from netengine.dns import forwarder, wire


def _beside(name: str) -> ModuleType:
    """A module of this directory, which is no package."""
    spec = importlib.util.spec_from_file_location(f"dns_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None and spec.loader is not None
    module = sys.modules.get(spec.name) or importlib.util.module_from_spec(spec)
    if spec.name not in sys.modules:
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
    return module


inside = _beside("inside")
order = _beside("test_order")
garbage = _beside("test_garbage")

LINES = (Path(__file__).parents[2] / "corpus" / "dns.txt").read_text().splitlines()


def corpus(kind: str) -> list[str]:
    return [line.removeprefix(kind).strip() for line in LINES if line.split(" ")[0] == kind]


def packet(text: str, question: bytes = b"") -> bytes:
    out = b""
    for word in text.split():
        piece, _, times = word.partition("*")
        out += question if piece == "$Q" else bytes.fromhex(piece) * int(times or 1)
    return out


@pytest.fixture(scope="module")
def house() -> Iterator[object]:
    with inside.house() as one:
        one.box("sb")
        yield one


def test_the_corpus_is_one() -> None:
    assert len(corpus("question")) > 30 and len(corpus("answer")) > 10
    assert {line.split(" ")[0] for line in LINES if line} == {"#", "question", "answer"}


LAST = dns.message.make_query("web", "A", id=0xBEEF).to_wire()


@pytest.mark.parametrize("text", corpus("question"), ids=lambda text: text[:60] or "nothing")
def test_a_question(house, text: str) -> None:
    question = packet(text)
    replies: list[bytes] = []
    client = house.client("sb")
    client.send(question[:65507])
    client.send(LAST)

    def answered() -> bool:
        while data := inside.received(client):
            replies.append(data)
        return any(reply[:2] == b"\xbe\xef" for reply in replies)

    house.until(answered)
    client.close()
    for reply in replies:
        if reply[:2] != b"\xbe\xef":
            garbage.check(question[:65507], reply, 65535)


@pytest.mark.parametrize("text", corpus("question"), ids=lambda text: text[:60] or "nothing")
def test_a_question_over_tcp(house, text: str) -> None:
    """The server may end a connection on which nonsense comes. It does not keep one waiting."""
    client = house.client("sb", tcp=True)
    stream = inside.framed(packet(text)[:65535]) + inside.framed(LAST)
    data, sent = bytearray(), 0

    def over() -> bool:
        nonlocal sent
        try:
            sent += client.send(stream[sent:]) if sent < len(stream) else 0
        except BlockingIOError:
            pass
        except ConnectionError:
            return True
        while piece := inside.received(client):
            data.extend(piece)
        return piece == b"" or b"\xbe\xef" in bytes(data)

    house.until(over)
    client.close()
    assert b"\xbe\xef" in data or sent == len(stream), "it was read to its end"


@pytest.fixture(scope="module")
def site() -> Iterator[object]:
    first = order.Peer(order.FIRST)
    second = order.Peer(order.SECOND, first.port)
    with inside.house(first.port, (order.FIRST,)) as one:
        yield order.Site(one, first, second)
    first.sock.close()
    second.sock.close()


class Raw(forwarder.Asker):
    limit = wire.LARGEST
    stream = False

    def __init__(self) -> None:
        self.replies: list[bytes] = []

    def answer(self, reply: bytes) -> None:
        self.replies.append(reply)


@pytest.mark.parametrize("text", corpus("answer"), ids=lambda text: text[:60] or "nothing")
def test_an_answer(site, text: str) -> None:
    """What has the header and the question of an answer is passed on as it came, records unread, as it would reach its asker
    without us; for anything else the right one is waited for."""
    times = len(site.first.asked) + 1
    caller = Raw()
    question_asked = dns.message.make_query(f"n{times}.example", "A").to_wire()
    site.house.server.resolve(site.house.server.sandboxes["sb"], question_asked, caller)
    site.until(lambda: site.first.is_asked(times))
    asked, sender = site.first.asked[-1]
    wired = asked.to_wire()
    question = wired[12 : 12 + len(asked.question[0].name.to_wire()) + 4]
    sent = packet(text, question)
    site.first.sock.sendto(wired[:2] + sent, sender)
    site.first.answer("10.0.0.1")
    site.until(lambda: caller.replies)
    (reply,) = caller.replies
    assert reply[:2] == question_asked[:2] and reply[2] & 0x80 and reply[12 : 12 + len(question)] == question
    assert reply == question_asked[:2] + sent or dns.message.from_wire(reply).answer, "it, or the right one"
