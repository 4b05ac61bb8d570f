"""What is shown of a cluster, and of this host's place in it: plain values, made by swarm.py, worded by the API."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from netengine.cluster.mirror import Held
from netengine.cluster.records import ClusterRecord

INACTIVE, PENDING, ACTIVE, ERROR = "inactive", "pending", "active", "error"
"""Docker's words for what a host is to its cluster (LocalNodeState)."""


@dataclass(frozen=True, slots=True)
class Root:
    """A root certificate: PEM, and its name and public key (DER). `digest` is the SHA-256 of its DER form, in hexadecimal."""

    certificate: str
    subject: bytes
    public_key: bytes
    digest: str


@dataclass(frozen=True, slots=True)
class ClusterView:
    record: ClusterRecord
    revision: int
    roots: tuple[Root, ...]
    """The present one first."""

    @property
    def root(self) -> Root | None:
        return self.roots[0] if self.roots else None

    def issued_by(self, digest: str) -> Root | None:
        """The root that signed a certificate, by its digest; the present one where none is said."""
        if not digest:
            return self.root
        return next((root for root in self.roots if root.digest == digest), None)


@dataclass(frozen=True, slots=True)
class HostView:
    """This host's part. `managers` are (node id, ADDRESS:PORT)."""

    state: str = INACTIVE
    node_id: str = ""
    address: str = ""
    control_available: bool = False
    error: str = ""
    managers: tuple[tuple[str, str], ...] = ()
    nodes: int = 0
    cluster: ClusterView | None = None
    store: str = ""
    """Where the cluster's etcd is, when its managers run none."""
    warnings: tuple[str, ...] = ()


def cluster_view(held: Held[ClusterRecord]) -> ClusterView:
    return ClusterView(held.record, held.revision, roots(held.record.trust))


@functools.lru_cache(maxsize=4)
def roots(trust: str) -> tuple[Root, ...]:
    """The roots in a bundle, PEM."""
    # Late: only members of a cluster pay for what reads certificates.
    from netengine.cluster import certificates, pem

    found = []
    for one in pem.load_all(trust, "the cluster's roots"):
        text = pem.pem(one)
        said = certificates.issuer(text)
        found.append(Root(text, said.subject, said.public_key, certificates.digest(text).hex()))
    return tuple(found)
