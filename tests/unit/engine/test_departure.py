"""A host leaves its cluster, while the cluster's store does not answer and containers come: what the model and the database are
left with. No kernel and no cluster; that it is so with both is shown by tests/clients/test_overlay.py."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from netengine.cluster.records import EndpointRecord
from netengine.config import Config
from netengine.drivers.underlay import Underlay
from netengine.engine import loading, reconcile
from netengine.engine.engine import Engine
from netengine.engine.overlay.fabric import Claim
from netengine.engine.requests import ConnectRequest
from netengine.errors import KernelRefused, NetengineError
from netengine.kernel.resources import Bridge, Resource, Veth
from netengine.model import Container, Network, OverlaySettings, Subnet
from netengine.store import Store
from tests.unit.engine.model import container, network, plug, running


class Kernel:
    """Does nothing, and refuses when it is told to."""

    def __init__(self) -> None:
        self.graves: list[object] = []
        self.unfinished = False
        self.refuses = False
        self.steps: list[tuple[frozenset[Resource], frozenset[Resource]]] = []

    def is_brief(self, want: object, have: object) -> bool:
        return True

    def apply(self, want: Iterable[Resource], have: Iterable[Resource]) -> None:
        if self.refuses:
            raise KernelRefused("no memory")
        self.steps.append((frozenset(want), frozenset(have)))

    def take_name_sockets(self, ns: str) -> list[object]:
        return []

    def release(self, ports: object) -> None:
        pass


class Claims:
    """The store answers when it is let."""

    def __init__(self) -> None:
        self.answers = asyncio.Event()
        self.asked: list[str] = []

    async def take(self, container: Container, network: Network, wish: object) -> Claim:
        self.asked.append("address")
        await self.answers.wait()
        record = EndpointRecord(id="e" * 64, container_id=container.id, name=container.name, mac="02:42:0a:00:09:05")
        record.address = "10.0.9.5/24"
        return Claim(network.id, record)

    def kept(self, claims: object) -> None:
        pass

    async def give_up(self, claims: Iterable[Claim]) -> None:
        pass

    async def settle(self) -> None:
        pass

    async def give_all_back(self, networks: object) -> None:
        self.asked.append("all back")
        await self.answers.wait()

    def close(self) -> None:
        pass


class Host:
    """With a bridge network, an overlay network, and a running container on both."""

    def __init__(self, directory: Path) -> None:
        config = Config(data_root=directory / "data", exec_root=directory / "run")
        self.engine = Engine(config)
        self.core = self.engine._core
        self.kernel, self.claims = Kernel(), Claims()
        made: Any = self.kernel
        self.core.kernel = made
        self.core.put_back = None
        self.app = network("app")
        self.shared = network("shared", driver="overlay", attachable=True, internal=True)
        self.shared.overlay = OverlaySettings(link="br-shared", vxlan="vx-shared", mac="02:00:00:00:00:01", vni=4097)
        self.shared.subnets = [Subnet(subnet="10.0.9.0/24", gateway="10.0.9.1")]
        self.web, self.late = running(container("web")), running(container("late"))
        plug(self.web, self.app)
        endpoint = plug(self.web, self.shared, link="eth1", gateway="")
        endpoint.address = "10.0.9.4/24"
        state = self.core.state
        state.networks = {n.id: n for n in (self.app, self.shared)}
        state.containers = {c.id: c for c in (self.web, self.late)}
        state.fabric.underlay = Underlay("192.0.2.1", 1500)
        for each in state.networks.values():
            self.core.addresses.add(each)
        with self.core.store.transaction() as t:
            for one in (self.app, self.shared):
                t.put("network", one.id, one)
            for box in (self.web, self.late):
                t.put("container", box.id, box)
        overlay: Any = self.engine.overlay
        overlay._claims = self.claims

    def check(self) -> None:
        """Model and database know nothing of the overlay network, and the rest is as it was."""
        state = self.core.state
        stored = {c.name: c for c in self.core.store.load("container", Container)}
        for box in (self.web, self.late, *stored.values()):
            assert self.shared.id not in box.endpoints and self.shared.id not in box.attachments, box.name
        assert list(state.networks) == [self.app.id] == list(self.core.store.ids("network"))
        assert list(self.web.endpoints) == [self.app.id] == list(stored["web"].endpoints)
        assert not self.core.store.intents()
        assert any(isinstance(r, Veth) for r in reconcile.wanted(self.core)), "web is on its other network still"
        assert not self.core.broken


def story(tmp_path: Path, tell: Callable[[Host], Awaitable[None]]) -> None:
    async def told() -> None:
        await tell(Host(tmp_path))

    asyncio.run(asyncio.wait_for(told(), 20))


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0)


def test_a_container_that_comes_while_the_store_does_not_answer_comes_to_nothing(tmp_path: Path) -> None:
    async def tell(host: Host) -> None:
        request = ConnectRequest(container="late")
        coming = asyncio.create_task(host.engine.networks.connect("shared", request))
        await until(lambda: "address" in host.claims.asked)
        leaving = asyncio.create_task(host.engine.overlay.end())
        await until(lambda: "all back" in host.claims.asked)
        host.claims.answers.set()
        with pytest.raises(NetengineError, match="network shared not found"):
            await coming
        await leaving
        host.check()
        with pytest.raises(NetengineError, match="network shared not found"):
            await host.engine.networks.connect("shared", request)

    story(tmp_path, tell)


def test_nobody_is_let_to_a_network_that_is_going(tmp_path: Path) -> None:
    async def tell(host: Host) -> None:
        leaving = asyncio.create_task(host.engine.overlay.end())
        await until(lambda: "all back" in host.claims.asked)
        with pytest.raises(NetengineError, match="belongs to no swarm any more"):
            await host.engine.overlay.claim(host.late, [(host.shared, None)])  # type: ignore[list-item]
        host.claims.answers.set()
        await leaving
        host.check()

    story(tmp_path, tell)


def test_what_the_kernel_refuses_to_remove_is_in_the_model_no_more(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def tell(host: Host) -> None:
        looks: list[bool] = []
        host.core.look_around = lambda: looks.append(True)
        host.kernel.refuses = True
        host.claims.answers.set()
        await host.engine.overlay.end()
        host.check()
        assert looks and "could not be removed in one go, and will be: no memory" in caplog.text

    story(tmp_path, tell)


def test_what_leaves_the_kernel_is_the_overlay_network_alone(tmp_path: Path) -> None:
    async def tell(host: Host) -> None:
        host.claims.answers.set()
        await host.engine.overlay.end()
        ((want, had),) = host.kernel.steps
        assert {r.name for r in had - want if isinstance(r, Bridge)} == {"br-shared"}
        assert not want - had

    story(tmp_path, tell)


def test_when_the_database_refuses_all_is_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def tell(host: Host) -> None:
        def full() -> None:
            raise KernelRefused("the disk is full")

        with monkeypatch.context() as patched:
            patched.setattr(host.core.store, "transaction", full)
            with pytest.raises(KernelRefused, match="the disk is full"):
                await host.engine.overlay.end()
        assert set(host.web.endpoints) == {host.app.id, host.shared.id} == set(host.core.state.networks)
        assert host.core.addresses.owner(host.shared.id, "10.0.9.4") == host.web.endpoints[host.shared.id].id
        host.claims.answers.set()
        await host.engine.overlay.end()  # and may be tried again
        host.check()

    story(tmp_path, tell)


# -- what an older version left ---------------------------------------------------------------------------------------


def test_a_database_with_an_endpoint_and_without_its_network_is_mended_at_the_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As a host's that left while a container came, before both went together."""

    async def tell(host: Host) -> None:
        gateway = network("docker_gwbridge", "9" * 64)
        host.core.state.networks[gateway.id] = gateway
        plug(host.late, host.shared).address = "10.0.9.5/24"
        plug(host.late, gateway, link="eth1")
        del host.late.attachments[host.shared.id], host.late.attachments[gateway.id]  # the endpoints stayed
        with host.core.store.transaction() as t:
            t.put("network", gateway.id, gateway)
            t.delete("network", host.shared.id)
            t.put("container", host.late.id, host.late)
            t.lease(host.shared.id, "10.0.9.5", host.late.endpoints[host.shared.id].id)
        host.core.state.networks.clear()
        host.core.state.containers.clear()
        with caplog.at_level(logging.WARNING):
            loading.load(host.core)
        late = host.core.state.containers[host.late.id]
        assert not late.endpoints and not late.attachments
        lost = f"forgets network {host.shared.id[:12]}, which is not in the store and gives up 10.0.9.5 there"
        assert f"container late {lost}" in caplog.text and "container late leaves docker_gwbridge" in caplog.text
        assert reconcile.wanted(host.core) and not host.core.broken
        assert not [lease for lease in host.core.store.leases() if lease[0] == host.shared.id]
        host.core.store.close()
        again = Store(tmp_path / "data/state.db")
        assert not {n for c in again.load("container", Container) for n in c.endpoints} - {host.app.id}

    story(tmp_path, tell)
