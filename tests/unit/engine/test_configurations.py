"""Configuration networks: what they keep, and what becomes of a network that is made from one."""

from __future__ import annotations

from typing import Any

import pytest

from netengine.engine import configurations
from netengine.engine.requests import ConfigReference, IpamPoolRequest, IpamRequest, NetworkRequest
from netengine.errors import Forbidden, Invalid, NotFound
from netengine.model import Network
from tests.unit.engine.model import network, state


def template(**fields: Any) -> Network:
    request = NetworkRequest(name="shelf", config_only=True, **fields)
    made = Network(id="5" * 64, name="shelf", driver="bridge", created="", labels=request.labels or {})
    made.options = request.options or {}
    made.ipam_options = (request.ipam.options or {}) if request.ipam else {}
    configurations.fill(made, request)
    return made


def test_a_configuration_network_decides_nothing() -> None:
    pool = IpamPoolRequest(subnet="10.9.0.0/24", ip_range="10.9.0.128/25", auxiliary_addresses={"router": "10.9.0.5"})
    made = template(ipam=IpamRequest(config=[pool, IpamPoolRequest()]))
    assert (made.driver, made.config_only, made.subnets) == ("null", True, [])
    assert [(s.subnet, s.ip_range, s.gateway, s.aux) for s in made.template] == [
        ("10.9.0.0/24", "10.9.0.128/25", "", {"router": "10.9.0.5"})
    ]


def test_its_addresses_are_checked_all_the_same() -> None:
    with pytest.raises(Invalid, match="invalid subnet"):
        template(ipam=IpamRequest(config=[IpamPoolRequest(subnet="10.9.0.1/24")]))


def test_a_network_gets_the_settings_of_the_one_it_names() -> None:
    shelf = template(
        labels={"tier": "front"},
        options={"mtu": "1400"},
        ipam=IpamRequest(options={"a": "b"}, config=[IpamPoolRequest(subnet="10.9.0.0/24")]),
    )
    asked = NetworkRequest(name="app", internal=True, config_from=ConfigReference(network="shelf"))
    got = configurations.resolve(state(shelf), asked)
    assert (got.name, got.internal, got.labels, got.options) == ("app", True, {"tier": "front"}, {"mtu": "1400"})
    assert got.ipam == IpamRequest(driver="default", options={"a": "b"}, config=[IpamPoolRequest(subnet="10.9.0.0/24")])
    assert (got.enable_ipv4, got.enable_ipv6) == (True, False)
    plain = NetworkRequest(name="app")
    assert configurations.resolve(state(shelf), plain) is plain


@pytest.mark.parametrize("name", ["nowhere", "app"])
def test_only_configuration_networks_can_be_named(name: str) -> None:
    with pytest.raises(NotFound, match=f"configuration network '{name}' does not exist"):
        configurations.resolve(state(network("app")), NetworkRequest(config_from=ConfigReference(network=name)))


def test_one_that_is_used_is_kept() -> None:
    shelf, app = template(), network("app", config_from="shelf")
    configurations.check_unused(state(shelf), shelf)
    with pytest.raises(Forbidden, match='configuration network "shelf" is in use by app'):
        configurations.check_unused(state(shelf, app), shelf)


def test_no_endpoint_on_a_configuration_network() -> None:
    configurations.check_attachable(network("app"))
    with pytest.raises(Forbidden, match="cannot create endpoint on configuration-only network shelf"):
        configurations.check_attachable(template())
