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
from aiohttp import web

from netengine.cluster import protocol, tls
from netengine.cluster.doors import Doors
from netengine.cluster.identity import Files
from netengine.cluster.protocol import Admission, JoinRequest, Renewal, RenewRequest, Roots
from netengine.cluster.records import MANAGER, WORKER
from netengine.errors import Forbidden, Invalid, NetengineError, NotFound

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
_LINGER_SECONDS = 2.0  # in which the rest of a refused request is read, so that its sender sees the answer

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
        self._runner: web.AppRunner | None = None
        self._doors: Doors | None = None

    async def start(self, address: str = "0.0.0.0", port: int = protocol.CONTROL_PORT) -> None:
        """Raises Conflict when the port is taken, Invalid when the address is not one of this host."""
        app = web.Application(client_max_size=protocol.BODY_LIMIT, middlewares=[self._answer])
        app.router.add_get("/v1/ca", self._roots)
        app.router.add_post("/v1/join", self._join)
        app.router.add_post("/v1/renew", self._renew)
        app.router.add_post("/v1/call/{name}", self._call)
        runner = web.AppRunner(
            app, access_log=None, handle_signals=False, lingering_time=_LINGER_SECONDS, shutdown_timeout=_CLOSE_SECONDS
        )
        await runner.setup()
        try:
            assert runner.server is not None
            doors = Doors(runner.server, tls.server_context(self._files))
            doors.open(address, port)
        except BaseException:
            await runner.cleanup()
            raise
        self._runner, self._doors = runner, doors

    @property
    def port(self) -> int:
        return self._doors.port if self._doors else 0

    async def close(self) -> None:
        if self._doors is not None:
            await self._doors.close()
        if self._runner is not None:
            await self._runner.cleanup()
        self._doors = self._runner = None

    def renewed(self) -> None:
        """The files of certificate and roots have changed: who connects from now on is shown the new ones. Raises Conflict."""
        if self._doors is not None:
            self._doors.context = tls.server_context(self._files)

    # -- routes -------------------------------------------------------------------------------------------------------

    async def _roots(self, request: web.Request) -> web.Response:
        return _json(Roots(trust=self._registrar.trust(), now=datetime.now(UTC).isoformat(timespec="seconds")))

    async def _join(self, request: web.Request) -> web.Response:
        wanted = await self._read(request, JoinRequest, protocol.STRANGER_LIMIT)
        async with self._joins:
            admission = await self._registrar.admit(wanted, remote(request))
        log.info(
            "%s %s has joined as node %s from %s", admission.role, plain(wanted.name), admission.node, remote(request)
        )
        return _json(admission)

    async def _renew(self, request: web.Request) -> web.Response:
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

    async def _call(self, request: web.Request) -> web.Response:
        caller, name = await self.caller(request), request.match_info["name"]
        handler = self.calls.get(name)
        if handler is None and (handler := self.manager_calls.get(name)) is not None and not caller.is_manager:
            raise Forbidden(f"node {caller.node} is a worker, and only managers may call {name!a}")
        if handler is None:
            raise NotFound(f"this manager knows no call {name[:80]!a}: is it of an older version?")
        payload = await self._read(request, Any, protocol.BODY_LIMIT)
        async with self._running:
            return _json(await handler(caller, payload))

    # -- what holds for all -------------------------------------------------------------------------------------------

    async def caller(self, request: web.Request) -> Caller:
        """Who calls. Raises Forbidden for everybody who is no node of this cluster now."""
        connection = request.get_extra_info("ssl_object")
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

    async def _read(self, request: web.Request, kind: type[T] | Any, limit: int) -> Any:
        if request.content_length is not None and request.content_length > limit:
            raise _TooLarge(f"a request of {request.content_length} bytes: no more than {limit} are taken")
        body = bytearray()
        try:
            async with asyncio.timeout(BODY_SECONDS):
                async for piece in request.content.iter_any():
                    body += piece
                    if len(body) > limit:
                        raise _TooLarge(f"a request of more than {limit} bytes")
        except TimeoutError:
            raise Invalid(f"the request has not come to an end within {BODY_SECONDS:g} s") from None
        try:
            return msgspec.json.decode(bytes(body), type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Invalid(f"the request is not what is understood here: {error}") from None

    @web.middleware
    async def _answer(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Errors become answers, and refusals are logged."""
        began = time.monotonic()
        try:
            with self._doors.request(request.protocol) if self._doors else contextlib.nullcontext():
                async with asyncio.timeout(BODY_SECONDS + HANDLING_SECONDS):
                    return await handler(request)
        except NetengineError as error:
            status, message = error.status, error.message
            level = logging.WARNING if isinstance(error, Forbidden) else logging.INFO
            log.log(level, "refused %s from %s: %s", plain(request.path), remote(request), message)
        except TimeoutError:
            status, message = 503, f"the manager was not done with it within {time.monotonic() - began:.0f} s"
            log.warning("%s from %s: %s", plain(request.path), remote(request), message)
        except web.HTTPException as error:
            status, message = error.status, f"{plain(request.method)} {plain(request.path)}: {error.reason}"
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("%s from %s failed", plain(request.path), remote(request))
            status, message = 500, "the manager failed to do it: its log says why"
        answer = web.json_response({"message": message}, status=status)
        answer.force_close()  # what is left of a request that was refused is not read
        return answer


class _TooLarge(Invalid):
    status = 413


def plain(text: str) -> str:
    """What a stranger wrote, for the log: short, and one line whatever he wrote."""
    return text[:80] if text.isprintable() else ascii(text[:80])


def remote(request: web.Request) -> str:
    """The address that the request came from."""
    found = request.get_extra_info("peername")
    return str(found[0]).removeprefix("::ffff:") if found else "?"


def _json(answer: Any) -> web.Response:
    return web.Response(body=msgspec.json.encode(answer), content_type="application/json")


@contextlib.contextmanager
def _invalid(words: str) -> Iterator[None]:
    try:
        yield
    except ValueError:
        raise Invalid(words) from None
