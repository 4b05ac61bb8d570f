"""What every route shares: versions, headers, decoding of bodies and queries, errors as HTTP.

Texts and rules are those of the Docker Engine API, because clients match on them.
"""

from __future__ import annotations

import asyncio
import json
import logging
import platform
import re
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
from aiohttp import web

import netengine
from netengine.api.streams import Answered
from netengine.engine import Engine
from netengine.errors import Invalid, NetengineError

log = logging.getLogger(__name__)

API_VERSION = (1, 51)
MIN_API_VERSION = (1, 24)
ENGINE: web.AppKey[Engine] = web.AppKey("engine", Engine)
BODY_LIMIT = 4 << 20
"""Bytes of a JSON body; images are streamed and not bounded by it."""

BODY: Any = web.RequestKey("body", dict) if hasattr(web, "RequestKey") else "netengine.body"
"""Under this key a request keeps its decoded body, for the audit trail."""

S = TypeVar("S")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_MAPS_OF_NULLS = frozenset({"EndpointsConfig", "PortBindings", "ExposedPorts", "Volumes"})
"""Objects whose null values mean something: the key is what counts."""

_HEADERS = {
    # Go clients read the operating system out of this form.
    "Server": f"Docker/netengine-{netengine.__version__} (linux)",
    "Api-Version": ".".join(map(str, API_VERSION)),
    "Ostype": "linux",
    "Docker-Experimental": "false",
}


