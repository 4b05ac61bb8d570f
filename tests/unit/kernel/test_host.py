"""How `Kernel.apply` carries out a plan and takes it back: the real thing on a fake kernel, any kernel to any other."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from netengine.errors import KernelRefused
from netengine.kernel import host, kinds
from netengine.kernel.host import Kernel
from netengine.kernel.plan import Change
from netengine.kernel.resources import CREATION_ORDER, Namespace, NamespaceAlias, Resource, Sysctl, Table
from tests.unit.fake_kernel import FakeKernel, Refused
from tests.unit.resources_strategies import worlds


class KernelOnFake(Kernel):
    """The kernel layer with its last step, the netlink and nftables calls, done by the fake."""

    def __init__(self, fake: FakeKernel) -> None:
        super().__init__(Path("/nowhere"))
        self.fake = fake


def create(kernel: KernelOnFake, resources: list[Resource], made: list[Resource]) -> None:
    for r in resources:
        kernel.fake.create(r)
        made.append(r)


def change(kernel: KernelOnFake, step: Change) -> None:
    kernel.fake.change(step)


def delete(kernel: KernelOnFake, resources: list[Resource]) -> None:
    for r in resources:
        kernel.fake.delete(r)


@pytest.fixture(autouse=True)
def on_fake() -> Iterator[None]:
    with (
        mock.patch.dict(kinds.CREATE, dict.fromkeys(CREATION_ORDER, create)),
        mock.patch.dict(kinds.DELETE, dict.fromkeys(CREATION_ORDER, delete)),
        mock.patch.object(kinds, "change", change),
    ):
        yield


same_patches_for_all = settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@same_patches_for_all
@given(worlds(), worlds())
def test_apply_makes_the_kernel_as_wanted(want: frozenset[Resource], have: frozenset[Resource]) -> None:
    fake = FakeKernel(have)
    KernelOnFake(fake).apply(want, have)
    assert fake.has == {r for r in want if not isinstance(r, Sysctl)}


@same_patches_for_all
@given(worlds(), worlds(), st.integers(0, 30))
def test_a_refusal_at_any_step_leaves_the_kernel_as_it_was(
    want: frozenset[Resource], have: frozenset[Resource], step: int
) -> None:
    fake = FakeKernel(have)
    before = fake.has, fake.sysctls
    fake.refuse(step)
    with mock.patch.object(host.log, "error", side_effect=AssertionError):
        try:
            KernelOnFake(fake).apply(want, have)
        except KernelRefused:
            assert fake.has == before[0]
            # A sysctl that was not known before keeps its new value: there is no old one to go back to.
            assert fake.sysctls >= before[1]


def test_the_kernel_s_own_words_reach_the_caller() -> None:
    fake = FakeKernel()
    fake.refuse(0)
    with pytest.raises(KernelRefused, match=r"^the kernel refused: told to refuse Table"):
        KernelOnFake(fake).apply({Table("ip")}, ())


def test_deletions_go_on_after_an_error_and_all_errors_are_told() -> None:
    gone, there = Namespace("gone"), Namespace("there")
    alias = NamespaceAlias("web", "gone")
    fake = FakeKernel({there})
    with pytest.raises(KernelRefused, match=r"not everything could be removed: .*web.*gone") as refused:
        KernelOnFake(fake).apply((), {there, gone, alias})
    assert "; " in refused.value.message
    assert isinstance(refused.value, KernelRefused) and not isinstance(refused.value, Refused)


def test_an_undo_that_fails_is_logged_and_does_not_hide_the_cause(caplog: pytest.LogCaptureFixture) -> None:
    old, new = Sysctl("", "net/ipv4/ip_forward", "0"), Sysctl("", "net/ipv4/ip_forward", "1")
    other = Sysctl("", "net/ipv4/ip_nonlocal_bind", "1"), Sysctl("", "net/ipv4/ip_nonlocal_bind", "0")
    fake = FakeKernel({old, other[0]})
    fake.refuse(1)
    with (
        mock.patch.object(kinds, "change", side_effect=[None, Refused("the cause"), Refused("the undo"), None]),
        caplog.at_level(logging.ERROR),
        pytest.raises(KernelRefused, match="the cause"),
    ):
        KernelOnFake(fake).apply({new, other[1]}, {old, other[0]})
    assert "the undo" in caplog.text
