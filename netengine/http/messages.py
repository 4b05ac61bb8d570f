"""What was asked and what is answered. No bytes are read or written here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import parse_qsl, unquote

from netengine.http.body import Body

if TYPE_CHECKING:
    from netengine.http.connection import Connection, Taken
    from netengine.http.stream import Stream


class Query:
    """The parameters of a query; one may be given several times."""

    __slots__ = ("_values",)

    def __init__(self, text: str) -> None:
        self._values: dict[str, list[str]] = {}
        if text:
            for name, value in parse_qsl(text, keep_blank_values=True):
                self._values.setdefault(name, []).append(value)

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def __getitem__(self, name: str) -> str:
        """The first value. Raises KeyError."""
        return self._values[name][0]

    def get(self, name: str, default: str = "") -> str:
        """The first value."""
        found = self._values.get(name)
        return found[0] if found else default

    def getall(self, name: str) -> list[str]:
        """Every value, in the order in which they were given."""
        return self._values.get(name, [])


class Request:
    """One request. Its body may still be on the way (body.py)."""

    __slots__ = (
        "_query",
        "app",
        "body",
        "connection",
        "decoded",
        "headers",
        "keep_alive",
        "method",
        "path",
        "query_string",
        "raw_path",
        "remote",
        "variables",
        "version",
    )

    def __init__(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str] | None = None,
        *,
        version: str = "1.1",
        keep_alive: bool = True,
        body: Body | None = None,
        connection: Connection | None = None,
        app: object = None,
        remote: Mapping[str, str] | None = None,
    ) -> None:
        """`target` is a path with its query, or an absolute URL (RFC 9112, 3.2)."""
        if not target.startswith("/") and "://" in target:
            authority_and_path = target.partition("://")[2]
            slash = authority_and_path.find("/")
            target = authority_and_path[slash:] if slash >= 0 else "/"
        path, _, self.query_string = target.partition("#")[0].partition("?")
        self.method = method
        self.raw_path = path
        """As it was sent; the router reads this one."""
        self.path = unquote(path) if "%" in path else path
        self.headers: Mapping[str, str] = headers or {}
        """By their name in small letters; several of one name are joined by commas."""
        self.version = version
        """Of HTTP: `1.1` or `1.0`."""
        self.keep_alive = keep_alive
        self.body = body or Body.empty()
        self.variables: dict[str, str] = {}
        """The parts of the path that the route left open, by name."""
        self.app = app
        """What the server serves for, as it was given to it."""
        self.remote = remote
        """What is known of a peer that is not local, as it was given with the connection."""
        self.decoded: dict[str, Any] | None = None
        """What the handler has made of the body, for whoever writes requests down."""
        self.connection = connection
        """That it came over."""
        self._query: Query | None = None

    @property
    def query(self) -> Query:
        if self._query is None:
            self._query = Query(self.query_string)
        return self._query

    @property
    def upgrades(self) -> bool:
        """Whether the client asks to speak something else from here on."""
        return "upgrade" in self.headers.get("connection", "").lower() and bool(self.headers.get("upgrade"))

    def info(self, name: str) -> Any:
        """What the transport knows of itself: `socket`, `peername`, `ssl_object` (asyncio.BaseTransport.get_extra_info)."""
        return self.connection.info(name) if self.connection is not None else None

    def stream(self, headers: Mapping[str, str], status: int = 200) -> Stream:
        """Begin an answer that comes in pieces: its head is sent now. The handler returns it when all is written.

        From here on the handler is cancelled when the client leaves. Raises ConnectionError when it has left already.
        """
        if self.connection is None:
            raise ConnectionResetError("the request has no connection")
        return self.connection.begin_stream(self, status, headers)

    def take_over(self) -> Taken:
        """The connection's transport, for something other than HTTP; the handler ends it. Its answer is not sent.

        Read the body before. Raises ConnectionError when the client has left.
        """
        if self.connection is None:
            raise ConnectionResetError("the request has no connection")
        return self.connection.take_over()


class Response:
    """An answer whose body is there as a whole. `close` ends the connection behind it."""

    __slots__ = ("body", "close", "headers", "status")

    def __init__(
        self, status: int = 200, body: bytes = b"", headers: Mapping[str, str] | None = None, *, close: bool = False
    ) -> None:
        self.status = status
        self.body = body
        self.headers: Mapping[str, str] = headers or {}
        self.close = close


Answer: TypeAlias = "Response | Stream"
Handler: TypeAlias = Callable[[Request], Awaitable["Response | Stream"]]
