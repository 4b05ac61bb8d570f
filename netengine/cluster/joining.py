"""The way into a cluster: from a token and managers' addresses to an admission. Nothing is kept here; see identity.py.

The joiner asks a manager for the roots without trusting it, holds them against the digest in its token, and only then sends its
secret and its request, over TLS that this root vouches for.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec

from netengine.cluster import protocol, tls
from netengine.cluster.identity import hosts_port
from netengine.cluster.protocol import Admission, JoinRequest, Roots
from netengine.cluster.tokens import Token
from netengine.errors import Forbidden, Invalid, NetengineError, Unavailable
from netengine.http.client import Client, ConnectTimeout, Disconnected, NotConnected

CONNECT_SECONDS = 3.0
JOIN_SECONDS = 25.0
"""For one manager; it makes a record, a user and a certificate."""
_ANSWER_LIMIT = 64 << 10
_NOT_YET_VALID, _EXPIRED = 9, 10  # X509_V_ERR_…, x509_vfy.h of OpenSSL

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Joined:
    """The admission and the key that its certificate is for. `manager` is who admitted: ADDRESS:PORT."""

    admission: Admission
    key: str
    manager: str


async def join(
    managers: Sequence[str],
    token: Token,
    name: str,
    advertise_address: str,
    *,
    data_path_address: str = "",
    availability: str = "active",
    version: str = "",
    node: str = "",
    key: str = "",
) -> Joined:
    """Ask one manager after another (ADDRESS[:PORT]) to be let in. A new key is made unless one is given.

    Raises Forbidden (the token is not this cluster's, or no longer), Invalid, Unavailable (none answers, or a clock is wrong).
    """
    from netengine.cluster import certificates  # not before it is needed: see there

    if not managers:
        raise Invalid("no manager is named: give the address of one, such as 192.0.2.1:2377")
    addresses = [hosts_port(one) for one in managers]
    key = key or certificates.make_key()
    request = JoinRequest(
        secret=token.secret,
        request=certificates.make_request(key),
        name=name,
        advertise_address=advertise_address,
        data_path_address=data_path_address,
        availability=availability,
        version=version,
        node=node,
    )
    problems: list[str] = []
    for host, port in addresses:
        try:
            root, clock = await _root(host, port, token)
            admission = await _ask(host, port, root, clock, request)
        except Unavailable as error:
            problems.append(error.message)
            continue
        said = certificates.verify(admission.certificate, admission.trust)
        if not certificates.matches(admission.certificate, key) or said.node != admission.node:
            raise Unavailable(
                f"the manager at {shown(host, port)} has issued a certificate that is not this host's: try again"
            )
        return Joined(admission, key, shown(host, port))
    raise Unavailable("; ".join(dict.fromkeys(problems)))


async def roots(host: str, port: int, trust: str = "") -> Roots:
    """What a manager says that its roots are. Without a root to `trust` nobody has vouched for that. Raises Unavailable."""
    context, name = (tls.joining_context(trust), tls.MANAGER_NAME) if trust else (tls.blind_context(), "")
    try:
        body = await _bounded_call(host, port, CONNECT_SECONDS * 2, "GET", "/v1/ca", b"", context, name)
        return decoded(body, Roots, shown(host, port))
    except _Unproven as error:
        raise Unavailable(f"what answers at {shown(host, port)} cannot prove that it is a manager: {error}") from error


async def _root(host: str, port: int, token: Token) -> tuple[str, datetime | None]:
    """The root that the token names, and what the manager's clock says."""
    from netengine.cluster import certificates

    answer = await roots(host, port)
    clock = _moment(answer.now)
    for root in certificates.split(answer.trust):
        if certificates.digest(root) == token.digest:
            return root, clock
    raise Forbidden(
        f"the CA of the cluster at {shown(host, port)} is not the one that the join token was made for: the token is another "
        "cluster's, or from before the CA was rotated, or something between here and there pretends to be the manager; nothing "
        "was sent there. Ask a manager for the token of today"
    )


async def _ask(host: str, port: int, root: str, clock: datetime | None, request: JoinRequest) -> Admission:
    context, wanted = tls.joining_context(root), msgspec.json.encode(request)
    try:
        body = await _bounded_call(host, port, JOIN_SECONDS, "POST", "/v1/join", wanted, context, tls.MANAGER_NAME)
        return decoded(body, Admission, shown(host, port))
    except _Unproven as error:
        raise _explained(shown(host, port), error.reason, clock) from error.reason


class _Unproven(Exception):
    """The other end's certificate was not accepted."""

    def __init__(self, reason: ssl.SSLCertVerificationError) -> None:
        super().__init__(str(reason))
        self.reason = reason


async def _bounded_call(
    host: str, port: int, seconds: float, method: str, path: str, body: bytes, context: ssl.SSLContext, name: str
) -> bytes:
    """The body of the answer, over a connection of its own. Raises what the manager answers, _Unproven, Unavailable."""
    where = shown(host, port)
    how: dict[str, Any] = {"tls": context, "server_name": name, "connect_seconds": CONNECT_SECONDS}
    try:
        async with (
            asyncio.timeout(seconds),
            Client(keep_seconds=0).call(method, url(host, port, path), body, **how) as answer,
        ):
            content = await answer.read(_ANSWER_LIMIT)
    except TimeoutError as error:
        waited = CONNECT_SECONDS if isinstance(error, ConnectTimeout) else seconds
        raise Unavailable(
            f"no manager answers at {where} within {waited:g} s: is the address right, and may TCP to its port pass?"
        ) from None
    except NotConnected as error:
        if isinstance(error.cause, ssl.SSLCertVerificationError):
            raise _Unproven(error.cause) from error
        if isinstance(error.cause, ssl.SSLError):
            raise Unavailable(
                f"what answers at {where} is not the control service of a manager ({words_of(error)}): is the port right?"
            ) from error
        raise Unavailable(f"no manager answers at {where}: {words_of(error)}") from error
    except (Disconnected, ValueError) as error:
        raise Unavailable(f"no manager answers at {where}: {words_of(error)}") from error
    if content is None:
        raise Unavailable(f"{host} answers more than a manager would: is this the control port of one?")
    if answer.status != 200:
        raise protocol.error_of(answer.status, content)
    return content


def _explained(where: str, error: ssl.SSLCertVerificationError, clock: datetime | None) -> NetengineError:
    """Why the manager's certificate was refused, in words; both clocks when one of them is the reason."""
    if error.verify_code in (_NOT_YET_VALID, _EXPIRED):
        here = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
        there = clock.strftime("%Y-%m-%d %H:%M:%S") if clock else "unknown"
        how = "not valid yet" if error.verify_code == _NOT_YET_VALID else "expired"
        return Unavailable(
            f"the certificate of the manager at {where} is {how} by this host's clock, which says {here} UTC; the "
            f"manager's says {there} UTC: set the one that is wrong, then try again"
        )
    return Forbidden(
        f"what answers at {where} shows the cluster's CA and cannot prove that it is one of its managers "
        f"({error.verify_message}): nothing was sent there"
    )


def decoded(body: bytes, kind: type[T], where: str) -> T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Unavailable(f"{where} does not answer as a manager of netengine does: {error}") from None


def _moment(text: str) -> datetime | None:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return at.astimezone(UTC) if at.tzinfo else None


def url(host: str, port: int, path: str) -> str:
    return f"https://{shown(host, port)}{path}"


def shown(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def words_of(error: Any) -> str:
    """Of an error of a call, in the kernel's words where they are known."""
    cause = error.cause if isinstance(error, NotConnected) else error
    if isinstance(cause, ssl.SSLError) and cause.reason:
        return cause.reason.lower().replace("_", " ")
    if isinstance(cause, socket.gaierror):
        return cause.strerror or "the name is not known"
    if isinstance(cause, OSError) and cause.errno:
        return os.strerror(cause.errno)  # asyncio puts words of its own where the kernel's were
    return str(cause) or type(cause).__name__
