"""The control service of a manager: strangers with a token join, nodes renew their certificates and call what is registered.

Whoever connects is a stranger or a node: TLS has seen its certificate, and the cluster's records say whether it is still one
and what it may be. Decisions about nodes are the registrar's (engine/swarm); here is what must hold of every caller: who it
is, that it is bounded in size, time and number, and that a refusal is logged. Runs on the event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any, Protocol, TypeVar

import msgspec

from netengine.cluster import protocol, tls
from netengine.cluster.doors import Doors
from netengine.cluster.identity import Files
from netengine.cluster.protocol import Admission, JoinRequest, Renewal, RenewRequest, Roots
from netengine.cluster.records import MANAGER, WORKER
from netengine.errors import Forbidden, Invalid, NetengineError, NotFound
from netengine.http import Answer, Request, Response, Router, Server
from netengine.http import Handler as RouteHandler

log = logging.getLogger(__name__)

HANDLING_SECONDS = 20.0
"""That a call may take, once its request is there."""
BODY_SECONDS = 10.0
"""In which a request's body must have come."""
CALLS_AT_ONCE = 128
"""More wait for their turn, as long as a call may take."""
JOINS_AT_ONCE = 8
"""A join makes this manager sign a certificate and change etcd."""

_CLOSE_SECONDS = 2.0  # that calls have which are under way when the service ends
_HEAD_LIMIT = 16 << 10  # bytes of a request's line and headers
_JSON = {"Content-Type": "application/json"}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Caller:
    """A node, by its certificate and the cluster's records; `role` is what both say, `address` where it calls from."""

    node: str
    role: str
    serial: str
    address: str

    @property
    def is_manager(self) -> bool:
        return self.role == MANAGER


Handler = Callable[[Caller, Any], Awaitable[Any]]
"""Gets who calls and its JSON; answers JSON (anything that msgspec encodes). Raises errors of errors.py."""


class Registrar(Protocol):
    """The part of a manager that knows the nodes."""

    def trust(self) -> str:
        """The roots, PEM, the newest first."""

    async def role_of(self, node: str) -> str:
        """What the records say that the node is. Raises NotFound when it is none (any more)."""

    async def admit(self, request: JoinRequest, address: str) -> Admission:
        """Check the secret, make a node and answer what it needs. `address` is where the joiner calls from.

        Raises Forbidden (wrong secret), Invalid, Conflict, Unavailable; then nothing was made.
        """

    async def renew(self, caller: Caller, request: RenewRequest) -> Renewal:
        """A new certificate, with the role that the records say."""


