"""What changed inside a sandbox, judged by what should be there."""

from __future__ import annotations

import pytest

from netengine.engine.insides import concerns, may_change_its_own
from netengine.kernel.insides import Change
from netengine.kernel.resources import Address, LinkUp, NameService, Namespace, Route, Veth
from tests.unit.engine.model import container as a_container

NS = "s" * 64
MAC = "02:00:00:00:00:02"
RENDERED = frozenset(
    {
        Namespace(NS),
        LinkUp(NS, "lo"),
        Veth("veth1", "br0", NS, "eth0", MAC, 1500),
        Address(NS, "eth0", "10.1.0.2/24"),
        LinkUp(NS, "eth0"),
        Route(NS, "default", "eth0", "10.1.0.1"),
        NameService(NS),
    }
)


def link(name: str = "eth0", *, up: bool = True, mtu: int = 1500, mac: str = MAC, paired: bool = True) -> Change:
    return Change(7, "link", name, up, mtu, mac, paired)


@pytest.mark.parametrize(
    "change",
    [
        Change(7, "address", "10.1.0.2"),
        Change(7, "route", "default"),
        Change(7, "route", "10.1.0.0/24"),
        link(up=False),
        link(mtu=1400),
        link(mac="02:00:00:00:00:03"),
        link("other0"),
        Change(7, "link", "lo"),
    ],
    ids=repr,
)
def test_a_loss_is_suspicious(change: Change) -> None:
    assert concerns(change, RENDERED)


@pytest.mark.parametrize(
    "change",
    [
        link(),
        Change(7, "link", "lo", up=True, mtu=65536),
        Change(7, "address", "10.1.0.3"),
        Change(7, "route", "10.2.0.0/24"),
        link("tun0", paired=False),
        Change(7, "link", "tun0"),
    ],
    ids=repr,
)
def test_what_is_the_sandbox_s_own_is_not(change: Change) -> None:
    assert not concerns(change, RENDERED)


@pytest.mark.parametrize(
    ("given", "privileged", "pid", "may"),
    [
        ([], False, 5, False),
        (["net_admin"], False, 5, True),
        (["CAP_NET_ADMIN"], False, 5, True),
        (["ALL"], False, 5, True),
        (["CHOWN"], False, 5, False),
        ([], True, 5, True),
        (["NET_ADMIN"], True, 0, False),
    ],
)
def test_who_was_allowed_to_change_the_network_may(given: list[str], privileged: bool, pid: int, may: bool) -> None:
    container = a_container("box")
    container.host_config.cap_add, container.host_config.privileged = given, privileged
    container.state.pid = pid  # 0: a sandbox without a process, which nobody but an administrator changes
    assert may_change_its_own(container) == may
