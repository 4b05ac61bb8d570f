"""TLS between the nodes of a cluster: what each end shows and what it demands of the other.

Everybody who connects demands a manager, by the name that only managers' certificates have; so neither another cluster's
certificate nor a worker's can stand in for one, and addresses may change.
"""

from __future__ import annotations

import ssl
from typing import Any

from netengine.cluster.identity import Files
from netengine.cluster.records import MANAGER, WORKER
from netengine.errors import Conflict, Forbidden, Unavailable

MANAGER_NAME = "swarm-manager"
_ROLES = {MANAGER_NAME: MANAGER, "swarm-worker": WORKER}


def server_context(files: Files) -> ssl.SSLContext:
    """Of the control service: who has a certificate shows it; who has none (a joiner) is let in as nobody."""
    made = _context(ssl.PROTOCOL_TLS_SERVER)
    made.verify_mode = ssl.CERT_OPTIONAL
    made.options |= ssl.OP_NO_RENEGOTIATION
    made.num_tickets = 0  # a resumed session would not be asked for its certificate again
    _load(made, files)
    return made


def client_context(files: Files) -> ssl.SSLContext:
    """Of a node that speaks to a manager or to etcd. Give MANAGER_NAME as the server's name where that can be said."""
    made = _context(ssl.PROTOCOL_TLS_CLIENT)
    made.verify_mode = ssl.CERT_REQUIRED
    _load(made, files)
    return made


def joining_context(root: str) -> ssl.SSLContext:
    """Of a host that has no certificate yet and knows the cluster's root."""
    made = _context(ssl.PROTOCOL_TLS_CLIENT)
    made.load_verify_locations(cadata=root)
    return made


def blind_context() -> ssl.SSLContext:
    """Of a host that asks for the root, which it will hold against its token: nothing that comes is trusted."""
    made = _context(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    return made


def peer(connection: ssl.SSLObject | ssl.SSLSocket) -> tuple[str, str, str, str]:
    """(node, role, cluster, serial in hexadecimal) of the certificate that the other end has shown. Raises Forbidden."""
    shown: dict[str, Any] = dict(connection.getpeercert() or {})
    if not shown:
        raise Forbidden("a certificate of this cluster is demanded here, and none was shown")
    said: dict[str, list[str]] = {}
    for part in shown.get("subject", ()):
        for name, value in part:
            said.setdefault(name, []).append(value)
    node, unit, cluster = (said.get(k, []) for k in ("commonName", "organizationalUnitName", "organizationName"))
    if not (len(node) == len(unit) == len(cluster) == 1) or unit[0] not in _ROLES:
        raise Forbidden("the certificate that was shown is not one of a node of this cluster")
    return node[0], _ROLES[unit[0]], cluster[0], str(shown.get("serialNumber", "")).lower().lstrip("0")


def _context(kind: int) -> ssl.SSLContext:
    made = ssl.SSLContext(kind)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    return made


def _load(context: ssl.SSLContext, files: Files) -> None:
    try:
        context.load_verify_locations(files.trust)
        context.load_cert_chain(files.pem, password="")
    except ssl.SSLError as error:
        raise Conflict(
            f"{files.pem} and {files.trust} are damaged: {error.reason or error}; put them back from a backup, or leave with "
            "`docker swarm leave --force` and join again"
        ) from error
    except OSError as error:
        raise Unavailable(f"the node's certificate in {files.directory} cannot be read: {error.strerror}") from error
