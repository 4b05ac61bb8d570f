"""Leases are timed by a clock that nobody sets: not by the wall clock, which pyroute2's client goes by."""

from __future__ import annotations

import math
import time
from types import SimpleNamespace
from typing import Any

import pytest

from netengine.kernel import dhcp

LEASE = dhcp.Lease("192.0.2.100/24", seconds=120)
ACK = {"yiaddr": "192.0.2.100", "options": {"lease_time": 120, "renewal_time": 60, "rebinding_time": 90}}


@pytest.fixture(params=[-1e7, 1e7], ids=["set back", "set forward"])
def jumped(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Call it to let the wall clock jump."""
    real = time.time
    shift: list[float] = []
    fake = lambda: real() + sum(shift)  # noqa: E731
    monkeypatch.setattr(time, "time", fake)
    monkeypatch.setattr("pyroute2.dhcp.client.time", fake)
    return lambda: shift.append(request.param)


def test_a_lease_runs_as_long_as_it_was_granted(jumped: Any) -> None:
    lease = dhcp._kept(None)(ack=ACK, interface="eth0", server_mac="02:00:00:00:00:01")
    jumped()
    assert lease.expiration_in == pytest.approx(120, abs=5)
    assert lease.renewal_in == pytest.approx(60, abs=5)
    assert lease.rebinding_in == pytest.approx(90, abs=5)
    assert not lease.expired


def test_a_lease_of_an_earlier_life_goes_on(jumped: Any) -> None:
    got = dhcp._told(dhcp._kept(None)(ack=ACK, interface="eth0", server_mac="02:00:00:00:00:01"))
    assert got.obtained == pytest.approx(dhcp.boot_seconds(), abs=5)
    jumped()
    again = dhcp._kept(got).load("eth0")
    assert again.expiration_in == pytest.approx(120, abs=5)


def test_an_endless_lease_has_no_timers() -> None:
    lease = dhcp._kept(None)(ack=ACK | {"options": {"lease_time": -1}}, interface="eth0", server_mac="")
    assert lease.expiration_in is None and not lease.expired


def test_a_message_can_be_sent_after_the_clock_was_set(jumped: Any) -> None:
    """The seconds that a client has tried are 16 bits without a sign."""
    machine: Any = SimpleNamespace()
    dhcp._Machine.last_state_change.fset(machine, time.time())
    jumped()
    for _ in range(1000):
        assert 0 <= math.floor(time.time() - dhcp._Machine.last_state_change.fget(machine)) <= 5
