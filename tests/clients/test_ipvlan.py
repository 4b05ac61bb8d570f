"""ipvlan networks with the real `docker` command. Skipped where the kernel has no ipvlan; see tests/kernels.py."""

from __future__ import annotations

import pytest

from tests.clients.lab import Lab, eventually
from tests.daemons import Client

pytestmark = pytest.mark.needs("ipvlan")

WIRE = ("--subnet", "192.0.2.0/24", "--ip-range", "192.0.2.128/25", "-o", "parent=up0")


def test_l2_containers_are_on_the_wire_with_the_mac_of_the_parent(lab: Lab, docker: Client):
    docker("network", "create", "-d", "ipvlan", *WIRE, "iv")
    lab.serve("web", "--network", "iv")
    lab.serve("db", "--network", "iv")
    assert lab.sandbox("web").fetch("192.0.2.129", 80) == "db sees 192.0.2.128"
    assert lab.outside.fetch("192.0.2.128", 80) == "web sees 192.0.2.2"
    mac = lab.here.path("/sys/class/net/up0/address").read_text().strip()
    assert mac in lab.outside.ip("neighbour", "show", "192.0.2.128")
    refused = docker.refused("run", "--network", "iv", "--mac-address", "02:00:00:00:00:01", "host", "true")
    assert "endpoints of network iv (ipvlan in mode l2) have the MAC of its parent interface" in refused.text


def test_l3_leaves_by_the_link_itself(lab: Lab, docker: Client):
    docker(
        "network", "create", "-d", "ipvlan", "--subnet", "10.9.0.0/24", "-o", "parent=up0", "-o", "ipvlan_mode=l3", "iv"
    )
    lab.serve("web", "--network", "iv")
    routes = lab.here.run(["ip", "netns", "exec", "web", "ip", "route"], check=True).stdout
    assert "default dev eth0" in routes
    lab.outside.ip("route", "add", "10.9.0.0/24", "via", "192.0.2.1")
    try:
        assert lab.outside.fetch("10.9.0.1", 80) == "web sees 192.0.2.2"
    finally:
        lab.outside.ip("route", "delete", "10.9.0.0/24")


def test_it_outlives_the_daemon_and_a_deleted_link(lab: Lab, docker: Client):
    docker("network", "create", "-d", "ipvlan", *WIRE, "iv")
    lab.serve("web", "--network", "iv")
    lab.daemon.kill9()
    lab.daemon.start()
    assert lab.outside.fetch("192.0.2.128", 80) == "web sees 192.0.2.2"
    lab.here.run(["ip", "netns", "exec", "web", "ip", "link", "delete", "eth0"], check=True)
    eventually(lambda: lab.outside.fetch("192.0.2.128", 80) == "web sees 192.0.2.2")
    assert "healthy" in lab.netengine("doctor")
