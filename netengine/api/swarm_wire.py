"""From a cluster and its nodes to what the Docker Engine API shows (v1.51). Pure."""

from __future__ import annotations

import base64
import re
from typing import Any

from netengine.drivers import DRIVERS
from netengine.engine.swarm.nodes import NodeView
from netengine.engine.swarm.views import ClusterView, HostView, Root
from netengine.errors import Invalid

Json = dict[str, Any]

_ARCHITECTURES = {"amd64": "x86_64", "arm64": "aarch64"}


def version(text: str, what: str) -> int:
    """The Version.Index that a change is based on. Raises Invalid."""
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise Invalid(f"invalid {what} version '{text[:40]}': give the Version.Index that inspect shows")
    return int(text)


def _tls(root: Root | None) -> Json:
    if root is None:
        return {"TrustRoot": "", "CertIssuerSubject": "", "CertIssuerPublicKey": ""}
    return {
        "TrustRoot": root.certificate,
        "CertIssuerSubject": base64.b64encode(root.subject).decode(),
        "CertIssuerPublicKey": base64.b64encode(root.public_key).decode(),
    }


def cluster(found: ClusterView) -> Json:
    """ClusterInfo: what /info shows; GET /swarm adds the tokens."""
    return {
        "ID": found.record.id,
        "Version": {"Index": found.revision},
        "CreatedAt": found.record.created,
        "UpdatedAt": found.record.updated or found.record.created,
        "Spec": found.record.spec,
        "TLSInfo": _tls(found.root),
        "RootRotationInProgress": found.record.rotating,
        "DefaultAddrPool": found.record.pools,
        "SubnetSize": found.record.subnet_size,
        "DataPathPort": found.record.data_path_port,
    }


def swarm(found: ClusterView, worker: str, manager: str) -> Json:
    """GET /swarm."""
    return cluster(found) | {"JoinTokens": {"Worker": worker, "Manager": manager}}


def node(found: NodeView, cluster: ClusterView) -> Json:
    record, status = found.record, found.status
    out: Json = {
        "ID": record.id,
        "Version": {"Index": found.revision},
        "CreatedAt": record.created,
        "UpdatedAt": record.updated or record.created,
        "Spec": {"Labels": record.labels, "Role": record.role, "Availability": record.availability},
        "Description": {
            "Hostname": record.name,
            "Platform": {
                "Architecture": _ARCHITECTURES.get(status.architecture, status.architecture) if status else "",
                "OS": "linux",
            },
            "Resources": {"NanoCPUs": status.nano_cpus, "MemoryBytes": status.memory} if status else {},
            "Engine": {
                "EngineVersion": status.engine if status else "",
                "Plugins": [{"Type": "Network", "Name": name} for name in sorted(DRIVERS)],
            },
            "TLSInfo": _tls(cluster.issued_by(record.issuer)),
        },
        "Status": {"State": found.state, "Addr": record.address},
    }
    if found.message:
        out["Status"]["Message"] = found.message
    if found.reachability:
        out["ManagerStatus"] = {"Reachability": found.reachability, "Addr": found.control}
        if found.is_leader:
            out["ManagerStatus"]["Leader"] = True
    return out


def info(host: HostView) -> Json:
    """The Swarm section of /info."""
    out: Json = {
        "NodeID": host.node_id,
        "NodeAddr": host.address,
        "LocalNodeState": host.state,
        "ControlAvailable": host.control_available,
        "Error": host.error,
        "RemoteManagers": [{"NodeID": node_id, "Addr": address} for node_id, address in host.managers] or None,
    }
    if host.cluster is not None and host.control_available:
        out |= {"Nodes": host.nodes, "Managers": len(host.managers), "Cluster": cluster(host.cluster)}
    if host.store:
        out["Store"] = host.store  # which Docker has not
    return out
