"""Gateway modes and what stands beside them: values that are understood, and values that are refused with what is allowed."""

from __future__ import annotations

from typing import Any

import pytest

from netengine.drivers import bridge_options as options
from netengine.errors import Invalid
from netengine.model import BridgeSettings, Network


def settled(given: dict[str, str], *, masquerade: bool = True, inhibit: bool = False, **fields: Any) -> BridgeSettings:
    settings = BridgeSettings(link="br0", mac="02:00:00:00:00:01", mtu=1500, masquerade=masquerade)
    network = Network(id="1" * 64, name="app", driver="bridge", created="", **fields)
    options.settle(settings, network, given, inhibit_ipv4=inhibit)
    return settings


@pytest.mark.parametrize("family", ["ip", "ip6"])
@pytest.mark.parametrize("mode", ["nat", "nat-unprotected", "routed"])
def test_a_mode_is_of_one_family(family: Any, mode: str) -> None:
    settings = settled({options.GATEWAY_MODE[family]: mode})
    assert options.mode(settings, family) == mode
    assert options.mode(settings, "ip6" if family == "ip" else "ip") == "nat"


def test_isolated_is_for_internal_networks() -> None:
    isolated = {options.GATEWAY_MODE["ip"]: "isolated"}
    assert options.mode(settled(isolated, internal=True), "ip") == "isolated"
    with pytest.raises(Invalid, match="gateway mode 'isolated' can only be used for an internal network"):
        settled(isolated)


def test_trusted_interfaces_are_a_list_without_repeats() -> None:
    assert settled({options.TRUSTED: "eth0:wg0:eth0"}).trusted == ["eth0", "wg0"]
    assert settled({options.TRUSTED: ""}).trusted == []


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({options.GATEWAY_MODE["ip"]: "NAT"}, "must be one of nat, nat-unprotected, routed, isolated"),
        ({options.GATEWAY_MODE["ip6"]: "x" * 500}, "unknown gateway mode 'xxx"),
        ({options.TRUSTED: "eth0:"}, "'' is not the name of an interface"),
        ({options.TRUSTED: "lo"}, "'lo' is not the name of an interface"),
        ({options.TRUSTED: 'a"; drop'}, "is not the name of an interface"),
        ({options.TRUSTED: "seventeen-letters"}, "is not the name of an interface"),
        ({options.HOST_ADDRESS["ip"]: "everywhere"}, "it must be an IPv4 address of the host"),
        ({options.HOST_ADDRESS["ip"]: "0.0.0.0"}, "it must be an IPv4 address of the host"),
        ({options.HOST_ADDRESS["ip6"]: "::"}, "it must be an IPv6 address of the host"),
        ({options.HOST_ADDRESS["ip6"]: "fe80::1"}, "it must be an IPv6 address of the host"),
        ({options.HOST_ADDRESS["ip6"]: "2001:db8::1%eth0"}, "it must be an IPv6 address of the host"),
        (
            {options.HOST_ADDRESS["ip"]: "192.0.2.1", options.GATEWAY_MODE["ip"]: "routed"},
            "in gateway mode routed they keep their own",
        ),
    ],
    ids=str,
)
def test_what_cannot_be(given: dict[str, str], words: str) -> None:
    with pytest.raises(Invalid) as refused:
        settled(given)
    assert words in refused.value.message and len(refused.value.message) < 400


def test_a_source_address_needs_masquerading() -> None:
    with pytest.raises(Invalid, match="masquerading is off"):
        settled({options.HOST_ADDRESS["ip"]: "192.0.2.1"}, masquerade=False)


@pytest.mark.parametrize(
    ("given", "inhibit", "internal", "reserves", "gives"),
    [
        ({}, False, False, True, True),
        ({}, True, False, True, False),  # the gateway is another machine's
        ({}, True, True, False, False),
        ({options.GATEWAY_MODE["ip"]: "isolated"}, False, True, False, False),
        ({options.GATEWAY_MODE["ip6"]: "isolated"}, False, True, True, True),
    ],
)
def test_who_has_a_gateway(given: dict[str, str], inhibit: bool, internal: bool, reserves: bool, gives: bool) -> None:
    settings = settled(given, inhibit=inhibit, internal=internal)
    network = Network(id="1" * 64, name="app", driver="bridge", created="", internal=internal, bridge=settings)
    assert options.reserves_gateway(network, "ip") is reserves
    assert options.gives_address(settings, "ip") is gives
