"""What is said over a manager's control port, 2377/tcp: HTTP with JSON over TLS. Plain data and limits; no I/O.

    GET  /v1/ca          to anybody: the roots. Whoever joins holds them against the digest in its token
    POST /v1/join        to who has a token: JoinRequest, answered with Admission
    POST /v1/renew       to a node: RenewRequest, answered with Renewal
    POST /v1/call/NAME   to a node: what else was registered by name; JSON both ways

An error is {"message": "..."} under the status of its type in errors.py.
"""

from __future__ import annotations

from typing import Any

import msgspec

from netengine import errors
from netengine.cluster.records import CONTROL_PORT, DATA_PATH_PORT
from netengine.errors import Invalid, NetengineError, Unavailable

__all__ = ["CONTROL_PORT", "Admission", "JoinRequest", "RenewRequest", "Renewal", "Roots", "error_of"]

BODY_LIMIT = 1 << 20
"""Bytes of a node's call; etcd takes no more in one change either."""
STRANGER_LIMIT = 64 << 10
"""Bytes that somebody without a certificate may send."""


class Roots(msgspec.Struct, kw_only=True):
    """`trust` holds one root, or two while it is rotated: the new one first."""

    trust: str
    now: str
    """The manager's clock, RFC 3339 in UTC: to say which clock is wrong, for nothing else."""


class JoinRequest(msgspec.Struct, kw_only=True):
    secret: str
    """The last part of the token."""
    request: str
    """A certificate signing request, PEM."""
    name: str
    """The joiner's host name."""
    advertise_address: str
    data_path_address: str = ""
    availability: str = "active"
    version: str = ""
    """Of netengine."""
    node: str = ""
    """Asked for by a node that was in this cluster and comes back: the id it had. The manager need not heed it."""

    def __repr__(self) -> str:
        return f"<JoinRequest of {self.name} at {self.advertise_address}>"


class Admission(msgspec.Struct, kw_only=True):
    """What makes a host a node."""

    node: str
    role: str
    cluster: str
    certificate: str
    """Its certificate and what leads from it to the roots, PEM."""
    trust: str
    managers: list[str]
    """ADDRESS:PORT of control services."""
    endpoints: list[str]
    """URLs of etcd's members."""
    user: str
    password: str
    """At etcd."""
    external_store: bool = False
    """With `store_prefix` and `store_roots` as in the joiner's Identity."""
    store_prefix: str = ""
    store_roots: str = ""
    data_path_port: int = DATA_PATH_PORT

    def __repr__(self) -> str:
        return f"<Admission of {self.role} {self.node}>"


class RenewRequest(msgspec.Struct, kw_only=True):
    request: str
    addresses: list[str] = []
    """IP addresses at which it can be reached now."""


class Renewal(msgspec.Struct, kw_only=True):
    certificate: str
    trust: str
    role: str
    """That the node has from now on: the certificate says so."""
    managers: list[str]
    endpoints: list[str]


_BY_STATUS: dict[int, type[NetengineError]] = {
    kind.status: kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, NetengineError) and kind is not NetengineError
}


def error_of(status: int, body: bytes) -> NetengineError:
    """The error that a manager has answered. One that has no type of ours is Unavailable: that manager is not well."""
    message = ""
    try:
        decoded: Any = msgspec.json.decode(body)
        message = str(decoded["message"])[:2000]
    except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError):
        pass
    if status == 413:
        return Invalid(message or "a manager refused the request: it is too large")
    kind = _BY_STATUS.get(status, Unavailable)
    return kind(message or f"a manager answered with HTTP status {status} and no reason")
