"""What is gathered of the kernel's events, and when somebody is asked to look.

No kernel: the sockets are pipes, and what they say is handed in.
"""

from __future__ import annotations

import asyncio
import os
from types import SimpleNamespace
from typing import Any

import pytest

from netengine.engine import hearing
from netengine.engine.hearing import Hearing
from netengine.kernel import events, insides

MAC = "02:00:00:00:00:01"


def link(name: str, *, up: bool = True) -> events.LinkSeen:
    return events.LinkSeen(name, up, 1500, MAC, port=True)


class Looking(Hearing):
    """Records what each look was for, and when."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        super().__init__(SimpleNamespace(lock=self.lock), self._record)  # type: ignore[arg-type]
        self.looks: list[tuple[float, list[events.Notice], list[insides.Change]]] = []

    def _record(self) -> None:
        self.looks.append((asyncio.get_running_loop().time(), *self.take()))

    async def looked(self) -> None:
        before = len(self.looks)
        while len(self.looks) == before:
            await asyncio.sleep(0.005)


class Pipes:
    """Stands for the event sockets: what is written to it has happened."""

    mounts = -1

    def __init__(self) -> None:
        self._out, self._in = os.pipe()
        os.set_blocking(self._out, False)
        self.reads = 0
        self._said: list[events.Notice] = []

    def say(self, *notices: events.Notice) -> None:
        self._said += notices
        os.write(self._in, b"x")

    def descriptors(self) -> tuple[int, ...]:
        return (self._out,)

    def read(self, descriptor: int) -> list[events.Notice]:
        self.reads += 1
        try:
            os.read(descriptor, 99)
        except BlockingIOError:
            pass
        said, self._said = self._said, []
        return said

    def close(self) -> None:
        os.close(self._out)
        os.close(self._in)


def run(story: Any) -> None:
    asyncio.run(asyncio.wait_for(story(), 20))


def test_of_each_link_the_last_word_counts() -> None:
    async def story() -> None:
        heard = Looking()
        heard.consider([link("vapp", up=False), link("br-app"), link("vapp")])
        await heard.looked()
        ((_, notices, _),) = heard.looks
        assert notices == [link("vapp"), link("br-app")]

    run(story)


def test_it_looks_while_events_never_end() -> None:
    """They may never be quiet: it waits so long and no longer."""

    async def story() -> None:
        heard = Looking()
        loop = asyncio.get_running_loop()
        clock = began = loop.time()
        loop.time = lambda: clock  # type: ignore[method-assign]
        while not heard.looks and clock < began + 10:
            heard.consider([link("vapp")])
            clock += hearing.QUIET / 4
            await asyncio.sleep(0)
        assert heard.looks[0][0] - began >= hearing.PATIENCE - 0.01

    run(story)


@pytest.fixture
def pipes() -> Any:
    made = Pipes()
    yield made
    made.close()


def test_of_an_operation_under_way_nothing_is_read_and_of_its_end_all(pipes: Pipes) -> None:
    async def story() -> None:
        heard = Looking()
        loop = asyncio.get_running_loop()
        heard._watch = pipes  # type: ignore[assignment]
        loop.add_reader(pipes.descriptors()[0], heard._heard, pipes.descriptors()[0])
        heard._look = lambda: loop.create_task(look())  # type: ignore[assignment]

        async def look() -> None:
            async with heard.lock:
                heard._record()

        async with heard.lock:
            pipes.say(link("vapp", up=False))
            while not heard._unread:
                await asyncio.sleep(0.001)
            while heard._timer is not None:
                await asyncio.sleep(0.001)
            assert not pipes.reads, "half of a story"
            pipes.say(link("vapp"))
        await heard.looked()
        assert heard.looks[0][1] == [link("vapp")]
        pipes.say(link("vapp", up=False))
        await heard.looked()
        assert heard.looks[1][1] == [link("vapp", up=False)], "it listens on"
        loop.remove_reader(pipes.descriptors()[0])

    run(story)
