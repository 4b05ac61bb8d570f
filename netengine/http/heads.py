"""The bytes in front of an answer: status line and headers. Nothing is known here of who asks."""

from __future__ import annotations

import time
from collections.abc import Mapping
from http import HTTPStatus

_PHRASES = {status.value: status.phrase for status in HTTPStatus}
_BODILESS = frozenset({204, 304})
_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_date_at, _date = 0, b""


def has_body(status: int) -> bool:
    """Whether an answer with this status may have one: RFC 9110, 15."""
    return status >= 200 and status not in _BODILESS


def date() -> bytes:
    """The header Date, RFC 9110, 5.6.7; made anew once a second."""
    global _date_at, _date
    now = int(time.time())
    if now != _date_at:
        t = time.gmtime(now)
        clock = f"{t.tm_hour:02}:{t.tm_min:02}:{t.tm_sec:02}"
        _date = f"Date: {_DAYS[t.tm_wday]}, {t.tm_mday:02} {_MONTHS[t.tm_mon - 1]} {t.tm_year} {clock} GMT\r\n".encode()
        _date_at = now
    return _date


def status_line(version: str, status: int) -> bytes:
    return f"HTTP/{version} {status} {_PHRASES.get(status, '')}\r\n".encode("ascii")


def fields(headers: Mapping[str, str]) -> bytes:
    """Headers as they are sent. Raises ValueError for one that would be two."""
    text = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    # One line break for each, and none in a name or value.
    if text.count("\r") + text.count("\n") != 2 * len(headers) or "\0" in text:
        raise ValueError(f"a header has a line break: {text[:200]!a}")
    return text.encode("latin-1", "replace")


def refusal(common: bytes) -> bytes:
    """The whole answer to what is not HTTP."""
    text = b'{"message":"the request is not HTTP/1.1 as it is understood here"}\n'
    entity = b"Content-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % len(text)
    return b"".join((status_line("1.1", 400), common, date(), entity, text))
