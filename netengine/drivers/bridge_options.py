"""Options of bridge networks that say how packets cross the bridge: gateway modes, trusted interfaces, source addresses.

Parsing alone, pure, once for each network; the links are made by bridge.py, the rules' elements by bridge_rules.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import ip_address

from netengine.errors import Invalid
from netengine.kernel.resources import Family
from netengine.model import BridgeSettings, Network

GATEWAY_MODE: Mapping[Family, str] = {
    "ip": "com.docker.network.bridge.gateway_mode_ipv4",
    "ip6": "com.docker.network.bridge.gateway_mode_ipv6",
}
HOST_ADDRESS: Mapping[Family, str] = {"ip": "com.docker.network.host_ipv4", "ip6": "com.docker.network.host_ipv6"}
TRUSTED = "com.docker.network.bridge.trusted_host_interfaces"
INHIBIT_IPV4 = "com.docker.network.bridge.inhibit_ipv4"
ANTI_SPOOF = "anti_spoof"
OPTIONS = (*GATEWAY_MODE.values(), TRUSTED, INHIBIT_IPV4, *HOST_ADDRESS.values(), ANTI_SPOOF)

NAT, UNPROTECTED, ROUTED, ISOLATED = "nat", "nat-unprotected", "routed", "isolated"
MODES = (NAT, UNPROTECTED, ROUTED, ISOLATED)

_VERSION: Mapping[Family, int] = {"ip": 4, "ip6": 6}
_INTERFACE = re.compile(r"[^\s\"'\\/:\x00-\x1f]{1,15}")


def settle(settings: BridgeSettings, network: Network, options: Mapping[str, str], *, inhibit_ipv4: bool) -> None:
    """Write what the options say into the settings. Raises Invalid."""
    settings.gateway_modes = {
        family: _mode(options[option], option, network)
        for family, option in GATEWAY_MODE.items()
        if options.get(option)
    }
    settings.trusted = _interfaces(options.get(TRUSTED, ""))
    settings.inhibit_ipv4 = inhibit_ipv4
    settings.sources = {
        family: _source(options[option], option, family, settings)
        for family, option in HOST_ADDRESS.items()
        if options.get(option)
    }


def mode(settings: BridgeSettings, family: Family) -> str:
    """How packets of that family cross the bridge: one of MODES."""
    return settings.gateway_modes.get(family, NAT)


def reserves_gateway(network: Network, family: Family) -> bool:
    """Whether an address of each subnet is kept for the gateway when the user names none. An isolated network has none, and an
    internal one whose bridge has no address leads to none."""
    settings = network.bridge
    if settings is None:
        return True
    return not (mode(settings, family) == ISOLATED or (family == "ip" and settings.inhibit_ipv4 and network.internal))


def gives_address(settings: BridgeSettings, family: Family) -> bool:
    """Whether the bridge gets the gateway's address."""
    return mode(settings, family) != ISOLATED and not (family == "ip" and settings.inhibit_ipv4)


def _mode(value: str, option: str, network: Network) -> str:
    if value not in MODES:
        raise Invalid(f"unknown gateway mode {value[:40]!r} for {option}: it must be one of {', '.join(MODES)}")
    if value == ISOLATED and not network.internal:
        raise Invalid(
            "gateway mode 'isolated' can only be used for an internal network: "
            f"create it with --internal, or leave {option} out"
        )
    return value


def _interfaces(value: str) -> list[str]:
    names = value.split(":") if value else []
    for name in names:
        if not _INTERFACE.fullmatch(name) or name in (".", "..", "lo"):
            raise Invalid(
                f"invalid value {value[:80]!r} for {TRUSTED}: {name[:40]!r} is not the name of an interface of the host that "
                "packets come in by; give names of 1 to 15 characters, separated by ':', such as eth0:wg0"
            )
    return list(dict.fromkeys(names))


def _source(value: str, option: str, family: Family, settings: BridgeSettings) -> str:
    example = "192.0.2.1" if family == "ip" else "2001:db8::1"
    wanted = f"it must be an IPv{_VERSION[family]} address of the host, such as {example}"
    try:
        address = ip_address(value)
    except ValueError:
        raise Invalid(f"invalid value {value[:60]!r} for {option}: {wanted}") from None
    unusable = address.is_unspecified or address.is_multicast or address.is_loopback or address.is_link_local
    if address.version != _VERSION[family] or unusable or "%" in value:
        raise Invalid(f"invalid value {value[:60]!r} for {option}: {wanted}")
    if not settings.masquerade:
        raise Invalid(
            f"{option} names the source address of packets that leave the host, and masquerading is off: "
            "leave one of the two out"
        )
    if mode(settings, family) in (ROUTED, ISOLATED):
        raise Invalid(
            f"{option} names the source address of packets that leave the host, and in gateway mode "
            f"{mode(settings, family)} they keep their own: leave one of the two out"
        )
    return str(address)
