"""Bytes of clients as heads and pieces, in whatever pieces the bytes come."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netengine.http.receiver import Head, Malformed, Receiver

LIMIT = 64 << 10


class Heard:
    """What a receiver says, in order."""

    def __init__(self) -> None:
        self.heads: list[Head] = []
        self.body = b""
        self.ends = 0

    def on_head(self, head: Head) -> None:
        self.heads.append(head)

    def on_piece(self, piece: bytes) -> None:
        self.body += piece

    def on_end(self) -> None:
        self.ends += 1


def heard(data: bytes, cuts: list[int] | None = None) -> tuple[Heard, Receiver, bytes]:
    """Feed the bytes in pieces; what was heard of the first message, and what is behind it."""
    sink = Heard()
    fed = Receiver(sink, LIMIT)
    behind, at = b"", 0
    for cut in [*sorted(cuts or []), len(data)]:
        piece, at = data[at:cut], max(at, cut)
        behind += fed.feed(piece)
    return sink, fed, behind


SIZED = b"POST /a?b=1 HTTP/1.1\r\nHost: x\r\nX-One: 1\r\nx-one: 2\r\nContent-Length: 5\r\n\r\nhello"
CHUNKED = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n2\r\nlo\r\n0\r\nTrailer: x\r\n\r\n"
PLAIN = b"GET /_ping HTTP/1.1\r\nHost: x\r\n\r\n"
UPGRADE = b"Connection: Upgrade\r\nUpgrade: tcp\r\n"


@given(st.data())
@pytest.mark.parametrize("behind", [b"", PLAIN, b"\0raw"])
@pytest.mark.parametrize(
    "message",
    [
        SIZED,
        PLAIN,
        PLAIN.replace(b"Host: x\r\n", UPGRADE),
        SIZED.replace(b"Host: x\r\n", UPGRADE),
        CHUNKED,
        CHUNKED.replace(b" HTTP/1.1\r\n", b" HTTP/1.1\r\n" + UPGRADE),
    ],
    ids=["sized", "plain", "upgrade", "upgrade with a body", "chunked", "upgrade with a chunked body"],
)
def test_a_message_ends_where_it_ends_however_it_is_cut(message: bytes, behind: bytes, data: st.DataObject) -> None:
    cuts = data.draw(st.lists(st.integers(0, len(message + behind)), max_size=6))
    sink, fed, left = heard(message + behind, cuts)
    assert (len(sink.heads), sink.ends, fed.ended) == (1, 1, True)
    assert sink.body == (b"hello" if b"POST" in message else b"")
    assert left == behind


@given(st.lists(st.integers(0, len(CHUNKED)), max_size=6))
@pytest.mark.parametrize("upgrade", [b"", UPGRADE])
def test_a_chunked_body_is_put_together(upgrade: bytes, cuts: list[int]) -> None:
    message = CHUNKED.replace(b" HTTP/1.1\r\n", b" HTTP/1.1\r\n" + upgrade)
    sink, _, left = heard(message, cuts)
    assert (sink.body, sink.ends, left) == (b"hello", 1, b"")
    assert sink.heads[0].length is None
    assert "trailer" not in sink.heads[0].fields


def test_the_head_is_what_was_sent() -> None:
    (head,) = heard(SIZED)[0].heads
    assert head[:3] == ("POST", "/a?b=1", "1.1")
    assert head.fields == {"host": "x", "x-one": "1, 2", "content-length": "5"}
    assert (head.length, head.keep_alive) == (5, True)


@given(st.integers(0, len(CHUNKED) - 1), st.binary(min_size=1, max_size=1), st.lists(st.integers(0, 200), max_size=3))
def test_where_a_chunked_body_ends_both_who_look_agree(at: int, byte: bytes, cuts: list[int]) -> None:
    """Whatever is wrong with it: no part of a body is ever left for a request, nor one taken for a part of a body."""
    sent = CHUNKED[:at] + byte + CHUNKED[at + 1 :] + SIZED
    try:
        sink, fed, left = heard(sent, cuts)
    except Malformed:
        return
    if fed.ended and sink.heads[0].length is None:
        assert left == SIZED
    assert len(sink.heads) <= 1


def test_one_message_after_another() -> None:
    sink = Heard()
    fed = Receiver(sink, LIMIT)
    data = PLAIN + CHUNKED + SIZED + CHUNKED
    while data:
        data = fed.feed(data)
        assert fed.ended
        fed.next()
    assert [head.method for head in sink.heads] == ["GET", "POST", "POST", "POST"]
    assert sink.body == b"hello" * 3


@pytest.mark.parametrize(
    "data",
    [
        b"\0" * 100,
        b"\x16\x03\x01\x02\x00",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/2.0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"A" * 100_000,
        b"GET /info HTTP/1.1\r\n" + b"x: y\r\n" * 50_000,
        b"GET /" + b"a" * LIMIT + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET / HTTP/1.1\r\nx\0y: z\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\n\r\n",
        # What proxies and servers have been made to disagree on (request smuggling).
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 5, 5\r\n\r\nhello",
        b"POST / HTTP/1.1\r\nContent-Length: " + b"9" * 30 + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        *(
            b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n" + body
            for body in (
                b"3\nhel\n0\n\n",
                b"3\r\nhell\r\n0\r\n\r\n",
                b"0x3\r\nhel\r\n0\r\n\r\n",
                b"+3\r\nhel\r\n0\r\n\r\n",
                b"-1\r\n",
                b"\r\n0\r\n\r\n",
                b"3;a\nb\r\nhel\r\n0\r\n\r\n",
                b"1" + b"0" * 16 + b"\r\n",
                b"3;" + b"a" * 5000,
                b"0\r\nx: " + b"a" * LIMIT,
                b"0\r\n" + b"x: y\r\n" * LIMIT,
            )
        ),
        b"GET / HTTP/1.1\nHost: x\n\n",
    ],
    ids=lambda data: repr(data[:40]),
)
@pytest.mark.parametrize("split", [False, True])
def test_what_is_no_http_is_malformed_and_never_another_error(data: bytes, split: bool) -> None:
    with pytest.raises(Malformed) as refused:
        heard(data, list(range(1, min(len(data), 300))) if split else None)
    assert str(refused.value)
