"""Which requests are changes, and who asked for them: what goes into the audit trail (engine/audit.py).

A local peer is told by the kernel: SO_PEERCRED holds the credentials of whoever called connect(), unix(7). A remote one is told
by the certificate that it showed (api/tls.py). A body is written down without the values of environment variables, since those
are where secrets are, and without what lets somebody into a cluster.
"""

from __future__ import annotations

import pwd
import socket
import struct
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web

from netengine.api.http import BODY, Handler, engine_of
from netengine.engine import Audit

_UCRED = struct.Struct("3i")
_ASKED_LIMIT = 1024
"""Characters of a body in a record."""
_QUERY_LIMIT = 256
REMOTES: web.AppKey[dict[object, dict[str, str]]] = web.AppKey("remotes", dict[object, dict[str, str]])
"""The peers of TLS connections by the HTTP protocol that serves each (api/tls.py)."""

_SECRETS = ("JoinToken", "SigningCAKey", "UnlockKey")
"""Fields whose values let somebody into a cluster."""

# POST that changes nothing: a size, a wait.
_READS = ("/resize", "/wait")


@web.middleware
async def audited(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Write changes down, with what came of them."""
    if not is_change(request):
        return await handler(request)
    trail, who = engine_of(request).audit, peer(request)
    if is_session(request):
        write(trail, request, who, 0)
    try:
        response = await handler(request)
    except BaseException:
        write(trail, request, who, 0, "the client left before the answer")
        raise
    write(trail, request, who, response.status, outcome(response))
    return response


def peer(request: web.Request) -> dict[str, str]:
    """The attributes of a record that say who asked."""
    remote = request.app[REMOTES].get(request.protocol)
    if remote is not None:
        return remote
    sock = request.transport.get_extra_info("socket") if request.transport is not None else None
    if sock is None or sock.family != socket.AF_UNIX:
        return {"peer": "unknown"}
    pid, uid, gid = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    found = {"uid": str(uid), "gid": str(gid), "pid": str(pid)}
    if name := _user(uid):
        found["user"] = name
    if command := _command(pid):
        found["command"] = command
    return found


def subject(certificate: dict[str, Any]) -> str:
    """`CN=alice, O=example`: the subject of a certificate as getpeercert() has it, the most specific part first."""
    short = {"commonName": "CN", "organizationName": "O", "organizationalUnitName": "OU", "countryName": "C"}
    parts = [(short.get(name, name), value) for group in certificate.get("subject", ()) for name, value in group]
    return ", ".join(f"{name}={value}" for name, value in reversed(parts)) or "(no subject)"


def remote(certificate: dict[str, Any], address: Any) -> dict[str, str]:
    """What is known of a peer that showed a certificate."""
    serial = str(certificate.get("serialNumber", ""))
    return {"subject": subject(certificate), "serial": serial, "from": f"{address[0]} port {address[1]}"}


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return ""


def _command(pid: int) -> str:
    """The name of the process, as far as it can still be told: one that ended may have left its number to another."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip() if pid > 0 else ""
    except OSError:
        return ""


def is_session(request: web.Request) -> bool:
    """Whether the answer is a stream that may go on for long: its begin is written down, too."""
    return request.path.endswith("/attach") or ("/exec/" in request.path and request.path.endswith("/start"))


def is_change(request: web.Request) -> bool:
    """Whether the request is one to be written down."""
    return request.method not in ("GET", "HEAD") and not request.path.endswith(_READS)


def write(trail: Audit, request: web.Request, who: dict[str, str], status: int, error: str = "") -> None:
    """One record: what was asked, by whom, and what came of it. The status 0 means that the request has only begun."""
    attributes = {**who, "status": str(status) if status else "begun"}
    if error:
        attributes["error"] = error[:_ASKED_LIMIT]
    if request.query_string:
        attributes["query"] = request.query_string[:_QUERY_LIMIT]
    body = request.get(BODY)
    if body:
        attributes["asked"] = asked(body)
    trail.record(request.method, request.path, **attributes)


def outcome(response: web.StreamResponse) -> str:
    """The words of a refusal."""
    body = getattr(response, "body", None)
    if response.status < 400 or not isinstance(body, bytes):
        return ""
    try:
        return str(msgspec.json.decode(body)["message"])
    except (msgspec.DecodeError, KeyError, TypeError):
        return ""


def asked(body: dict[str, Any]) -> str:
    """A body as a record shows it: without the values of variables and without secrets, and cut."""
    text = msgspec.json.encode(_shown(body)).decode()
    return text if len(text) <= _ASKED_LIMIT else text[: _ASKED_LIMIT - 3] + "..."


def _shown(body: dict[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in body.items():
        if key == "Env":
            out[key] = _names(value)
        elif key in _SECRETS:
            out[key] = "..." if value else value
        else:
            out[key] = _shown(value) if isinstance(value, dict) else value
    return out


def _names(variables: object) -> object:
    if not isinstance(variables, list):
        return "..."
    return [f"{str(one).partition('=')[0]}=..." for one in variables]
