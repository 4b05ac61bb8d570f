"""What a cluster may be asked to be: defaults and checks of specifications, of address pools and of ports. Pure.

Of Docker's settings those of orchestration and of SwarmKit's Raft have no effect here: they are kept and shown, so that a
client that reads, changes one field and writes the whole back is understood.
"""

from __future__ import annotations

from ipaddress import IPv4Network, ip_network

import msgspec

from netengine.cluster.records import DATA_PATH_PORT, MANAGER, WORKER
from netengine.engine.swarm.requests import (
    CAConfig,
    Dispatcher,
    Encryption,
    JsonDict,
    NodeSpec,
    Orchestration,
    Raft,
    SwarmSpec,
)
from netengine.errors import Invalid, Unsupported

NAME = "default"
"""Of the one cluster that a host can be in; Docker allows no other."""

AVAILABILITIES = ("active", "pause", "drain")
SECOND = 1_000_000_000  # nanoseconds
HEARTBEAT = 5 * SECOND
CERTIFICATE_LIFE = 90 * 24 * 3600 * SECOND
_SHORTEST_LIFE = 3600 * SECOND
_LONGEST_LIFE = 20 * 365 * 24 * 3600 * SECOND  # the root's own life
_LARGEST_SUBNET, _SMALLEST_SUBNET = 8, 29
POOL, SUBNET_SIZE = "10.0.0.0/8", 24
_LABELS, _LABEL_LENGTH = 256, 4096


def settled(asked: SwarmSpec | None, autolock: bool = False) -> JsonDict:
    """The specification with what was left out filled in. Raises Invalid, and Unsupported."""
    spec = asked or SwarmSpec()
    if spec.name not in ("", NAME):
        raise Invalid(f"invalid swarm name {spec.name[:60]!r}: the name of a swarm cannot be changed, it is {NAME!r}")
    ca = spec.ca_config or CAConfig()
    _check_authority(ca)
    if autolock or (spec.encryption_config is not None and spec.encryption_config.auto_lock_managers):
        raise Unsupported(
            "autolock is not supported by netengine: managers' keys are files that only root can read; leave --autolock out"
        )
    orchestration = spec.orchestration or Orchestration()
    if orchestration.task_history_retention_limit is None:
        orchestration.task_history_retention_limit = 5
    raft = spec.raft or Raft()
    dispatcher = spec.dispatcher or Dispatcher()
    if dispatcher.heartbeat_period < 0:
        raise Invalid("heartbeat time period cannot be a negative duration")
    full = SwarmSpec(
        name=NAME,
        labels=checked_labels(spec.labels),
        orchestration=orchestration,
        raft=Raft(
            snapshot_interval=raft.snapshot_interval or 10000,
            keep_old_snapshots=raft.keep_old_snapshots or 0,
            log_entries_for_slow_followers=raft.log_entries_for_slow_followers or 500,
            election_tick=raft.election_tick or 10,
            heartbeat_tick=raft.heartbeat_tick or 1,
        ),
        dispatcher=Dispatcher(heartbeat_period=dispatcher.heartbeat_period or HEARTBEAT),
        # The key that was brought goes to where only managers read, never into what is shown.
        ca_config=CAConfig(node_cert_expiry=ca.node_cert_expiry or CERTIFICATE_LIFE, force_rotate=ca.force_rotate),
        task_defaults=spec.task_defaults or {},
        encryption_config=Encryption(),
    )
    out: JsonDict = msgspec.to_builtins(full)
    return out


def _check_authority(ca: CAConfig) -> None:
    if ca.node_cert_expiry and ca.node_cert_expiry < _SHORTEST_LIFE:
        raise Invalid("minimum certificate expiry time is: 1h0m0s")
    if ca.node_cert_expiry > _LONGEST_LIFE:
        raise Invalid("a node's certificate cannot outlive the root: at most 20 years (175200h)")
    if ca.external_cas:
        raise Unsupported(
            "an external CA is not supported by netengine: give its root with --ca-cert and --ca-key, or leave it out"
        )
    if ca.force_rotate < 0:
        raise Invalid(f"invalid CAConfig.ForceRotate {ca.force_rotate}: it is a counter")


def certificate_seconds(spec: JsonDict) -> float:
    """How long certificates of nodes are valid."""
    return float(spec.get("CAConfig", {}).get("NodeCertExpiry") or CERTIFICATE_LIFE) / SECOND


def checked_labels(labels: dict[str, str] | None) -> dict[str, str]:
    """Raises Invalid."""
    found = labels or {}
    if len(found) > _LABELS:
        raise Invalid(f"{len(found)} labels are given; at most {_LABELS} are kept")
    for key, value in found.items():
        if not key.strip():
            raise Invalid("invalid label: its key is empty")
        if len(key) + len(value) > _LABEL_LENGTH:
            raise Invalid(f"invalid label {key[:40]!r}: it has more than {_LABEL_LENGTH} characters")
    return dict(found)


def availability(asked: str) -> str:
    """active, pause or drain; active where nothing is said. Raises Invalid."""
    wanted = asked.lower() or AVAILABILITIES[0]
    if wanted not in AVAILABILITIES:
        raise Invalid(f'invalid availability "{asked[:60]}": it must be active, pause or drain')
    return wanted


def node_spec(asked: NodeSpec) -> NodeSpec:
    """Checked. Raises Invalid."""
    role = asked.role.lower()
    if role not in (MANAGER, WORKER):
        raise Invalid(f'invalid Role: "{asked.role[:60]}": it must be manager or worker')
    if not asked.availability:
        raise Invalid('invalid Availability: "": it must be active, pause or drain')
    if asked.name:
        raise Invalid(f"invalid Name {asked.name[:60]!r}: a node is called like its host")
    return NodeSpec(labels=checked_labels(asked.labels), role=role, availability=availability(asked.availability))


def data_path_port(asked: int) -> int:
    """Raises Invalid."""
    if asked == 0:
        return DATA_PATH_PORT
    if not 1024 <= asked <= 49151:
        raise Invalid(f"invalid data path port {asked}: it must be in the range 1024 to 49151")
    return asked


def address_pools(asked: list[str] | None, subnet_size: int) -> tuple[list[str], int]:
    """Where subnets of overlay networks come from, and the length of their prefixes. Raises Invalid."""
    size = subnet_size or SUBNET_SIZE
    if not _LARGEST_SUBNET <= size <= _SMALLEST_SUBNET:
        raise Invalid(
            f"invalid subnet size {size}: a prefix length from {_LARGEST_SUBNET} to {_SMALLEST_SUBNET} is needed"
        )
    pools: list[IPv4Network] = []
    for text in asked or [POOL]:
        try:
            pool = ip_network(text)
        except ValueError as e:
            raise Invalid(f"invalid default address pool {text[:60]!r}: {e}") from None
        if not isinstance(pool, IPv4Network):
            raise Invalid(f"invalid default address pool {text}: pools are IPv4; give IPv6 subnets with the network")
        if pool.is_loopback or pool.is_multicast or pool.is_link_local or pool.network_address.packed[0] == 0:
            raise Invalid(f"invalid default address pool {text}: hosts cannot have addresses of it")
        if pool.prefixlen > size:
            raise Invalid(f"invalid default address pool {text}: it is smaller than a subnet of /{size}")
        for other in pools:
            if pool.overlaps(other):
                raise Invalid(f"invalid default address pool {text}: it overlaps {other}")
        pools.append(pool)
    return [str(pool) for pool in pools], size
