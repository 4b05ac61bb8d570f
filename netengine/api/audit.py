"""Which requests are changes, or lead nowhere, and who asked for them: what goes into the audit trail (engine/audit.py).

A local peer is told by the kernel: SO_PEERCRED holds the credentials of whoever called connect(), unix(7). A remote one is told
by the certificate that it showed (api/tls.py). A body is written down without the values of environment variables, since those
are where secrets are, and without what lets somebody into a cluster.
"""

from __future__ import annotations

import os
import pwd
import socket
import struct
import time
from collections.abc import Awaitable, Mapping
from typing import Any

import msgspec

from netengine.api.http import engine_of
from netengine.engine import Audit
from netengine.http import Answer, Request, Response

_UCRED = struct.Struct("iII")  # struct ucred, socket(7)
_NOBODY = 0xFFFFFFFF  # the uid where the kernel knows none: the socket is not a local one
_ASKED_LIMIT = 1024
"""Characters of a body in a record."""
_QUERY_LIMIT = 256
MALFORMED = "MALFORMED"
"""In place of a method."""

_SECRETS = ("JoinToken", "SigningCAKey", "UnlockKey")
"""Fields whose values let somebody into a cluster."""

_users: dict[int, tuple[float, str]] = {}
_USER_SECONDS = 30.0

# POST that changes nothing: a size, a wait.
_READS = ("/resize", "/wait")


async def audited(request: Request, answering: Awaitable[Answer], *, astray: bool = False) -> Answer:
    """Write changes down, with what came of them; and whatever leads nowhere: who asks for that tries something."""
    if not astray and not is_change(request):
        return await answering
    trail, who = engine_of(request).audit, peer(request.remote, request.info("socket"))
    if is_session(request) and not astray:
        write(trail, request, who, 0)
    try:
        response = await answering
    except BaseException:
        write(trail, request, who, 0, "the client left before the answer")
        raise
    write(trail, request, who, response.status, outcome(response))
    return response


def malformed(trail: Audit, remote: Mapping[str, str] | None, sock: Any, why: str) -> None:
    """What somebody sent is no request: no HTTP, or of a method that HTTP does not have."""
    attributes = {**peer(remote, sock), "status": "400", "error": ascii(why)[1:-1][:_ASKED_LIMIT]}
    trail.record(MALFORMED, "", **attributes)


def peer(remote: Mapping[str, str] | None, sock: Any) -> Mapping[str, str]:
    """The attributes of a record that say who asked: by what is known of a remote one, else by the socket."""
    if remote is not None:
        return remote
    if sock is None:
        return {"peer": "unknown"}
    pid, uid, gid = _UCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    if uid == _NOBODY:
        return {"peer": "unknown"}
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
    """The name of a user, looked up once in a while: the C library reads the whole of /etc/passwd, or asks a directory."""
    known = _users.get(uid)
    if known is not None and time.monotonic() - known[0] < _USER_SECONDS:
        return known[1]
    try:
        name = pwd.getpwuid(uid).pw_name
    except KeyError:
        name = ""
    if len(_users) > 100:
        _users.clear()
    _users[uid] = time.monotonic(), name
    return name


def _command(pid: int) -> str:
    """The name of the process, as far as it can still be told: one that ended may have left its number to another."""
    try:
        file = os.open(f"/proc/{pid}/comm", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(file, 64).decode(errors="replace").strip()
    except OSError:
        return ""
    finally:
        os.close(file)


def is_session(request: Request) -> bool:
    """Whether the answer is a stream that may go on for long: its begin is written down, too."""
    return request.path.endswith("/attach") or ("/exec/" in request.path and request.path.endswith("/start"))


def is_change(request: Request) -> bool:
    """Whether the request is one to be written down."""
    return request.method not in ("GET", "HEAD") and not request.path.endswith(_READS)


def write(trail: Audit, request: Request, who: Mapping[str, str], status: int, error: str = "") -> None:
    """One record: what was asked, by whom, and what came of it. The status 0 means that the request has only begun."""
    attributes = {**who, "status": str(status) if status else "begun"}
    if error:
        attributes["error"] = error[:_ASKED_LIMIT]
    if request.query_string:
        attributes["query"] = request.query_string[:_QUERY_LIMIT]
    if request.decoded:
        attributes["asked"] = asked(request.decoded)
    trail.record(request.method, request.path[:_ASKED_LIMIT], **attributes)


def outcome(response: Answer) -> str:
    """The words of a refusal."""
    if response.status < 400 or not isinstance(response, Response):
        return ""
    try:
        return str(msgspec.json.decode(response.body)["message"])
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
