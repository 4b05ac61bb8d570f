"""What healing suspects, how long it waits before it looks, and when it leaves a thing to whoever takes it away.

No kernel: notices are handed in, and what a look or a mending would do is recorded. That it heals is shown by
tests/faults/test_foreign_hands.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from netengine.drivers import DRIVERS
from netengine.engine import healing, reconcile
from netengine.engine.events import Events
from netengine.engine.healing import Healing
from netengine.engine.reconcile import Difference
from netengine.kernel import events
from netengine.kernel.plan import plan
from netengine.kernel.resources import Bridge, Resource, Sysctl
from tests.unit.engine.model import container, network, plug, running, state

APP = network("app")
WEB = running(container("web"))
PORT = plug(WEB, APP)
FORWARDING = Sysctl("", "net/ipv4/ip_forward", "1")
MAC = "02:00:00:00:00:01"


def core(**fields: Any) -> Any:
    async def on_kernel(function: Any, *arguments: Any) -> Any:
        return function(*arguments)

    kernel = SimpleNamespace(names_removed=2, relays=None, **fields)
    return SimpleNamespace(
        state=state(APP, WEB),
        base=frozenset({FORWARDING}),
        broken={},
        kernel=kernel,
        events=Events(),
        on_kernel=on_kernel,
        lock=asyncio.Lock(),
        background=lambda task: None,
    )


def link(name: str, *, up: bool = True, mtu: int = 1500, mac: str = MAC, port: bool = True) -> events.LinkSeen:
    return events.LinkSeen(name, up, mtu, mac, port)


@pytest.mark.parametrize(
    "notice",
    [
        events.LinkGone("br-app"),
        events.LinkGone("vapp"),
        link("br-app", up=False),
        link("br-app", mtu=1400),
        link("br-app", mac="02:00:00:00:00:09"),
        link("vapp", up=False),
        link("vapp", port=False),
        link("vapp", mtu=1400),
        events.AddressGone("br-app", "10.1.0.1"),
        events.AddressGone("", "10.1.0.1"),
        events.ForwardingOff(),
        events.NamesTouched(3),
        events.RulesTouched("nft"),
        events.RouteGone(),
        events.Overrun(),
    ],
    ids=repr,
)
def test_what_may_be_a_loss_is_suspicious(notice: events.Notice) -> None:
    assert Healing(core())._is_suspicious(notice)


@pytest.mark.parametrize(
    "notice",
    [
        events.LinkGone("eth0"),
        events.LinkGone("vother"),
        link("br-app"),
        link("vapp"),
        link("vapp", mac="02:00:00:00:00:09"),  # the kernel's choice at this end
        link("eth0", up=False, mtu=9000),
        events.AddressGone("br-app", "10.1.0.9"),
        events.AddressGone("eth0", "10.1.0.1"),
        events.NamesTouched(2),  # as often as we have removed rules ourselves
        events.RelayGone(),  # no port needs it
        events.ForwardingOff(ipv6=True),  # turned on by nobody here
    ],
    ids=repr,
)
def test_our_own_doing_and_that_of_others_is_not(notice: events.Notice) -> None:
    assert not Healing(core())._is_suspicious(notice)


def test_namespaces_are_missed_when_the_mounts_change(monkeypatch: pytest.MonkeyPatch) -> None:
    lost: list[str] = []
    monkeypatch.setattr(reconcile, "lost_namespaces", lambda core: lost)
    watching = Healing(core())
    assert not watching._is_suspicious(events.MountsChanged())
    lost.append("web")
    assert watching._is_suspicious(events.MountsChanged())


def test_an_error_of_its_own_is_not_the_end_of_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        async def look(pending: object) -> None:
            raise KeyError("nothing of that name")

        watching = Mending(core())
        monkeypatch.setattr(watching, "_look_around", look)
        await watching._look()
        assert watching.again == [healing._WITHIN / healing._TIMES]
        assert "cannot see what is wrong in the kernel" in caplog.text and "KeyError" in caplog.text

    asyncio.run(story())


# -- back-off ---------------------------------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    made = Clock()
    monkeypatch.setattr(healing, "time", made)
    yield made


class Mending(Healing):
    """Records when it means to look again."""

    def __init__(self, core: Any) -> None:
        super().__init__(core)
        self.again: list[float] = []

    def _look_again(self, seconds: float) -> None:
        self.again.append(seconds)


@pytest.fixture
def mended(monkeypatch: pytest.MonkeyPatch) -> list[Difference]:
    done: list[Difference] = []

    async def mend(core: Any, found: Difference) -> list[str]:
        done.append(found)
        return []

    monkeypatch.setattr(reconcile, "mend", mend)
    return done


def missing(*resources: Resource) -> Difference:
    want = frozenset(resources)
    return Difference(want, frozenset(), plan(want, ()))


BRIDGE = Bridge("br-app", MAC, 1500, "a")


def test_what_is_taken_away_again_and_again_is_left_for_the_rest_of_a_minute(
    clock: Clock, mended: list[Difference], caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        watching = Mending(core())
        for _ in range(healing._TIMES):
            clock.now += 2
            assert await watching._mend(missing(BRIDGE), "vandal") == (BRIDGE,)
        assert len(mended) == healing._TIMES
        caplog.clear()
        for _ in range(3):
            clock.now += 2
            assert await watching._mend(missing(BRIDGE), "vandal") == ()
        assert len(mended) == healing._TIMES, "it is left"
        assert caplog.text.count("vandal") == 1, "and said once"
        # The first was put right at 1002: it is free again when that is a minute ago.
        assert watching.again == [pytest.approx(1062 - now) for now in (1012, 1014, 1016)]
        clock.now = 1062.1
        assert await watching._mend(missing(BRIDGE), "vandal") == (BRIDGE,)

    asyncio.run(story())


def test_other_things_are_mended_meanwhile(clock: Clock, mended: list[Difference]) -> None:
    async def story() -> None:
        watching = Mending(core())
        for _ in range(healing._TIMES):
            await watching._mend(missing(BRIDGE), "")
        assert await watching._mend(missing(BRIDGE), "") == ()
        assert await watching._mend(missing(FORWARDING), "") == (FORWARDING,)

    asyncio.run(story())


def test_a_mending_is_an_event_of_the_networks_concerned(clock: Clock, mended: list[Difference]) -> None:
    async def story() -> None:
        heart = core()
        heart.state.networks["other"] = network("other", "f" * 64)
        rendered = DRIVERS["bridge"].render_network(APP)
        bridge = next(r for r in rendered if isinstance(r, Bridge))
        await Mending(heart)._mend(missing(bridge), "")
        told = heart.events.last
        assert (told.action, told.id, "br-app" in told.attributes["what"]) == ("heal", APP.id, True)

    asyncio.run(story())


def test_where_nothing_differs_nothing_is_done(clock: Clock, mended: list[Difference]) -> None:
    async def story() -> None:
        watching = Mending(core())
        assert await watching._mend(missing(), "") == ()
        assert not mended and not watching.again

    asyncio.run(story())


def test_what_could_not_be_put_right_is_tried_again_soon_and_then_less_often(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    problems = ["no memory"]

    async def mend(core: Any, found: Difference) -> list[str]:
        return problems

    monkeypatch.setattr(reconcile, "mend", mend)

    async def story() -> None:
        watching = Mending(core())
        for _ in range(3):
            clock.now += 20
            await watching._mend(missing(BRIDGE), "")
        assert watching.again == [1, 2, 4]
        for _ in range(3):
            clock.now += 20
            await watching._mend(missing(BRIDGE), "")
        assert watching.again[-1] == healing._WITHIN / healing._TIMES
        problems.clear()
        clock.now += 60
        await watching._mend(missing(BRIDGE), "")
        problems.append("again")
        await watching._mend(missing(BRIDGE), "")
        assert watching.again[-1] == 1

    asyncio.run(story())
