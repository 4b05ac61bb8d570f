"""What the cluster's store says, taken in: with a real mirror that is fed by hand, and a kernel that only remembers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from netengine.cluster import keys
from netengine.cluster.mirror import Mirror
from netengine.cluster.records import BlockRecord, EndpointRecord, NetworkRecord, NodeRecord, StatusRecord
from netengine.cluster.session import Place
from netengine.drivers import OverlayDriver
from netengine.drivers.underlay import Underlay
from netengine.engine.overlay import following
from netengine.engine.overlay.following import Following
from netengine.engine.state import State
from netengine.errors import KernelRefused
from netengine.kernel import gratuitous
from netengine.kernel.resources import Fdb, Neighbour, Resource
from netengine.model import Container, ContainerConfig, Endpoint, HostConfig, Network, Subnet

NET = "a" * 64


class Story:
    """A host, n1, with a container on a network, and what it hears of n2."""

    def __init__(self) -> None:
        self.network = Network(id=NET, name="app", driver="overlay", created="", scope="swarm")
        self.network.subnets = [Subnet(subnet="10.0.9.0/24", gateway="10.0.9.1")]
        OverlayDriver().settle(self.network, [], 1500)
        self.state = State()
        self.state.fabric.underlay = Underlay("192.0.2.1", 1500)
        here = Container(
            id="c1", name="here", created="", image="", image_id="", config=ContainerConfig(), host_config=HostConfig()
        )
        here.endpoints[NET] = Endpoint(id="e1", network_id=NET, container_id="c1", sandbox_id="c1")
        self.state.containers["c1"] = here
        self.applied: list[tuple[set[Resource], set[Resource]]] = []
        self.said: list[tuple[str, str]] = []
        self.told: list[dict[str, Any]] = []
        self.refusals = 0
        self.mirror = Mirror(None)  # type: ignore[arg-type]
        core: Any = SimpleNamespace(
            lock=asyncio.Lock(), state=self.state, on_kernel=self.on_kernel, kernel=SimpleNamespace(apply=None)
        )
        session: Any = SimpleNamespace(mirror=self.mirror, place=Place("n1", "manager", "192.0.2.1"))
        names: Any = SimpleNamespace(elsewhere=self.elsewhere)
        self.following = Following(core, names, session, self.networks)
        self.revision = 0

    async def on_kernel(self, function: object, *given: Any) -> None:
        if function is gratuitous.say:
            self.said += [(word.mac, word.address) for word in given[1]]
            return
        want, have = given
        self.applied.append((set(want), set(have)))

    async def elsewhere(self, network: Network, entries: dict[str, Any]) -> None:
        self.told.append({i: r.name if r else None for i, r in entries.items()})

    async def networks(self, ids: set[str]) -> None:
        if self.refusals:
            self.refusals -= 1
            raise KernelRefused("the disk is full")
        self.state.networks.update({NET: self.network} if NET in ids else {})

    async def say(self, **pairs: msgspec.Struct | dict[str, Any] | None) -> None:
        """Changes of keys (by the functions of keys.py, as in ALL), in one batch; None deletes."""
        self.revision += 1
        entries = [
            (ALL[name], None if value is None else msgspec.json.encode(value), self.revision)
            for name, value in pairs.items()
        ]
        await self.mirror._take(entries, self.revision)
        async with asyncio.timeout(30):
            await self.following.caught_up(self.revision)

    def run(self, body: Callable[[Story], Awaitable[None]]) -> None:
        async def whole() -> None:
            self.following.begin()
            try:
                await body(self)
            finally:
                await self.following.end()

        asyncio.run(whole())


ALL = {
    "network": keys.network(NET),
    "node": keys.node("n2"),
    "status": keys.status("n2"),
    "alive": keys.alive("n2"),
    "block": keys.block(NET, "10.0.9.16/28"),
    "web": keys.endpoint("n2", NET, "10.0.9.17"),
    "db": keys.endpoint("n2", NET, "10.0.9.18"),
    "forged": keys.endpoint("n2", NET, "10.0.9.200"),
}


def endpoint(name: str, last: int) -> EndpointRecord:
    mac = f"02:42:0a:00:09:{last:02x}"
    return EndpointRecord(id=f"e-{name}", container_id="c", name=name, mac=mac, address=f"10.0.9.{last}/24")


def everything(story: Story) -> dict[str, Any]:
    return {
        "network": NetworkRecord(network=story.network, vni=4096),
        "node": NodeRecord(id="n2", name="two"),
        "status": StatusRecord(data_path="192.0.2.2"),
        "alive": {},
        "block": BlockRecord(node="n2"),
        "web": endpoint("web", 17),
    }


@pytest.fixture
def story() -> Story:
    return Story()


def link(story: Story) -> str:
    assert story.network.overlay is not None
    return story.network.overlay.vxlan


def test_one_more_endpoint_is_one_entry_and_one_neighbour(story: Story) -> None:
    async def body(story: Story) -> None:
        await story.say(**everything(story))
        assert story.told[-1] == {"e-web": "web"}
        story.applied.clear()
        await story.say(db=endpoint("db", 18))
        mac = "02:42:0a:00:09:12"
        assert story.applied == [
            ({Fdb(link(story), mac, "192.0.2.2"), Neighbour(link(story), "10.0.9.18", mac)}, set())
        ], "and nothing of those that were there"
        assert story.said[-1] == (mac, "10.0.9.18")
        await story.say(db=None)
        assert story.applied[-1] == (set(), story.applied[0][0])
        assert story.told[-1] == {"e-db": None}

    story.run(body)


def test_a_host_that_goes_takes_its_endpoints_along_and_brings_them_back(story: Story) -> None:
    async def body(story: Story) -> None:
        await story.say(**everything(story))
        came = story.applied[-1][0]
        await story.say(alive=None)
        assert story.applied[-1] == (set(), came)
        said = len(story.said)
        assert not story.state.fabric.peers[NET] and not story.state.fabric.named[NET]
        await story.say(alive={})
        assert story.applied[-1] == (came, set())
        assert len(story.said) == said + 1
        assert story.told[-2:] == [{"e-web": None}, {"e-web": "web"}]
        story.applied.clear()
        await story.say(status=StatusRecord(data_path="192.0.2.2", memory=1 << 30))
        assert not story.applied, "what it says of its memory is nothing to the kernel"
        await story.say(status=StatusRecord(data_path="192.0.2.22"))
        assert {r.remote for r in story.applied[-1][0] if isinstance(r, Fdb)} == {"192.0.2.22"}

    story.run(body)


def test_what_is_not_believed_changes_nothing(story: Story, caplog: pytest.LogCaptureFixture) -> None:
    async def body(story: Story) -> None:
        await story.say(**everything(story))
        story.applied.clear()
        await story.say(forged=endpoint("forged", 200))
        assert not story.applied and (("n2", "10.0.9.200") not in story.state.fabric.peers[NET])
        assert "10.0.9.200 is not this node's to give away" in caplog.text

    story.run(body)


def test_a_batch_that_cannot_be_taken_in_is_taken_in_later(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "_AGAIN", 0.01)
    story.refusals = 3

    async def body(story: Story) -> None:
        await story.say(**everything(story))
        assert [p.addresses for p in story.state.fabric.peers[NET].values()] == [("10.0.9.17",)]
        story.refusals = 2
        await story.say(web=None)
        assert not story.state.fabric.peers[NET], "also what has gone"

    story.run(body)
