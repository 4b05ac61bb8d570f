"""A change that the kernel refuses half-way leaves nothing of itself, and everything that was there before."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import pytest

from netengine.errors import KernelRefused, NetengineError
from netengine.kernel.resources import (
    HOST,
    Address,
    Bridge,
    HostPort,
    Namespace,
    NamespaceAlias,
    Resource,
    Route,
    Sysctl,
    Table,
    Veth,
)
from tests.kernel.machine import Lan, Machine, box, port
from tests.kernel.packets import tcp


def refused(machine: Machine, want: Iterable[Resource], caplog: pytest.LogCaptureFixture) -> str:
    """Try to go from what was built to `want`; the refusal. Taking back must not meet an error of its own."""
    before = machine.snapshot()
    with caplog.at_level(logging.ERROR), pytest.raises(NetengineError) as error:
        machine.apply(want, machine.built)
    assert caplog.text == ""
    machine.on_kernel(machine.kernel.reap)
    assert machine.snapshot() == before
    machine.must_be_as_built()
    return error.value.message


def test_a_gateway_that_cannot_be(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    lan = Lan(machine).build()
    endpoint = {r for r in lan.plug("web", 2, port(8080, 80)) if not isinstance(r, Route)}
    impossible = Route("web", "default", "eth0", "203.0.113.1")
    message = refused(machine, machine.built | box("web") | endpoint | {impossible}, caplog)
    assert message == "the kernel refused: add route default via 203.0.113.1: Nexthop has invalid gateway"


def test_a_bridge_that_is_not_there(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    Lan(machine, "br0").build()
    orphan = Lan(machine, "br1", "10.2.0.0/24").plug("web", 2)
    message = refused(machine, machine.built | box("web") | orphan, caplog)
    assert message == "the kernel refused: there is no link br1 in the host"


def test_a_name_that_somebody_else_s_link_has(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    machine.run("ip", "link", "add", "br0", "type", "bridge")
    machine.keep_this()
    message = refused(machine, {Bridge("br0", "02:00:00:00:00:01", 1500, "netengine-br-0")}, caplog)
    assert message == "the kernel refused: create bridge br0: File exists"


def test_a_bridge_whose_mark_is_taken(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    """The second of its messages is refused: the first must be taken back."""
    machine.build({Bridge("br0", "02:00:00:00:00:01", 1500, "netengine-br-0")})
    twin = Bridge("br1", "02:00:00:00:00:02", 1500, "netengine-br-0")
    assert "mark bridge br1 as netengine-br-0" in refused(machine, machine.built | {twin}, caplog)


def test_one_of_many_addresses(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    machine.build(Lan(machine).resources | {Table("ip")})
    good = {Address(HOST, "br0", f"10.9.{n}.1/24") for n in range(5)}
    message = refused(machine, machine.built | good | {Address(HOST, "nowhere", "10.9.9.1/24")}, caplog)
    assert message == "the kernel refused: there is no link nowhere in the host"


def test_a_sysctl_that_the_kernel_does_not_have(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    message = refused(machine, box("web") | {Sysctl("web", "net/ipv4/no_such_value", "1")}, caplog)
    assert message == "cannot set sysctl net.ipv4.no_such_value to '1': No such file or directory"


def test_a_value_that_the_kernel_does_not_take(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    message = refused(machine, box("web") | {Sysctl("web", "net/ipv4/ip_local_port_range", "9 to 5")}, caplog)
    assert message == "cannot set sysctl net.ipv4.ip_local_port_range to '9 to 5': Invalid argument"


def test_a_port_that_is_taken_costs_nothing(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    lan = Lan(machine).build()
    with machine.listen(8080):
        message = refused(machine, machine.built | box("web") | lan.plug("web", 2, port(8080, 80)), caplog)
    assert message == "Bind for 0.0.0.0:8080 failed: port is already allocated"


def test_all_ports_are_free_again_after_one_was_taken(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    with machine.listen(8085):
        refused(machine, {HostPort("0.0.0.0", "tcp", n) for n in range(8080, 8090)}, caplog)
    machine.listen(8080).close()


def test_an_interface_that_is_there_already(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    lan, other = Lan(machine).build(), Lan(machine, "br1", "10.2.0.0/24").build()
    lan.sandbox("web", 2).close()
    message = refused(machine, machine.built | other.plug("web", 2, is_gateway=False, link="eth0"), caplog)
    assert "File exists" in message


def test_what_was_removed_on_the_way_is_there_again_and_works(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    """The address and route of the removed link went by themselves; they must come back with it."""
    lan = Lan(machine).build()
    web, client = lan.sandbox("web", 2), lan.sandbox("client", 3)
    impossible = Sysctl("web", "net/ipv4/no_such_value", "1")
    refused(machine, (machine.built - lan.plug("web", 2)) | {impossible}, caplog)
    tcp(client, "10.1.0.2", 80, web)


def test_what_was_changed_on_the_way_is_changed_back(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    bridge = Bridge("br0", "02:00:00:00:00:01", 1500, "netengine-br-0")
    local = Sysctl(HOST, "net/ipv4/conf/br0/route_localnet", "1")
    machine.build({bridge, local, Sysctl(HOST, "net/ipv4/ip_default_ttl", "64")})
    changed = {
        Bridge("br0", "02:00:00:00:00:09", 1400, "netengine-br-0"),
        local,
        Sysctl(HOST, "net/ipv4/ip_default_ttl", "no number"),
    }
    refused(machine, changed, caplog)


def test_a_veth_that_was_made_anew_is_the_old_one_again(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    lan = Lan(machine).build()
    client = lan.sandbox("client", 3)
    web = lan.sandbox("web", 2, mac="02:00:00:00:aa:01")
    rest = machine.built - lan.plug("web", 2, mac="02:00:00:00:aa:01")
    other_mac = {r for r in lan.plug("web", 2, mac="02:00:00:00:aa:02") if not isinstance(r, Route)}
    refused(machine, rest | other_mac | {Route("web", "default", "eth0", "203.0.113.1")}, caplog)
    tcp(client, "10.1.0.2", 80, web)


def test_a_namespace_whose_file_is_in_the_way(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    machine.build(box("web"))
    before = machine.snapshot()
    with pytest.raises(KernelRefused, match="File exists"):
        machine.apply({Namespace("other"), Namespace("web"), NamespaceAlias("x", "other")})
    assert machine.snapshot() == before


def test_a_deletion_that_fails_does_not_keep_the_others(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.build({Table("ip"), *box("web"), Bridge("br0", "02:00:00:00:00:01", 1500, "netengine-br-0")})
    with monkeypatch.context() as patch:
        patch.setattr(machine.kernel.nft, "unload", lambda table: (_ for _ in ()).throw(KernelRefused("no")))
        with pytest.raises(KernelRefused, match="not everything could be removed: no"):
            machine.apply((), machine.built)
    machine.built = frozenset({Table("ip")})
    machine.must_be_as_built()


def test_a_veth_changed_and_then_refused_is_back_on_its_old_bridge(
    machine: Machine, caplog: pytest.LogCaptureFixture
) -> None:
    one, other = (Bridge(f"br{n}", f"02:00:00:00:00:0{n}", 1500, f"netengine-br-{n}") for n in (0, 1))
    veth = Veth("veth0", "br0", "web", "eth0", "02:00:00:00:00:0a", 1500)
    # The veth's new place is changed last but one; the route's gateway, last in the order, is impossible.
    ground: set[Resource] = {one, other, *box("web"), Address("web", "eth0", "10.1.0.2/24")}
    up = {r for r in Lan(machine).plug("web", 2) if type(r).__name__ == "LinkUp"}
    machine.build(ground | up | {veth, Route("web", "default", "eth0", "10.1.0.1")})
    moved = Veth("veth0", "br1", "web", "eth0", "02:00:00:00:00:0a", 1500)
    refused(machine, ground | up | {moved, Route("web", "default", "eth0", "203.0.113.1")}, caplog)
