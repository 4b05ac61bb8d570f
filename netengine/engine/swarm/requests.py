"""What the engine is asked of clusters: requests as the API decodes them, with the wire names of the Docker Engine API (v1.51).

The specification of a cluster (SwarmSpec) is kept as its user gave it; what is done with it is said in specs.py.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import field

JsonDict = dict[str, Any]


class Orchestration(msgspec.Struct, kw_only=True, rename="pascal", omit_defaults=True):
    task_history_retention_limit: int | None = None


class Raft(msgspec.Struct, kw_only=True, rename="pascal"):
    """Of SwarmKit's own store. netengine's is etcd, which has other settings: these are kept and shown."""

    snapshot_interval: int = 0
    keep_old_snapshots: int | None = None
    log_entries_for_slow_followers: int = 0
    election_tick: int = 0
    heartbeat_tick: int = 0


class Dispatcher(msgspec.Struct, kw_only=True, rename="pascal", omit_defaults=True):
    heartbeat_period: int = 0
    """Nanoseconds."""


class CAConfig(msgspec.Struct, kw_only=True, rename="pascal", omit_defaults=True):
    node_cert_expiry: int = 0
    """Nanoseconds."""
    external_cas: list[JsonDict] | None = field(default=None, name="ExternalCAs")
    signing_ca_cert: str = field(default="", name="SigningCACert")
    signing_ca_key: str = field(default="", name="SigningCAKey")
    force_rotate: int = 0


class Encryption(msgspec.Struct, kw_only=True, rename="pascal"):
    auto_lock_managers: bool = False


class SwarmSpec(msgspec.Struct, kw_only=True, rename="pascal"):
    name: str = ""
    labels: dict[str, str] | None = None
    orchestration: Orchestration | None = None
    raft: Raft | None = None
    dispatcher: Dispatcher | None = None
    ca_config: CAConfig | None = field(default=None, name="CAConfig")
    task_defaults: JsonDict | None = None
    encryption_config: Encryption | None = None


class InitRequest(msgspec.Struct, kw_only=True, rename="pascal"):
    """POST /swarm/init."""

    listen_addr: str = ""
    advertise_addr: str = ""
    data_path_addr: str = ""
    data_path_port: int = 0
    default_addr_pool: list[str] | None = None
    subnet_size: int = 0
    force_new_cluster: bool = False
    spec: SwarmSpec | None = None
    auto_lock_managers: bool = False
    availability: str = ""


class JoinRequest(msgspec.Struct, kw_only=True, rename="pascal"):
    """POST /swarm/join."""

    listen_addr: str = ""
    advertise_addr: str = ""
    data_path_addr: str = ""
    remote_addrs: list[str] | None = None
    join_token: str = ""
    availability: str = ""


class UnlockRequest(msgspec.Struct, kw_only=True, rename="pascal"):
    """POST /swarm/unlock."""

    unlock_key: str = ""


class NodeSpec(msgspec.Struct, kw_only=True, rename="pascal"):
    """POST /nodes/{id}/update."""

    name: str = ""
    labels: dict[str, str] | None = None
    role: str = ""
    availability: str = ""
