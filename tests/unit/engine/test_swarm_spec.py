"""What a cluster may be asked to be, and what it is when nothing is said."""

import msgspec
import pytest

from netengine.engine.swarm import specs
from netengine.engine.swarm.requests import CAConfig, Encryption, NodeSpec, SwarmSpec
from netengine.errors import Invalid, Unsupported


def test_the_defaults_are_dockers() -> None:
    assert specs.settled(None) == {
        "Name": "default",
        "Labels": {},
        "Orchestration": {"TaskHistoryRetentionLimit": 5},
        "Raft": {
            "SnapshotInterval": 10000,
            "KeepOldSnapshots": 0,
            "LogEntriesForSlowFollowers": 500,
            "ElectionTick": 10,
            "HeartbeatTick": 1,
        },
        "Dispatcher": {"HeartbeatPeriod": 5_000_000_000},
        "CAConfig": {"NodeCertExpiry": 7_776_000_000_000_000},
        "TaskDefaults": {},
        "EncryptionConfig": {"AutoLockManagers": False},
    }
    assert specs.certificate_seconds(specs.settled(None)) == 90 * 24 * 3600


def test_what_was_settled_is_settled_again_to_the_same() -> None:
    """A client reads the specification, changes a field and writes the whole back."""
    asked = SwarmSpec(labels={"a": "b"}, ca_config=CAConfig(node_cert_expiry=3600 * specs.SECOND, force_rotate=3))
    once = specs.settled(asked)
    assert specs.settled(msgspec.convert(once, SwarmSpec)) == once


def test_a_key_that_was_brought_is_not_kept_where_it_is_shown() -> None:
    asked = SwarmSpec(ca_config=CAConfig(signing_ca_cert="CERT", signing_ca_key="KEY", force_rotate=1))
    assert "KEY" not in str(specs.settled(asked)) and "CERT" not in str(specs.settled(asked))


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (SwarmSpec(name="prod"), "name of a swarm cannot be changed"),
        (SwarmSpec(ca_config=CAConfig(node_cert_expiry=1)), "minimum certificate expiry time is: 1h0m0s"),
        (SwarmSpec(ca_config=CAConfig(node_cert_expiry=2**62)), "cannot outlive the root"),
        (SwarmSpec(ca_config=CAConfig(force_rotate=-1)), "ForceRotate"),
        (SwarmSpec(labels={"": "x"}), "its key is empty"),
        (SwarmSpec(labels={str(n): "" for n in range(1000)}), "1000 labels"),
    ],
)
def test_what_cannot_be_is_refused(spec: SwarmSpec, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        specs.settled(spec)


@pytest.mark.parametrize(
    ("spec", "autolock"),
    [
        (None, True),
        (SwarmSpec(encryption_config=Encryption(auto_lock_managers=True)), False),
        (SwarmSpec(ca_config=CAConfig(external_cas=[{"URL": "https://ca"}])), False),
    ],
)
def test_what_there_is_not_is_said(spec: SwarmSpec | None, autolock: bool) -> None:
    with pytest.raises(Unsupported, match="not supported by netengine"):
        specs.settled(spec, autolock)


def test_address_pools() -> None:
    assert specs.address_pools(None, 0) == (["10.0.0.0/8"], 24)
    assert specs.address_pools(["10.20.0.0/16", "10.30.0.0/16"], 26) == (["10.20.0.0/16", "10.30.0.0/16"], 26)


@pytest.mark.parametrize(
    ("pools", "size", "words"),
    [
        (["10.0.0.0/8", "10.1.0.0/16"], 24, "overlaps 10.0.0.0/8"),
        (["10.0.0.0/25"], 24, "smaller than a subnet of /24"),
        (["10.0.0.1/8"], 24, "has host bits set"),
        (["fd00::/64"], 24, "pools are IPv4"),
        (["127.0.0.0/8"], 24, "cannot have addresses"),
        (["no"], 24, "invalid default address pool 'no'"),
        (None, 30, "invalid subnet size 30"),
        (None, -1, "invalid subnet size -1"),
    ],
)
def test_pools_that_cannot_be_are_refused(pools: list[str] | None, size: int, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        specs.address_pools(pools, size)


@pytest.mark.parametrize(("asked", "port"), [(0, 4789), (1024, 1024), (49151, 49151)])
def test_data_path_ports(asked: int, port: int) -> None:
    assert specs.data_path_port(asked) == port


@pytest.mark.parametrize("asked", [1, 1023, 49152, -1, 70000])
def test_ports_out_of_range_are_refused(asked: int) -> None:
    with pytest.raises(Invalid, match="1024 to 49151"):
        specs.data_path_port(asked)


def test_a_node_is_a_manager_or_a_worker() -> None:
    spec = specs.node_spec(NodeSpec(role="Manager", availability="Drain", labels={"zone": "a"}))
    assert (spec.role, spec.availability, spec.labels) == ("manager", "drain", {"zone": "a"})
    for wrong, words in (
        (NodeSpec(role="boss", availability="active"), "invalid Role"),
        (NodeSpec(role="worker", availability=""), "invalid Availability"),
        (NodeSpec(role="worker", availability="away"), "invalid availability"),
        (NodeSpec(role="worker", availability="active", name="x"), "called like its host"),
    ):
        with pytest.raises(Invalid, match=words):
            specs.node_spec(wrong)