class Control:
    """The service. `calls` are registered by name, before or while it runs: `control.calls["blocks"] = handler`."""

    def __init__(self, files: Files, cluster: str, registrar: Registrar) -> None:
        self.calls: dict[str, Handler] = {}
        self.manager_calls: dict[str, Handler] = {}
        """Only managers may call these."""
        self._files = files
        self._cluster = cluster
        self._registrar = registrar
        self._joins = asyncio.Semaphore(JOINS_AT_ONCE)
        self._running = asyncio.Semaphore(CALLS_AT_ONCE)
        self._router = Router(
            [
                ("GET", "/v1/ca", self._roots),
                ("POST", "/v1/join", self._join),
                ("POST", "/v1/renew", self._renew),
                ("POST", "/v1/call/{name}", self._call),
            ]
        )
        self._server: Server | None = None
        self._doors: Doors | None = None

    async def start(self, address: str = "0.0.0.0", port: int = protocol.CONTROL_PORT) -> None:
        """Raises Conflict when the port is taken, Invalid when the address is not one of this host."""
        server = Server(self._answer, head_limit=_HEAD_LIMIT)
        doors = Doors(server.connection, tls.server_context(self._files))
        doors.open(address, port)
        self._server, self._doors = server, doors

    @property
    def port(self) -> int:
        return self._doors.port if self._doors else 0

    async def close(self) -> None:
        if self._doors is not None:
            await self._doors.close()
        if self._server is not None:
            await self._server.close(_CLOSE_SECONDS)
        self._doors = self._server = None

    def renewed(self) -> None:
        """The files of certificate and roots have changed: who connects from now on is shown the new ones. Raises Conflict."""
        if self._doors is not None:
            self._doors.context = tls.server_context(self._files)

    # -- routes -------------------------------------------------------------------------------------------------------

    async def _roots(self, request: Request) -> Response:
        return _json(Roots(trust=self._registrar.trust(), now=datetime.now(UTC).isoformat(timespec="seconds")))

    async def _join(self, request: Request) -> Response:
        wanted = await self._read(request, JoinRequest, protocol.STRANGER_LIMIT)
        async with self._joins:
            admission = await self._registrar.admit(wanted, remote(request))
        log.info(
            "%s %s has joined as node %s from %s", admission.role, plain(wanted.name), admission.node, remote(request)
        )
        return _json(admission)

    async def _renew(self, request: Request) -> Response:
        caller = await self.caller(request)
        wanted = await self._read(request, RenewRequest, protocol.STRANGER_LIMIT)
        for address in wanted.addresses[:17]:
            with _invalid(f"{address[:60]!a} is no IP address"):
                ip_address(address)
        if len(wanted.addresses) > 16:
            raise Invalid("a node has no more than 16 addresses")
        renewal = await self._registrar.renew(caller, wanted)
        log.info("node %s has a new certificate, as %s", caller.node, renewal.role)
        return _json(renewal)

    async def _call(self, request: Request) -> Response:
        caller, name = await self.caller(request), request.variables["name"]
        handler = self.calls.get(name)
        if handler is None and (handler := self.manager_calls.get(name)) is not None and not caller.is_manager:
            raise Forbidden(f"node {caller.node} is a worker, and only managers may call {name!a}")
        if handler is None:
            raise NotFound(f"this manager knows no call {name[:80]!a}: is it of an older version?")
        payload = await self._read(request, Any, protocol.BODY_LIMIT)
        async with self._running:
            return _json(await handler(caller, payload))

    # -- what holds for all -------------------------------------------------------------------------------------------

    async def caller(self, request: Request) -> Caller:
        """Who calls. Raises Forbidden for everybody who is no node of this cluster now."""
        connection = request.info("ssl_object")
        node, role, cluster, serial = tls.peer(connection)
        if cluster != self._cluster:
            raise Forbidden(f"the certificate is one of cluster {cluster[:60]!a}, and this is {self._cluster}")
        # A connection may be older than its certificate's life; TLS has looked at the beginning only.
        ends = ssl.cert_time_to_seconds(connection.getpeercert()["notAfter"])
        if datetime.now(UTC).timestamp() > ends:
            raise Forbidden(f"the certificate of node {node} has expired")
        try:
            recorded = await self._registrar.role_of(node)
        except NotFound:
            raise Forbidden(f"node {node} is not, or no longer, one of this cluster") from None
        # Promoted: not before it has a manager's certificate. Demoted: at once, whatever it shows.
        return Caller(node, MANAGER if role == recorded == MANAGER else WORKER, serial, remote(request))

    async def _read(self, request: Request, kind: type[T] | Any, limit: int) -> Any:
        length = request.body.length
        if length is not None and length > limit:
            raise _TooLarge(f"a request of {length} bytes: no more than {limit} are taken")
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await request.body.whole(limit)
        except TimeoutError:
            raise Invalid(f"the request has not come to an end within {BODY_SECONDS:g} s") from None
        if len(body) > limit:
            raise _TooLarge(f"a request of more than {limit} bytes")
        try:
            return msgspec.json.decode(body, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Invalid(f"the request is not what is understood here: {error}") from None

    async def _answer(self, request: Request) -> Answer:
        """Errors become answers, and refusals are logged."""
        began = time.monotonic()
        try:
            with self._doors.request(request.connection) if self._doors else contextlib.nullcontext():
                async with asyncio.timeout(BODY_SECONDS + HANDLING_SECONDS):
                    return await self._handler(request)(request)
        except NetengineError as error:
            status, message = error.status, error.message
            level = logging.WARNING if isinstance(error, Forbidden) else logging.INFO
            log.log(level, "refused %s from %s: %s", plain(request.path), remote(request), message)
        except TimeoutError:
            status, message = 503, f"the manager was not done with it within {time.monotonic() - began:.0f} s"
            log.warning("%s from %s: %s", plain(request.path), remote(request), message)
        except ConnectionError:
            raise  # the caller has left
        except Exception:
            log.exception("%s from %s failed", plain(request.path), remote(request))
            status, message = 500, "the manager failed to do it: its log says why"
        # What is left of a request that was refused is not read.
        return Response(status, msgspec.json.encode({"message": message}), _JSON, close=True)

    def _handler(self, request: Request) -> RouteHandler:
        found = self._router.find(request.method, request.raw_path)
        if found is None:
            error = _NoMethod if any(self._router.find(m, request.raw_path) for m in ("GET", "POST")) else NotFound
            raise error(f"{plain(request.method)} {plain(request.path)}: there is no such call")
        handler, request.variables = found
        return handler


class _TooLarge(Invalid):
    status = 413


class _NoMethod(Invalid):
    status = 405


def plain(text: str) -> str:
    """What a stranger wrote, for the log: short, and one line whatever he wrote."""
    return text[:80] if text.isprintable() else ascii(text[:80])


def remote(request: Request) -> str:
    """The address that the request came from."""
    found = request.info("peername")
    return str(found[0]).removeprefix("::ffff:") if found else "?"


def _json(answer: Any) -> Response:
    return Response(200, msgspec.json.encode(answer), _JSON)


@contextlib.contextmanager
def _invalid(words: str) -> Iterator[None]:
    try:
        yield
    except ValueError:
        raise Invalid(words) from None
