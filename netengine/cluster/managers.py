"""A node's client of the managers' control services: one is asked after another until one answers."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from netengine.cluster import protocol, tls
from netengine.cluster.identity import Files, hosts_port
from netengine.cluster.joining import decoded, roots, shown, url, words_of
from netengine.cluster.protocol import Renewal, RenewRequest
from netengine.errors import Forbidden, Invalid, NetengineError, Unavailable
from netengine.http.client import CallError, Client, NotConnected, Unanswered

log = logging.getLogger(__name__)

TIME_LIMIT = 10.0
"""Seconds that a call may take, over all managers that are tried."""
_CONNECT_SECONDS = 2.0  # for one manager, TLS included, as long as there is another to try
_ANSWER_LIMIT = 16 << 20


class Managers:
    """Connections are kept, so that a call costs one round trip. `addresses` are ADDRESS[:PORT].

    A call may be carried out twice when a manager dies between doing it and answering: calls must bear that.
    """

    def __init__(self, files: Files, addresses: Sequence[str], time_limit: float = TIME_LIMIT) -> None:
        self._files = files
        self._addresses = [hosts_port(a) for a in addresses]
        self._time_limit = time_limit
        self._context = tls.client_context(files)
        self._http = Client(keep_seconds=45)

    def use(self, addresses: Sequence[str]) -> None:
        """Other managers from now on. None given: they stay as they were."""
        wanted = [hosts_port(a) for a in addresses]
        if wanted:
            # Who answered last is asked first, still.
            self._addresses = [a for a in self._addresses if a in wanted] + [
                a for a in wanted if a not in self._addresses
            ]

    @property
    def addresses(self) -> list[str]:
        return [shown(*a) for a in self._addresses]

    def renewed(self) -> None:
        """The files of certificate and roots have changed: connections from now on show the new ones. Raises Conflict."""
        self._context = tls.client_context(self._files)  # connections are kept by context: calls under way go on

    async def close(self) -> None:
        await self._http.close()

    async def call(self, name: str, payload: Mapping[str, Any]) -> Any:
        """A call that is registered by that name; its answer. Raises what it raised, and Unavailable when none answers."""
        return msgspec.json.decode(await self._ask(f"/v1/call/{name}", msgspec.json.encode(payload)))

    async def renew(self, request: RenewRequest) -> Renewal:
        body = await self._ask("/v1/renew", msgspec.json.encode(request), 30.0)
        return decoded(body, Renewal, self.addresses[0])

    async def _ask(self, path: str, body: bytes, seconds: float = 0.0) -> bytes:
        if not self._addresses:
            raise Unavailable("no manager of the cluster is known to this node")
        problems: dict[str, NetengineError] = {}
        seconds = seconds or self._time_limit
        try:
            async with asyncio.timeout(seconds):
                for address in list(self._addresses):
                    try:
                        return await self._ask_one(address, path, body, seconds)
                    except (Unavailable, _Refused) as error:
                        problems[shown(*address)] = error
                        self._ask_last(address)
        except TimeoutError:
            problems[f"within {seconds:g} s"] = Unavailable("no answer")
        if len(problems) == 1 or any(isinstance(p, _Refused) for p in problems.values()):
            worst = next((p for p in problems.values() if isinstance(p, _Refused)), next(iter(problems.values())))
            kind = Forbidden if isinstance(worst, _Refused) else Unavailable
            raise kind(worst.message)
        told = "; ".join(f"{where}: {error.message}" for where, error in problems.items())
        raise Unavailable(f"no manager of the cluster answers ({told})")

    async def _ask_one(self, address: tuple[str, int], path: str, body: bytes, seconds: float) -> bytes:
        """One manager that does not answer leaves time for the others."""
        where, others = shown(*address), len(self._addresses) - 1
        limits = (seconds / (others + 1), _CONNECT_SECONDS if others else seconds)
        try:
            try:
                status, content = await self._post(address, path, body, *limits)
            except Unanswered:
                # A connection that was kept, to a manager that was started anew: there is a new one to be had.
                status, content = await self._post(address, path, body, *limits)
        except TimeoutError:
            raise Unavailable(f"the manager at {where} does not answer in time") from None
        except CallError as error:
            raise await self._error(address, error) from error
        if status != 200:
            raise protocol.error_of(status, content)
        return content

    async def _post(
        self, address: tuple[str, int], path: str, body: bytes, seconds: float, connect_seconds: float
    ) -> tuple[int, bytes]:
        how: dict[str, Any] = {"server_name": tls.MANAGER_NAME, "connect_seconds": connect_seconds}
        async with (
            asyncio.timeout(seconds),
            self._http.call("POST", url(*address, path), body, tls=self._context, **how) as answer,
        ):
            content = await answer.read(_ANSWER_LIMIT)
        if content is None:
            raise Invalid(f"the manager at {shown(*address)} answers more than {_ANSWER_LIMIT} bytes")
        return answer.status, content

    async def _error(self, address: tuple[str, int], error: CallError) -> NetengineError:
        where = shown(*address)
        cause = error.cause if isinstance(error, NotConnected) else None
        if isinstance(cause, ssl.SSLCertVerificationError):
            return _Refused(
                f"what answers at {where} cannot prove that it is a manager of this cluster: {cause.verify_message}"
            )
        if cause is None or isinstance(cause, ssl.SSLError):
            try:
                await self._prove(address)
            except NetengineError as why:
                if not isinstance(why, Unavailable) or "certificate" in why.message:
                    return _Refused(f"the manager at {where} refuses this node: {why.message}")
        return Unavailable(f"the manager at {where} cannot be reached: {words_of(error)}")

    async def _prove(self, address: tuple[str, int]) -> None:
        """Look at this node's certificate with the roots of a manager that has hung up, which it does without a word when
        it does not accept a certificate (a TLS 1.3 server hears of it after the handshake)."""
        from netengine.cluster import certificates

        theirs = await roots(*address, self._files.roots())
        certificates.verify(self._files.key_and_certificate()[1], theirs.trust)

    def _ask_last(self, address: tuple[str, int]) -> None:
        if address in self._addresses:
            self._addresses.remove(address)
            self._addresses.append(address)


class _Refused(Forbidden):
    """One end does not believe the other."""
