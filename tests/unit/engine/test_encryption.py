"""WireGuard in the model of a host: what is there because of whom, who is told, and what a new key does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from netengine.cluster.records import StatusRecord
from netengine.drivers import OverlayDriver
from netengine.drivers.underlay import Underlay
from netengine.drivers.wireguard import TunnelPeer
from netengine.engine.overlay import fabric
from netengine.engine.overlay.encryption import Encryption, host_of
from netengine.errors import Invalid, KernelRefused
from netengine.kernel.plan import plan
from netengine.kernel.resources import Resource, WireGuard, WireGuardPeer
from netengine.kernel.wgkeys import public_of, read
from netengine.model import Network, Subnet
from tests.unit.engine.model import container, network, plug, running, state

CLUSTER, HERE, THERE = "c1u57e2", "here", "there"
KEYS = {THERE: public_of(bytes(32)), "third": public_of(bytes(range(32)))}


def overlay(name: str, **options: str) -> Network:
    made = network(name, driver="overlay", options=options)
    OverlayDriver().settle(made, [], 1500)
    assert made.overlay is not None
    made.overlay.vni = 4096
    made.subnets = [Subnet(subnet="10.1.0.0/24")]
    return made


class Session:
    """As `cluster.session`, of a host among two others; what it was told to say is kept."""

    def __init__(self) -> None:
        self.status = StatusRecord(data_path="192.0.2.1")
        self.said: list[StatusRecord] = []
        self.place = SimpleNamespace(node_id=HERE)
        self.mirror = SimpleNamespace(cluster=SimpleNamespace(record=SimpleNamespace(id=CLUSTER)))

    def check(self) -> None:
        pass

    async def describe(self, status: StatusRecord) -> None:
        self.said.append(status)


class Core:
    """With a kernel that has what it was told to have, and refuses when it is told to."""

    def __init__(self, directory: Path, *things: Any) -> None:
        self.config = SimpleNamespace(data_root=directory)
        self.state = state(*things)
        self.lock = asyncio.Lock()
        self.kernel = self
        self.has: set[Resource] = set()
        self.refuses = False

    def apply(self, want: Iterable[Resource], have: Iterable[Resource]) -> None:
        if self.refuses:
            raise KernelRefused("told to")
        self.has = (self.has - set(have)) | set(want)
        plan(want, have)  # two of one key would be refused

    async def on_kernel(self, function: Callable[..., Any], *args: Any) -> Any:
        return function(*args)


def opened(directory: Path, *things: Any) -> tuple[Encryption, Any, Any]:
    """On a host that has its key."""
    core, session = Core(directory, *things), Session()
    core.state.fabric.underlay = Underlay("192.0.2.1", 1500)
    core.state.fabric.hosts = {node: TunnelPeer(node, key, "192.0.2.2") for node, key in KEYS.items()}
    made = Encryption(core, session)  # type: ignore[arg-type]
    asyncio.run(made.ensure())
    return made, core, session


def on(*networks: Network, name: str = "web") -> Any:
    made = running(container(name))
    for each in networks:
        plug(made, each)
    return made


def kinds(resources: Iterable[Resource]) -> set[str]:
    return {type(r).__name__ for r in resources}


def key_file(directory: Path) -> Path:
    return directory / "cluster/wireguard.key"


def test_the_others_are_told_the_public_key(tmp_path: Path) -> None:
    made, core, session = opened(tmp_path)
    public = public_of(read(key_file(tmp_path)))
    assert session.said[0].wireguard_key == public == core.state.fabric.key.public
    asyncio.run(made.ensure())
    assert len(session.said) == 1, "it has one already"


def test_a_link_is_there_while_somebody_needs_it(tmp_path: Path) -> None:
    plain, one, two = overlay("plain"), overlay("one", encrypted=""), overlay("two", encrypted="")
    web, db, api = on(plain, one), on(two, name="db"), on(plain, name="api")
    _, core, _ = opened(tmp_path, plain, one, two, web, db, api)
    state = core.state

    def of(made: Any) -> set[str]:
        return kinds(fabric.of_sole_user(state.fabric, state.networks, state.containers, made))

    assert "WireGuard" in kinds(fabric.common(state.fabric, state.networks, state.containers))
    assert "Vxlan" in of(web) and "WireGuard" not in of(web), "db needs it too"
    del state.containers[db.id]
    assert {"Vxlan", "WireGuard", "WireGuardPeer"} <= of(web)
    assert "WireGuard" not in of(api)
    del state.containers[web.id]
    assert not fabric.common(state.fabric, state.networks, state.containers)


def test_the_rules_of_overlay_networks_stay_while_one_of_them_is_here(tmp_path: Path) -> None:
    one, two = overlay("one"), overlay("two")
    web, db = on(one), on(two, name="db")
    _, core, _ = opened(tmp_path, one, two, web, db)
    state = core.state

    def of(made: Any) -> set[str]:
        return kinds(fabric.of_sole_user(state.fabric, state.networks, state.containers, made))

    assert "Element" in of(web) and "Table" not in of(web), "it goes with the last one only"
    del state.containers[db.id]
    assert "Table" in of(web)


def test_every_other_host_is_a_peer_with_an_address_of_its_own(tmp_path: Path) -> None:
    _, core, _ = opened(tmp_path)
    peers = [r for r in core.state.fabric.tunnel() if isinstance(r, WireGuardPeer)]
    assert {p.public_key for p in peers} == set(KEYS.values())
    assert len({p.allowed for p in peers}) == 2 and {p.endpoint for p in peers} == {"192.0.2.2:51840"}


@pytest.mark.parametrize(
    ("key", "port", "words"),
    [
        ("nonsense", 51840, "its WireGuard key"),
        (KEYS[THERE], 0, "its WireGuard key or port"),
        (KEYS[THERE], 51840, "of node there"),
    ],
)
def test_what_a_host_says_is_not_believed(key: str, port: int, words: str) -> None:
    with pytest.raises(Invalid, match=words):
        host_of("third", key, "192.0.2.3", port, {THERE: TunnelPeer(THERE, KEYS[THERE], "192.0.2.2")})


def test_a_new_key_is_set_here_before_the_others_are_told(tmp_path: Path) -> None:
    hidden = overlay("hidden", encrypted="")
    made, core, session = opened(tmp_path, hidden, on(hidden))
    old = core.state.fabric.key
    core.has = set(core.state.fabric.tunnel())
    asyncio.run(made.rotate())
    (link,) = (r for r in core.has if isinstance(r, WireGuard))
    assert link.public_key == session.said[-1].wireguard_key == core.state.fabric.key.public != old.public
    assert public_of(read(key_file(tmp_path))) == link.public_key
    assert [p.name for p in (tmp_path / "cluster").iterdir()] == ["wireguard.key"]


def test_a_key_that_the_kernel_refuses_changes_nothing(tmp_path: Path) -> None:
    hidden = overlay("hidden", encrypted="")
    made, core, session = opened(tmp_path, hidden, on(hidden))
    core.refuses, old = True, core.state.fabric.key
    with pytest.raises(KernelRefused):
        asyncio.run(made.rotate())
    assert core.state.fabric.key == old and len(session.said) == 1
    assert public_of(read(Path(old.file))) == old.public
