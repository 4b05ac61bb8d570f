"""The difference between model and kernel: what counts as one, and how it is mended when the kernel refuses it as a whole."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from netengine.engine import reconcile
from netengine.engine.reconcile import Difference, comparable, lost_namespaces
from netengine.errors import KernelRefused
from netengine.kernel.plan import plan
from netengine.kernel.resources import HOST, Address, Bridge, LinkUp, Namespace, Resource, Route, Veth
from tests.unit.engine.model import container, network, plug, running, state

NS = "s" * 64
MAC = "02:00:00:00:00:02"
WANT: frozenset[Resource] = frozenset(
    {
        Namespace(NS),
        Veth("veth1", "br0", NS, "eth0", MAC, 1500),
        Address(NS, "eth0", "10.1.0.2/24"),
        LinkUp(NS, "eth0"),
        Route(NS, "default", "eth0", "10.1.0.1"),
    }
)


@pytest.mark.parametrize("theirs", [Address(NS, "eth0", "10.9.9.9/24"), LinkUp(NS, "tun0")], ids=repr)
def test_what_a_program_in_a_sandbox_adds_is_its_own(theirs: Resource) -> None:
    assert comparable(WANT, {*WANT, theirs}) == WANT


@pytest.mark.parametrize(
    "ours",
    [
        Address(HOST, "br0", "10.9.9.9/24"),
        Address("x" * 64, "eth0", "10.9.9.9/24"),  # of a sandbox that belongs to nothing any more
        Route(NS, "10.9.0.0/16", "eth0", "10.1.0.1"),
        Bridge("br9", MAC, 1500, "9"),
        Veth("veth9", "br0", NS, "eth9", MAC, 1500),
    ],
    ids=repr,
)
def test_what_is_marked_as_ours_and_not_wanted_is_a_difference(ours: Resource) -> None:
    have = comparable(WANT, {*WANT, ours})
    assert have - WANT == {ours}
    assert plan(WANT, have).delete == (ours,)


def test_what_is_wanted_is_compared_even_where_it_is_theirs_to_change() -> None:
    gone = Address(NS, "eth0", "10.1.0.2/24")
    assert plan(WANT, comparable(WANT, {*WANT} - {gone})).create == (gone,)


# -- mending ----------------------------------------------------------------------------------------------------------

APP, OTHER = network("app"), network("other")


class Kernel:
    """Refuses whatever has the bridge of network `app` in it."""

    def __init__(self) -> None:
        self.applied: list[frozenset[Resource]] = []

    def apply(self, want: Any, have: Any) -> None:
        if any(isinstance(r, Bridge) and r.name == "br-app" for r in want):
            raise KernelRefused("br-app: no")
        self.applied.append(frozenset(want))


def core(kernel: Any, *things: Any) -> Any:
    async def on_kernel(function: Any, *arguments: Any) -> Any:
        return function(*arguments)

    return SimpleNamespace(state=state(*things), base=frozenset(), broken={}, kernel=kernel, on_kernel=on_kernel)


def test_one_network_that_the_kernel_refuses_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconcile, "observe", lambda kernel, want: set())
    kernel = Kernel()
    heart = core(kernel, APP, OTHER)
    want = reconcile.wanted(heart)
    problems = asyncio.run(reconcile.mend(heart, Difference(want, frozenset(), plan(want, ()))))
    assert problems == ["network app is not as it should be: br-app: no"]
    made = {r.name for applied in kernel.applied for r in applied if isinstance(r, Bridge)}
    assert made == {"br-other"}


def test_where_nothing_differs_the_kernel_is_left_alone() -> None:
    kernel = Kernel()
    heart = core(kernel, OTHER)
    want = reconcile.wanted(heart)
    assert asyncio.run(reconcile.mend(heart, Difference(want, want, plan(want, want)))) == []
    assert kernel.applied == []


# -- a part of the model that is broken -------------------------------------------------------------------------------


class Heap:
    """A kernel that has what it was told, to be read back."""

    def __init__(self, has: set[Resource]) -> None:
        self.has = has

    def lost_namespaces(self, names: Any) -> list[str]:
        return []

    def has_namespace(self, ns: str) -> bool:
        return True


def test_a_container_that_cannot_be_rendered_holds_up_no_other_and_stays(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Healing goes on with the others; what is in the kernel of the broken one is not taken for left over."""
    web, sick = running(container("web")), running(container("sick"))
    plug(web, APP)
    plug(sick, OTHER).host_link = "vsick"
    whole = core(None, APP, OTHER, web, sick)
    wanted = reconcile.wanted(whole)
    cable, sick_cable = (next(r for r in wanted if isinstance(r, Veth) and r.ns == c.id) for c in (web, sick))
    leftover = Veth("vgone", "br-app", "x" * 64, "eth0", MAC, 1500)

    def found(heart: Any) -> Difference:
        return asyncio.run(reconcile.difference(heart))

    monkeypatch.setattr(reconcile, "observe", lambda kernel, want: set(kernel.has))
    heart = core(Heap({*wanted, leftover} - {cable}), APP, web, sick)  # the network of the sick one is not in the model
    steps = found(heart).steps
    assert steps.create == (cable,) and not steps.delete, "the one is put right, the other left alone"
    assert sick_cable in heart.kernel.has
    assert "KeyError" in heart.broken["container sick"]
    found(heart)
    assert caplog.text.count("container sick is broken in the model (KeyError") == 1, "it is said once"

    heart.state.networks[OTHER.id] = OTHER
    assert found(heart).steps.delete == (leftover,), "in a sound model it is one"
    assert not heart.broken
    heart.broken["container gone"] = "KeyError"
    reconcile.wanted(heart)
    assert not heart.broken, "what is gone is not broken"


# -- namespaces -------------------------------------------------------------------------------------------------------


def test_a_sandbox_is_lost_without_its_file_and_without_its_name(tmp_path: Path) -> None:
    boxes = [running(container(name)) for name in ("whole", "no-file", "no-name")]
    for box in boxes:
        plug(box, APP)
    (tmp_path / "whole").symlink_to("/anywhere")
    (tmp_path / "no-file").symlink_to("/anywhere")
    kernel = SimpleNamespace(
        alias_dir=tmp_path, lost_namespaces=lambda names: [ns for ns in names if ns == boxes[1].sandbox_id]
    )
    assert sorted(lost_namespaces(core(kernel, APP, *boxes))) == ["no-file", "no-name"]
    assert sorted(lost_namespaces(core(kernel, APP, boxes[0]))) == []
    kernel.alias_dir = tmp_path / "gone"
    assert lost_namespaces(core(kernel, APP, boxes[0])) == ["whole"]
