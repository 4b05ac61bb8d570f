"""An overlay network on machines that are on one wire: packets of every kind across, and nothing that should not be."""

from __future__ import annotations

import pytest

from tests.kernel.overlays import MakeMachine, Overlay, site, underlays
from tests.kernel.packets import ping, tcp, udp


@pytest.mark.parametrize("base", ["192.0.2.", "2001:db8::"], ids=["over IPv4", "over IPv6"])
def test_containers_on_three_hosts_reach_each_other(make_machine: MakeMachine, base: str) -> None:
    machines, _ = site(make_machine, "alpha", "beta", "gamma")
    net = Overlay(machines, underlays(3, base), subnets=("10.0.9.0/24", "fd00:9::/64"))
    boxes = [net.join(host, f"s{host}", 10 + host) for host in range(3)]
    for client in range(3):
        for server in range(3):
            if client == server:
                continue
            for version in (4, 6):
                own, other = net.address(10 + client, version), net.address(10 + server, version)
                assert ping(boxes[client], other) == other
                assert tcp(boxes[client], other, 80, boxes[server]) == own
                assert udp(boxes[client], other, 53, boxes[server]) == own
