"""What every route shares: versions, headers, decoding of bodies and queries, errors as HTTP.

Texts and rules are those of the Docker Engine API, because clients match on them.
"""

from __future__ import annotations

import asyncio
import json
import logging
import platform
import re
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import msgspec

import netengine
from netengine.engine import Engine
from netengine.errors import Invalid, NetengineError
from netengine.http import Answer, Handler, Request, Response, Router

log = logging.getLogger(__name__)

API_VERSION = (1, 51)
MIN_API_VERSION = (1, 24)
BODY_LIMIT = 4 << 20
"""Bytes of a JSON body; images are streamed and not bounded by it."""
BODY_SECONDS = 60.0
"""In which such a body must have come."""

S = TypeVar("S")

_MAPS_OF_NULLS = frozenset({"EndpointsConfig", "PortBindings", "ExposedPorts", "Volumes"})
"""Objects whose null values mean something: the key is what counts."""

HEADERS = {
    # Go clients read the operating system out of this form.
    "Server": f"Docker/netengine-{netengine.__version__} (linux)",
    "Api-Version": ".".join(map(str, API_VERSION)),
    "Ostype": "linux",
    "Docker-Experimental": "false",
}
"""Of every answer."""
_VERSION = re.compile(r"/v([0-9]{1,9}\.[0-9]{1,9})(/.*)", re.DOTALL)
_JSON = {"Content-Type": "application/json"}


def text_of(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def engine_of(request: Request) -> Engine:
    assert isinstance(request.app, Engine)
    return request.app


def version_of(request: Request) -> tuple[int, int]:
    """The API version that the client chose by its path; the newest for a path without one."""
    found = request.variables.get("version")
    if found is None:
        return API_VERSION
    major, _, minor = found.partition(".")
    return int(major), int(minor)


# -- answers ----------------------------------------------------------------------------------------------------------


def reply(value: object, status: int = 200) -> Response:
    """A JSON answer. The Go client compares the content type without a charset."""
    body = msgspec.json.encode(value) + b"\n"
    return Response(status, body, _JSON)


def failure(status: int, message: str) -> Response:
    if status == 304:
        return Response(304)
    return reply({"message": message}, status)


def _check_version(request: Request) -> None:
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


async def docker_semantics(request: Request, handler: Handler) -> Answer:
    """Errors as Docker words and codes them."""
    try:
        _check_version(request)
        return await handler(request)
    except NetengineError as e:
        if e.status >= 500:
            log.warning("%s %s: %s", request.method, request.path, e.message)
        return failure(e.status, e.message)
    except ConnectionError:
        raise  # the client has left
    except Exception as e:
        log.exception("%s %s failed", request.method, request.path)
        return failure(500, f"internal error: {type(e).__name__}: {e}; this is a bug of netengine, see its log")


def resolver(routes: Iterable[tuple[str, str, Handler]]) -> Callable[[Request], Handler]:
    """Finds the handler of a request, under /vX.Y or bare, and notes what its path leaves open."""
    router = Router(routes)

    def resolve(request: Request) -> Handler:
        path, version = request.raw_path, None
        if found := _VERSION.fullmatch(path):
            version, path = found.groups()
        route = router.find(request.method, path)
        if route is None:
            return not_found
        handler, request.variables = route
        if version is not None:
            request.variables["version"] = version
        return handler

    return resolve


async def not_found(request: Request) -> Answer:
    """Of a path that leads nowhere."""
    return failure(404, "page not found")


# -- requests ---------------------------------------------------------------------------------------------------------


async def body_object(request: Request, optional: bool = False) -> dict[str, Any]:
    """The JSON object in the body, without the nulls that stand for "not given"."""
    length = request.body.length
    if length is not None and length > BODY_LIMIT:
        raise Invalid(f"the request body has {length} bytes; at most {BODY_LIMIT} are accepted")
    if request.body.complete:
        raw = await request.body.whole(BODY_LIMIT)
    else:
        try:
            async with asyncio.timeout(BODY_SECONDS):
                raw = await request.body.whole(BODY_LIMIT)
        except TimeoutError:
            raise Invalid(f"the request body has not come to an end within {BODY_SECONDS:g} s") from None
    if len(raw) > BODY_LIMIT:
        raise Invalid(f"the request body has more than {BODY_LIMIT} bytes")
    if not raw.strip():
        if optional:
            return {}
        raise Invalid("invalid JSON: got EOF while reading request body")
    kind = request.headers.get("content-type", "")
    if kind.partition(";")[0].strip().lower() != "application/json":
        raise Invalid(f"unsupported Content-Type header ({kind}): must be 'application/json'")
    try:
        value = _decoded(raw)
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
    request.decoded = asked = _without_nulls(value)
    return asked


def _decoded(raw: bytes) -> object:
    """By the faster of two decoders; what it refuses, the other accepts or has the words for."""
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError, ValueError):
        return json.loads(raw)


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


def flag(request: Request, name: str, default: bool = False) -> bool:
    """A boolean of the query, as Docker reads one."""
    if name not in request.query:
        return default
    return request.query[name].strip().lower() not in ("", "0", "no", "false", "none")


def number(request: Request, name: str) -> int | None:
    """A whole number of the query; None when it is not given. Raises Invalid."""
    text = request.query.get(name, "")
    if not text:
        return None
    if not re.fullmatch(r"-?[0-9]{1,9}", text):
        raise Invalid(f"invalid value {text[:40]!r} for {name}: it must be a whole number")
    return int(text)


def moment(request: Request, name: str) -> int | None:
    """A time of the query, seconds since the epoch with a fraction, as nanoseconds; None when not given or 0."""
    text = request.query.get(name, "")
    if not text:
        return None
    if not re.fullmatch(r"-?[0-9]{1,12}(\.[0-9]{1,9})?", text):
        raise Invalid(f"invalid value {text[:40]!r} for {name}: give seconds since the epoch")
    seconds, _, fraction = text.partition(".")
    return int(seconds) * 1_000_000_000 + int(fraction.ljust(9, "0")) if fraction else int(seconds) * 1_000_000_000


def filters(request: Request, known: tuple[str, ...]) -> dict[str, list[str]]:
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