def text_of(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def engine_of(request: web.Request) -> Engine:
    return request.app[ENGINE]


def version_of(request: web.Request) -> tuple[int, int]:
    """The API version that the client chose by its path; the newest for a path without one."""
    found = request.match_info.get("version")
    if found is None:
        return API_VERSION
    major, _, minor = found.partition(".")
    return int(major), int(minor)


# -- answers ----------------------------------------------------------------------------------------------------------


def reply(value: object, status: int = 200) -> web.Response:
    """A JSON answer. The Go client compares the content type without a charset."""
    body = msgspec.json.encode(value) + b"\n"
    return web.Response(status=status, body=body, headers={"Content-Type": "application/json"})


def failure(status: int, message: str) -> web.Response:
    if status == 304:
        return web.Response(status=304)
    return reply({"message": message}, status)


def _check_version(request: web.Request) -> None:
    version = version_of(request)
    if version < MIN_API_VERSION:
        raise Invalid(
            f"client version {text_of(version)} is too old. Minimum supported API version is {text_of(MIN_API_VERSION)}, "
            "please upgrade your client to a newer version"
        )
    if version > API_VERSION:
        raise Invalid(
            f"client version {text_of(version)} is too new. Maximum supported API version is {text_of(API_VERSION)}"
        )


def streaming(handler: Handler) -> Handler:
    """Mark a handler whose answer goes on for as long as the client listens: it ends when the client leaves."""
    _STREAMING.add(handler)
    return handler


_STREAMING: set[Handler] = set()
_OPEN = web.AppKey("open_streams", set[asyncio.Future[web.StreamResponse]])


def setup(app: web.Application) -> None:
    """Make the application end its open streams when it shuts down, instead of waiting for them."""
    opened: set[asyncio.Future[web.StreamResponse]] = set()
    app[_OPEN] = opened
    app.on_shutdown.append(_end_streams)


async def _end_streams(app: web.Application) -> None:
    tasks = [*app[_OPEN]]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def _run(request: web.Request, handler: Handler) -> web.StreamResponse:
    """aiohttp cancels a handler whose client hangs up. That ends a stream; anything else is finished all the same, so that
    nothing is left half-made."""
    route = request.match_info.handler
    task = asyncio.ensure_future(handler(request))
    if route not in _STREAMING:
        task.add_done_callback(lambda t: t.cancelled() or t.exception())  # heard, even when nobody waits any more
        return await asyncio.shield(task)
    tasks = request.app[_OPEN]
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    try:
        return await task
    except asyncio.CancelledError:
        task.cancel()
        me = asyncio.current_task()
        if me is not None and me.cancelling():
            raise
        return _gone()  # the daemon stops


def _gone() -> web.StreamResponse:
    gone = Answered()
    gone.force_close()
    return gone


@web.middleware
async def docker_semantics(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Errors as Docker words and codes them."""
    try:
        _check_version(request)
        return await _run(request, handler)
    except NetengineError as e:
        if e.status >= 500:
            log.warning("%s %s: %s", request.method, request.path, e.message)
        return failure(e.status, e.message)
    except web.HTTPException as e:
        if e.status in (404, 405):
            return failure(404, "page not found")
        return failure(e.status, e.reason)
    except ConnectionError:
        log.debug("%s %s: the client left before the end of the answer", request.method, request.path)
        return _gone()
    except Exception as e:
        log.exception("%s %s failed", request.method, request.path)
        return failure(500, f"internal error: {type(e).__name__}: {e}; this is a bug of netengine, see its log")


async def common_headers(request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_HEADERS)


# -- requests ---------------------------------------------------------------------------------------------------------


async def body_object(request: web.Request, optional: bool = False) -> dict[str, Any]:
    """The JSON object in the body, without the nulls that stand for "not given"."""
    if request.content_length is not None and request.content_length > BODY_LIMIT:
        raise Invalid(f"the request body has {request.content_length} bytes; at most {BODY_LIMIT} are accepted")
    raw = await request.content.read(BODY_LIMIT + 1)
    while not request.content.at_eof() and len(raw) <= BODY_LIMIT:
        raw += await request.content.read(BODY_LIMIT + 1 - len(raw))
    if len(raw) > BODY_LIMIT:
        raise Invalid(f"the request body has more than {BODY_LIMIT} bytes")
    if not raw.strip():
        if optional:
            return {}
        raise Invalid("invalid JSON: got EOF while reading request body")
    kind = request.headers.get("Content-Type", "")
    if kind.partition(";")[0].strip().lower() != "application/json":
        raise Invalid(f"unsupported Content-Type header ({kind}): must be 'application/json'")
    try:
        value = json.loads(raw)
    except json.JSONDecodeError as e:
        if e.msg == "Extra data":
            raise Invalid("unexpected content after JSON") from None
        raise Invalid(f"invalid JSON: {e}") from None
    except (UnicodeDecodeError, RecursionError, ValueError) as e:
        raise Invalid(f"invalid JSON: {type(e).__name__}") from None
    if value is None and optional:
        return {}
    if not isinstance(value, dict):
        raise Invalid(f"invalid JSON: an object is expected, got {type(value).__name__}")
    request[BODY] = asked = _without_nulls(value)
    return asked


def _without_nulls(value: dict[str, Any], keep: bool = False) -> dict[str, Any]:
    out = {}
    for key, item in value.items():
        if item is None and not keep:
            continue
        if isinstance(item, dict):
            item = _without_nulls(item, key in _MAPS_OF_NULLS)
        elif isinstance(item, list):
            item = [_without_nulls(i) if isinstance(i, dict) else i for i in item]
        out[key] = item
    return out


def decode(value: dict[str, Any], into: type[S]) -> S:
    """The object as a wire type. Raises Invalid naming the field."""
    try:
        return msgspec.convert(value, into)
    except msgspec.ValidationError as e:
        raise Invalid(f"invalid JSON: {e}") from None


def flag(request: web.Request, name: str, default: bool = False) -> bool:
    """A boolean of the query, as Docker reads one."""
    if name not in request.query:
        return default
    return request.query[name].strip().lower() not in ("", "0", "no", "false", "none")


def number(request: web.Request, name: str) -> int | None:
    """A whole number of the query; None when it is not given. Raises Invalid."""
    text = request.query.get(name, "")
    if not text:
        return None
    if not re.fullmatch(r"-?[0-9]{1,9}", text):
        raise Invalid(f"invalid value {text[:40]!r} for {name}: it must be a whole number")
    return int(text)


def moment(request: web.Request, name: str) -> int | None:
    """A time of the query, seconds since the epoch with a fraction, as nanoseconds; None when not given or 0."""
    text = request.query.get(name, "")
    if not text:
        return None
    if not re.fullmatch(r"-?[0-9]{1,12}(\.[0-9]{1,9})?", text):
        raise Invalid(f"invalid value {text[:40]!r} for {name}: give seconds since the epoch")
    seconds, _, fraction = text.partition(".")
    return int(seconds) * 1_000_000_000 + int(fraction.ljust(9, "0")) if fraction else int(seconds) * 1_000_000_000


def filters(request: web.Request, known: tuple[str, ...]) -> dict[str, list[str]]:
    """The `filters` of the query, {"name": {"web": true}} or the older {"name": ["web"]}. Raises Invalid."""
    text = request.query.get("filters", "")
    if not text:
        return {}
    try:
        raw = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as e:
        raise Invalid(f"invalid filter: not JSON: {e}") from None
    if not isinstance(raw, dict):
        raise Invalid("invalid filter: an object is expected")
    out: dict[str, list[str]] = {}
    for name, values in raw.items():
        if name not in known:
            raise Invalid(f"invalid filter '{name[:60]}'")
        if isinstance(values, dict):
            wanted = [v for v, on in values.items() if on]
        elif isinstance(values, list) and all(isinstance(v, str) for v in values):
            wanted = values
        else:
            raise Invalid(f"invalid filter '{name[:60]}': give a list of texts")
        if wanted:  # a filter without a value asks for nothing
            out[name] = wanted
    return out


def matches_labels(labels: dict[str, str], wanted: list[str]) -> bool:
    """Whether all of `key` and `key=value` are among the labels."""
    return all(labels.get(k) == v if sep else k in labels for k, sep, v in (w.partition("=") for w in wanted))


def boolean(values: list[str], name: str) -> bool:
    """The one boolean of a filter."""
    if len(values) != 1 or values[0].lower() not in ("true", "false", "1", "0"):
        raise Invalid(f"invalid filter '{name}={values[0] if values else ''}'")
    return values[0].lower() in ("true", "1")


def machine() -> str:
    """The architecture in Go's words."""
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
