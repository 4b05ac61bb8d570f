"""The bus of events: past and present, in order, each once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from netengine.engine import events as module
from netengine.engine.events import KEPT, Event, Events

LONG_AGO = 0


async def take(listener: AsyncIterator[Event], count: int) -> list[str]:
    async with asyncio.timeout(2):
        return [(await anext(listener)).action for _ in range(count)]


def publish(bus: Events, *actions: str) -> None:
    for action in actions:
        bus.publish("network", action, "1")


def test_a_listener_gets_what_comes_after_it() -> None:
    async def story() -> None:
        bus = Events()
        publish(bus, "before")
        listener = bus.listen(None, None)
        first = asyncio.ensure_future(take(listener, 2))
        await asyncio.sleep(0)
        publish(bus, "one", "two")
        assert await first == ["one", "two"]

    asyncio.run(story())


def test_since_a_time_in_the_past_tells_what_was() -> None:
    async def story() -> None:
        bus = Events()
        publish(bus, "one", "two")
        listener = bus.listen(LONG_AGO, None)
        assert await take(listener, 2) == ["one", "two"]
        publish(bus, "three")
        assert await take(listener, 1) == ["three"]

    asyncio.run(story())


def test_nothing_is_lost_or_repeated_between_past_and_present() -> None:
    async def story() -> None:
        bus = Events()
        publish(bus, "one", "two")
        listener = bus.listen(LONG_AGO, None)
        assert await take(listener, 1) == ["one"]
        publish(bus, "three")
        assert await take(listener, 2) == ["two", "three"]

    asyncio.run(story())


def test_the_time_of_the_last_event_plus_one_starts_after_it() -> None:
    async def story() -> None:
        bus = Events()
        publish(bus, "one", "two")
        listener = bus.listen(LONG_AGO, None)
        last = [await anext(listener) for _ in range(2)][-1]
        publish(bus, "three")
        assert await take(bus.listen(last.time_ns + 1, None), 1) == ["three"]

    asyncio.run(story())


def test_times_are_strictly_increasing() -> None:
    async def story() -> None:
        bus = Events()
        publish(bus, *("x" * 100))
        listener = bus.listen(LONG_AGO, None)
        times = [(await anext(listener)).time_ns for _ in range(100)]
        assert times == sorted(set(times))

    asyncio.run(story())


def test_until_a_time_that_has_passed_ends_at_once() -> None:
    async def story() -> None:
        bus = Events()
        publish(bus, "one")
        until = time.time_ns()
        publish(bus, "two")
        assert [e.action async for e in bus.listen(LONG_AGO, until)] == ["one"]

    asyncio.run(story())


def test_the_last_thousand_are_kept() -> None:
    async def story() -> None:
        bus = Events()
        publish(bus, *(str(n) for n in range(KEPT + 1)))
        past = [e.action async for e in bus.listen(LONG_AGO, time.time_ns() + 1_000)]
        assert (past[0], past[-1], len(past)) == ("1", str(KEPT), KEPT)

    asyncio.run(story())


def test_a_listener_that_never_reads_is_dropped_and_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_QUEUE_LIMIT", 2)

    async def story() -> None:
        bus = Events()
        publish(bus, "past")
        lazy = bus.listen(LONG_AGO, None)
        assert await take(lazy, 1) == ["past"]
        publish(bus, *"abcd")
        assert [e.action async for e in lazy] == ["a", "b"]

    asyncio.run(story())


def test_closing_ends_all_listeners() -> None:
    async def story() -> None:
        bus = Events()
        publish(bus, "one")
        listener = bus.listen(LONG_AGO, None)
        assert await take(listener, 1) == ["one"]
        bus.close()
        assert [e async for e in listener] == []

    asyncio.run(story())


def test_a_listener_that_leaves_is_forgotten() -> None:
    async def story() -> None:
        bus = Events()
        publish(bus, "one")
        listener = bus.listen(LONG_AGO, None)
        await take(listener, 1)
        await listener.aclose()  # type: ignore[attr-defined]
        assert not bus._queues

    asyncio.run(story())


# ---------------------------------------------------------------------- on the wire

EVENT = Event("container", "start", "1", {"image": "host", "name": "web"}, 1_700_000_000_123_456_789)


def test_the_message_of_the_api() -> None:
    assert EVENT.as_wire(legacy=False) == {
        "Type": "container",
        "Action": "start",
        "Actor": {"ID": "1", "Attributes": {"image": "host", "name": "web"}},
        "scope": "local",
        "time": 1_700_000_000,
        "timeNano": 1_700_000_000_123_456_789,
    }


def test_older_clients_get_a_container_s_fields_at_the_top_too() -> None:
    wire = EVENT.as_wire(legacy=True)
    assert (wire["status"], wire["id"], wire["from"]) == ("start", "1", "host")
    assert "status" not in Event("network", "create", "1", {}, 0).as_wire(legacy=True)
