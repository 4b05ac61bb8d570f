"""The drivers of the networks `none` and `host`: nothing is built."""

from __future__ import annotations

import pytest

from netengine.drivers import DRIVERS, EndpointContext
from netengine.model import Endpoint, Network


@pytest.mark.parametrize("name", ["null", "host"])
def test_nothing_is_built(name: str) -> None:
    driver = DRIVERS[name]
    network = Network(id="1", name="n", driver=name, created="")
    endpoint = Endpoint(id="2", network_id="1", container_id="3", sandbox_id="4")
    driver.settle(network, [], 1500)
    assert driver.render_network(network) == frozenset()
    assert driver.render_endpoint(network, endpoint, EndpointContext(True)) == frozenset()
    assert not driver.has_addresses


def test_each_driver_is_known_by_its_name() -> None:
    assert {name: driver.name for name, driver in DRIVERS.items()} == {
        n: n for n in ("bridge", "host", "ipvlan", "macvlan", "null", "overlay")
    }
