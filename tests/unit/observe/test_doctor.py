"""Differences as findings, with commands that would mend them."""

from __future__ import annotations

from dataclasses import replace

from netengine.kernel.plan import plan
from netengine.kernel.resources import HOST, Address, Bridge, Element, Sysctl, Table, Veth
from netengine.observe.doctor import Finding, diagnose, summary

BRIDGE = Bridge("br0", "02:00:00:00:00:01", 1500, "netengine-br-1")
VETH = Veth("veth0", "br0", "s0", "eth0", "02:00:00:00:00:02", 1500)
PORT = Element("ip", "ports", ("tcp", "8080"), ("10.0.0.2", "80"))


def test_agreement_has_no_findings() -> None:
    assert diagnose(plan({BRIDGE, VETH}, {BRIDGE, VETH})) == []


def test_what_is_missing_comes_with_the_commands_that_make_it() -> None:
    (finding,) = diagnose(plan({Sysctl(HOST, "net/ipv4/ip_forward", "1")}, set()))
    assert finding == Finding("missing", "sysctl net/ipv4/ip_forward", ("sysctl -w 'net.ipv4.ip_forward=1'",))


def test_what_is_left_over_comes_with_the_command_that_removes_it() -> None:
    found = diagnose(plan({Table("ip")}, {Table("ip"), PORT, BRIDGE}))
    assert [(f.state, f.commands) for f in found] == [
        ("extra", ("nft 'delete element ip netengine ports { tcp . 8080 }'",)),
        ("extra", ("ip link delete br0",)),
    ]


def test_what_is_different_says_how() -> None:
    (finding,) = diagnose(plan({BRIDGE}, {replace(BRIDGE, up=False, mtu=1400)}))
    assert finding.what == "bridge br0: mtu 1400 instead of 1500, up no instead of yes"
    assert finding.commands == ("ip link set br0 address 02:00:00:00:00:01 mtu 1500 up",)
    (finding,) = diagnose(plan({VETH}, {replace(VETH, master="")}))
    assert finding.what == "veth veth0: master none instead of br0"


def test_the_summary_has_a_line_for_each_kind() -> None:
    addresses = {Address(HOST, "br0", f"10.0.{n}.1/24") for n in range(3)}
    found = diagnose(plan(addresses | {BRIDGE}, set()))
    assert summary(found) == ["bridge br0 was missing", "address br0 10.0.0.1/24 and 2 more of the kind were missing"]
