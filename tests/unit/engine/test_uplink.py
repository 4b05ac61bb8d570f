"""What the kernel says that may concern the link below the overlay networks."""

from __future__ import annotations

import pytest

from netengine.drivers.underlay import Underlay
from netengine.engine import sandbox
from netengine.engine.overlay import uplink
from netengine.engine.state import State
from netengine.kernel import events
from netengine.kernel.resources import Address
from netengine.model import OverlaySettings
from tests.unit.engine.model import container, network, plug, running

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


def test_a_network_that_loses_its_ipv6_is_named_with_the_remedy(caplog: pytest.LogCaptureFixture) -> None:
    made = state()
    shared = network("shared", driver="overlay", enable_ipv6=True)
    shared.overlay = OverlaySettings(link="br-shared", vxlan="vx-shared", mac="02:00:00:00:00:01", vni=4097)
    web = running(container("web"))
    plug(web, shared, gateway="").address6 = "fd00:9::2/64"
    made.networks[shared.id], made.containers[web.id] = shared, web

    def become(mtu: int) -> set[str]:
        """What web has of IPv6 when the link below has that MTU."""
        before = uplink._without_ipv6(made)
        made.fabric.underlay = Underlay(HERE, mtu)
        caplog.clear()
        uplink.tell(made, before)
        return {r.interface for r in sandbox.render(made, web) if isinstance(r, Address) and ":" in r.interface}

    assert become(1400) == {"fd00:9::2/64"} and not caplog.text
    assert become(1329) == set()
    assert (
        "network shared has IPv6, which needs 1280 bytes, and the link that has 192.0.2.1 leaves 1279 of its 1329; its "
        "containers on this host go on by IPv4 alone: give that link an MTU of 1330 or more"
    ) in caplog.text
    assert become(1300) == set() and not caplog.text, "it is said once"
    assert become(1330) == {"fd00:9::2/64"} and "network shared has IPv6 on this host again" in caplog.text


def test_a_host_in_no_cluster_has_none() -> None:
    assert not uplink.suspect(State(), [link(3, 1400), events.Overrun()])
