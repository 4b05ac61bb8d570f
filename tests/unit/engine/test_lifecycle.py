"""The life of a container, as far as it needs neither a process nor a kernel."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from netengine.engine.lifecycle import Lifecycle
from netengine.model import Container, ContainerConfig, HostConfig
from netengine.runtime import ExitStatus


class Slow(Lifecycle):
    """Takes a sandbox down when it is let."""

    def __init__(self, core: Any) -> None:
        super().__init__(core, files=None, names=None, leases=None, overlay=None)  # type: ignore[arg-type]
        self.begun, self.let = asyncio.Event(), asyncio.Event()

    async def _close_sandbox(self, container: Container) -> None:
        self.begun.set()
        await self.let.wait()
        container.sandbox_id = ""


def test_who_waits_for_the_end_waits_until_address_and_ports_are_free() -> None:
    async def story() -> None:
        container = Container(
            id="1",
            name="job",
            created="",
            image="host",
            image_id="",
            config=ContainerConfig(),
            host_config=HostConfig(),
        )
        container.state.status, container.sandbox_id = "running", "1"
        lifecycle = Slow(SimpleNamespace(events=SimpleNamespace(publish=lambda *_, **__: None)))
        ending = asyncio.create_task(lifecycle.ended(container, ExitStatus(3, datetime.now(UTC))))
        await lifecycle.begun.wait()
        assert not container.running
        waiter = lifecycle.when(container, "not-running")
        assert not waiter.done(), "the process is gone, its sandbox is not"
        lifecycle.let.set()
        assert await waiter == 3
        assert container.sandbox_id == ""
        await ending
        assert lifecycle.when(container, "not-running").done()

    asyncio.run(story())
