"""When an endpoint is announced again, on an event loop whose clock the test reads."""

from __future__ import annotations

import asyncio
from typing import Any

from netengine.engine.announcements import Announcements
from netengine.model import Endpoint
from tests.unit.engine.model import container


def endpoint(identity: str, **fields: Any) -> Endpoint:
    given = {"link": "eth0", "mac": "02:00:00:00:00:01"} | fields
    return Endpoint(id=identity, network_id="n", container_id="c", sandbox_id=f"s-{identity}", **given)


def run(scenario: Any) -> list[tuple[str, str, str]]:
    """Every announcement that a scenario led to, in order."""
    sent: list[tuple[str, str, str]] = []

    async def play() -> None:
        announcements = Announcements(sent.extend)
        await scenario(announcements, sent)
        announcements.close()

    asyncio.run(asyncio.wait_for(play(), 10))
    return sent


async def until(condition: Any) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def test_an_endpoint_is_announced_as_often_as_asked() -> None:
    web = container("web")
    web.endpoints["n"] = endpoint("a")

    async def scenario(announcements: Announcements, sent: list[Any]) -> None:
        before = asyncio.get_running_loop().time()
        announcements.schedule(web, web.endpoints["n"], 2, 0.05)
        await until(lambda: len(sent) == 2)
        assert asyncio.get_running_loop().time() - before >= 0.08
        announcements.schedule(web, web.endpoints["n"], 0, 0.0)

    assert run(scenario) == [("s-a", "eth0", "02:00:00:00:00:01")] * 2


def test_an_endpoint_that_has_left_is_not_announced() -> None:
    web, db = container("web"), container("db")
    web.endpoints["n"], db.endpoints["n"] = endpoint("a"), endpoint("b")

    async def scenario(announcements: Announcements, sent: list[Any]) -> None:
        announcements.schedule(web, web.endpoints["n"], 2, 0.01)
        announcements.schedule(db, db.endpoints["n"], 2, 0.02)
        web.endpoints["n"] = endpoint("c")  # gone and come back: another link, perhaps of the same name
        await until(lambda: len(sent) == 2)

    assert {ns for ns, _, _ in run(scenario)} == {"s-b"}


def test_an_endpoint_without_a_link_has_nothing_to_announce() -> None:
    none = container("none")
    none.endpoints["n"] = endpoint("a", link="")

    async def scenario(announcements: Announcements, sent: list[Any]) -> None:
        announcements.schedule(none, none.endpoints["n"], 2, 0.0)
        await asyncio.sleep(0)

    assert run(scenario) == []
