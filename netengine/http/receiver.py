"""Bytes of a client, one message after another. No input or output here: what is received is given to a sink.

The parser is llhttp's. It is fed no further than to the end of a message, so that what is behind it is nobody's yet: the next
request, or bytes that are no HTTP, for a handler that takes the connection over. Where a chunked body ends is found before the
parser sees it (chunks.py); the two must agree, or a part of a body could pass for a request.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import httptools

from netengine.http.chunks import Chunks, Malformed

_END_OF_HEAD = b"\r\n\r\n"


class Head(NamedTuple):
    """The first line and the headers of a request. `length` of its body: bytes, None when the client does not know yet."""

    method: str
    target: str
    version: str
    fields: dict[str, str]
    length: int | None
    keep_alive: bool


class Sink(Protocol):
    """Who receives."""

    def on_head(self, head: Head) -> None:
        """A request begins."""

    def on_piece(self, piece: bytes) -> None:
        """Some of its body."""

    def on_end(self) -> None:
        """It has come as a whole."""


class Receiver:
    """`feed` until it says that a message has ended (`Sink.on_end`), `next` to begin another."""

    __slots__ = (
        "_chunks",
        "_fields",
        "_head_limit",
        "_missing",
        "_parser",
        "_seen",
        "_sink",
        "_tail",
        "_target",
        "ended",
        "in_body",
    )

    def __init__(self, sink: Sink, head_limit: int) -> None:
        """`head_limit`: bytes of a request's first line and headers."""
        self._sink = sink
        self._head_limit = head_limit
        self._parser: httptools.HttpRequestParser | None = None
        self.next()

    def next(self) -> None:
        self._target = b""
        self._fields: dict[str, str] = {}
        self._seen = 0  # bytes of the head
        self._tail = b""  # the last three of them
        self._missing: int | None = 0  # bytes of the body that are still to come, where that is known
        self._chunks: Chunks | None = None  # where it is not
        self.in_body = self.ended = False

    @property
    def begun(self) -> bool:
        """Whether some of a message has come."""
        return self._seen > 0

    def close(self) -> None:
        """The parser holds this object, and this object holds the parser."""
        self._parser = None

    def feed(self, data: bytes) -> bytes:
        """What is behind the end of the message. Raises Malformed."""
        while data and not self.ended:
            if self._parser is None:
                self._parser = httptools.HttpRequestParser(self)
            end = self._body_end(data) if self.in_body else self._head_end(data)
            piece = data if end >= len(data) else data[:end]
            try:
                self._parser.feed_data(piece)
            except httptools.HttpParserUpgrade as upgrade:
                end = upgrade.args[0]
                self._parser = self._parser_of_body() if self.in_body else None
            except httptools.HttpParserError as error:
                raise Malformed(str(error.__context__ or error) or type(error).__name__) from None
            data = data[end:]
            if self._chunks is not None and self._chunks.done != self.ended:
                raise Malformed("a chunked body whose end is not where its chunks say")
        return data

    def _parser_of_body(self) -> httptools.HttpRequestParser:
        """To httptools an upgrade has no body, and to Docker's clients it has (exec start): another parser reads that, and
        believes that it belongs to a request of its own."""
        made = httptools.HttpRequestParser(self)
        how = b"Transfer-Encoding: chunked" if self._missing is None else b"Content-Length: %d" % self._missing
        made.feed_data(b"POST / HTTP/1.1\r\n" + how + b"\r\n\r\n")
        return made

    def _head_end(self, data: bytes) -> int:
        """How much of the bytes is of the head."""
        if self._tail:
            at = (self._tail + data).find(_END_OF_HEAD)
            end = at + 4 - len(self._tail) if at >= 0 else len(data)
        else:
            at = data.find(_END_OF_HEAD)
            end = at + 4 if at >= 0 else len(data)
        self._seen += end
        if self._seen > self._head_limit:
            raise Malformed(f"a request line and headers of more than {self._head_limit} bytes")
        self._tail = (self._tail + data[max(end - 3, 0) : end])[-3:]
        return end

    def _body_end(self, data: bytes) -> int:
        return self._chunks.scan(data) if self._chunks is not None else self._missing or 0

    # What the parser calls. An exception in here stops it, and comes out of feed_data() as the context of another.

    def on_url(self, url: bytes) -> None:
        if not self.ended:
            self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.in_body or self.ended:
            return  # a trailer
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        self._fields[key] = f"{self._fields[key]}, {text}" if key in self._fields else text

    def on_headers_complete(self) -> None:
        if self.in_body or self.ended:
            return
        assert self._parser is not None
        version = self._parser.get_http_version()
        if version not in ("1.1", "1.0"):
            raise Malformed(f"HTTP/{version}")
        self._missing = None if "transfer-encoding" in self._fields else int(self._fields.get("content-length", "0"))
        self._chunks = Chunks(self._head_limit) if self._missing is None else None
        self.in_body = True
        self._sink.on_head(
            Head(
                self._parser.get_method().decode("ascii"),
                self._target.decode(),
                version,
                self._fields,
                self._missing,
                self._parser.should_keep_alive(),
            )
        )

    def on_body(self, piece: bytes) -> None:
        if not self.ended:
            if self._missing is not None:
                self._missing -= len(piece)
            self._sink.on_piece(piece)

    def on_message_complete(self) -> None:
        upgrading = self._parser is not None and self._parser.should_upgrade()
        if not self.ended and not (upgrading and self._missing != 0):
            self.in_body, self.ended = False, True
            self._sink.on_end()
