"""The Engine API as the commands see it: paths, query strings, JSON in and out, and errors with the daemon's own words.

Says nothing about what the objects mean; answers are plain JSON values (`Json`), shown to the user field by field.
"""

from __future__ import annotations

import json

from netengine.cli.transport import Response, quote, request
from netengine.errors import Invalid, KernelRefused, NetengineError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from typing import Any, TypeAlias

    from netengine.cli.remote import Certificates
    from netengine.cli.transport import Channel, Way

    Json: TypeAlias = Any
    """A decoded JSON value of the API. The one place where types end: the daemon is another process."""
    Query: TypeAlias = Mapping[str, str | int | bool | Sequence[str] | None]

DEFAULT_HOST = "unix:///run/netengine/netengine.sock"
API = "/v1.51"

_ERRORS = {kind.status: kind for kind in NetengineError.__subclasses__()}


class Engine:
    """A daemon at `unix://PATH` or `tcp://HOST:PORT`. Holds no connection: each call makes its own, a unix socket is cheap."""

    __slots__ = ("_way", "host")

    def __init__(self, host: str, certificates: Callable[[], Certificates] | None = None) -> None:
        """`certificates` is asked for those to use with `tcp://`."""
        scheme, separator, path = host.partition("://")
        self.host = host
        self._way: str | Way = path
        if scheme == "tcp" and certificates is not None:
            from netengine.cli.remote import Remote

            self._way = Remote(host, certificates())
        elif scheme != "unix" or not separator or not path.startswith("/") or "\0" in path:
            raise Invalid(
                f"unsupported host {host!r}: give a unix socket by its full path, such as {DEFAULT_HOST}, or tcp://HOST:PORT"
            )

    def get(self, path: str, query: Query | None = None) -> Json:
        return self.call("GET", path, query)

    def post(self, path: str, query: Query | None = None, body: Json = None) -> Json:
        return self.call("POST", path, query, body)

    def delete(self, path: str, query: Query | None = None) -> Json:
        return self.call("DELETE", path, query)

    def call(self, method: str, path: str, query: Query | None = None, body: Json = None) -> Json:
        """One request, one JSON answer (None for an empty one). 304 "it is already so" counts as done."""
        with self.open(method, path, query, body) as response:
            return decode(response.body())

    def open(self, method: str, path: str, query: Query | None = None, body: Json = None) -> Response:
        """Like `call`, with the body left to be read as it arrives. Raises the error of a 4xx or 5xx answer."""
        if body is None:
            return _checked(request(self._way, method, target(path, query)))
        data = json.dumps(body).encode()
        return _checked(
            request(self._way, method, target(path, query), headers={"Content-Type": "application/json"}, body=data)
        )

    def upload(self, path: str, query: Query, blocks: Iterator[bytes]) -> Response:
        """POST a tar stream of unknown length."""
        headers = {"Content-Type": "application/x-tar"}
        return _checked(request(self._way, "POST", target(path, query), headers=headers, body=blocks))

    def events(self, path: str, query: Query | None = None) -> Iterator[Json]:
        """GET an endless answer of one JSON object per line."""
        with self.open("GET", path, query) as response:
            for line in response.lines():
                if line.strip():
                    yield decode(line)

    def hijack(self, path: str, query: Query | None = None, body: Json = None) -> tuple[Channel, bytes, bool]:
        """POST and turn the connection into a byte stream: its socket, bytes already read, and whether it is framed."""
        headers = {"Connection": "Upgrade", "Upgrade": "tcp", "Content-Type": "application/json"}
        data = json.dumps({} if body is None else body).encode()
        response = _checked(request(self._way, "POST", target(path, query), headers=headers, body=data))
        framed = response.content_type() != "application/vnd.docker.raw-stream"
        sock, left = response.take_over()
        return sock, left, framed


def target(path: str, query: Query | None = None) -> str:
    """Request target: `path` under the API version (but netengine's own `/netengine/...` routes), then the query."""
    prefix = "" if path.startswith("/netengine/") else API
    fields = []
    for name, value in (query or {}).items():
        if value is None or value is False or value == "":
            continue
        if value is True:
            fields.append(f"{name}=1")
        elif isinstance(value, (str, int)):
            fields.append(f"{name}={quote(str(value))}")
        else:
            fields.extend(f"{name}={quote(item)}" for item in value)
    return prefix + path + ("?" + "&".join(fields) if fields else "")


def filters(pairs: Iterable[str]) -> str:
    """`--filter key=value` flags as the API's `filters` parameter: {"key": {"value": true}}; empty for none."""
    found: dict[str, dict[str, bool]] = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key.strip():
            raise Invalid(f"invalid filter {pair!r}: write it as key=value, such as name=web")
        found.setdefault(key.strip().lower(), {})[value.strip()] = True
    return json.dumps(found) if found else ""


def decode(data: bytes) -> Json:
    if not data.strip():
        return None
    try:
        return json.loads(data)
    except ValueError:
        raise KernelRefused(f"the daemon's answer is not JSON: {data[:80]!r}") from None


def _checked(response: Response) -> Response:
    if response.status < 400:
        return response
    with response:
        data = response.body()
    try:
        message = str(json.loads(data)["message"])
    except (ValueError, KeyError, TypeError):
        message = data.decode("utf-8", "replace").strip() or f"the daemon answered with status {response.status}"
    raise _ERRORS.get(response.status, KernelRefused)(message)
