"""What the kernel says that may concern the link below the overlay networks."""

from __future__ import annotations

import pytest

from netengine.drivers.underlay import Underlay
from netengine.engine.overlay import uplink
from netengine.engine.state import State
from netengine.kernel import events

HERE = "192.0.2.1"


def state(*, index: int = 3) -> State:
    made = State()
    made.fabric.underlay, made.fabric.uplink = Underlay(HERE, 1500), index
    return made


def link(index: int, mtu: int) -> events.LinkSeen:
    return events.LinkSeen("eth0", True, mtu, "", False, index)


@pytest.mark.parametrize(
    "notice",
    [link(3, 1400), events.AddressGone("eth0", HERE), events.AddressSeen(HERE), events.Overrun()],
)
def test_what_is_looked_into(notice: events.Notice) -> None:
    assert uplink.suspect(state(), [events.LinkGone("x"), notice])


@pytest.mark.parametrize(
    "notice",
    [link(3, 1500), link(4, 1400), events.AddressGone("eth0", "192.0.2.2"), events.AddressSeen("192.0.2.2")],
)
def test_what_is_not(notice: events.Notice) -> None:
    assert not uplink.suspect(state(), [notice])


def test_a_host_in_no_cluster_has_none() -> None:
    assert not uplink.suspect(State(), [link(3, 1400), events.Overrun()])
