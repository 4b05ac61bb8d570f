"""Nodes of a cluster for tests: their files on disk, and a registrar that knows them, without a store."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from netengine.cluster import certificates, tokens
from netengine.cluster.certificates import NODE_LIFE, Authority
from netengine.cluster.control import Caller
from netengine.cluster.identity import Files, Identity
from netengine.cluster.protocol import Admission, JoinRequest, Renewal, RenewRequest
from netengine.cluster.tokens import Token
from netengine.errors import NotFound

CLUSTER = "cluster1"


def node_files(
    directory: Path,
    authority: Authority,
    node: str,
    role: str,
    addresses: Sequence[str] = ("127.0.0.1",),
    *,
    cluster: str = CLUSTER,
    trust: str = "",
    age: timedelta = timedelta(),
    life: timedelta = NODE_LIFE,
) -> Files:
    """A node as it is after it has joined, `age` ago."""
    key = certificates.make_key()
    now = datetime.now(UTC) - age
    certificate = certificates.issue(
        authority, certificates.make_request(key), node, role, cluster, addresses, now, life
    )
    files = Files(directory / node)
    me = Identity(node=node, cluster=cluster, role=role, advertise_address=addresses[0])
    files.save(me, key, certificate, trust or authority.trust)
    return files


class Registry:
    """The records of a cluster's nodes, in memory."""

    def __init__(self, authority: Authority) -> None:
        self.authority = authority
        self.secrets = {"worker": tokens.make_secret(), "manager": tokens.make_secret()}
        self.roles: dict[str, str] = {}
        self.admitted: list[JoinRequest] = []

    def token(self, role: str) -> Token:
        return Token(certificates.digest(self.authority.certificate), self.secrets[role])

    def trust(self) -> str:
        return self.authority.trust

    async def role_of(self, node: str) -> str:
        if node not in self.roles:
            raise NotFound(node)
        return self.roles[node]

    async def admit(self, request: JoinRequest, address: str) -> Admission:
        role = tokens.role_of(request.secret, self.secrets["worker"], self.secrets["manager"])
        node = secrets.token_hex(8)
        made = certificates.issue(self.authority, request.request, node, role, CLUSTER, [request.advertise_address])
        self.roles[node] = role
        self.admitted.append(request)
        return Admission(
            node=node,
            role=role,
            cluster=CLUSTER,
            certificate=made,
            trust=self.trust(),
            managers=["127.0.0.1:2377"],
            endpoints=["https://127.0.0.1:2379"],
            user=f"node-{node}",
            password="p",
        )

    async def renew(self, caller: Caller, request: RenewRequest) -> Renewal:
        role = self.roles[caller.node]
        made = certificates.issue(self.authority, request.request, caller.node, role, CLUSTER, request.addresses)
        return Renewal(certificate=made, trust=self.trust(), role=role, managers=["127.0.0.1:2377"], endpoints=[])
