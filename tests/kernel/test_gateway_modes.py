"""Gateway modes: who reaches a container, by its own address and by the host's, from where. Real packets, one table."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Network, IPv6Network
from typing import Any

import pytest

from netengine.drivers import bridge_options as options
from netengine.kernel.resources import Family
from tests.gatewaymodes import EXPECTED, MODES, NO, PROBES, SENDERS, YES, as_text
from tests.hosts import Namespace
from tests.kernel.machine import Lan, Machine, port
from tests.kernel.packets import ping

HOST_ADDRESS: dict[Family, str] = {"ip": "192.0.2.1", "ip6": "2001:db8::1"}
PUBLISHED, UNPUBLISHED = 80, 81
TIMEOUT = 0.5
"""Seconds until a probe counts as lost. What is let through takes less than one of a thousand of that."""

families = pytest.mark.parametrize("family", list(HOST_ADDRESS))


class World:
    """A network of each mode with a server and a neighbour, another network with a client, a machine outside that has routes
    to all of them."""

    def __init__(self, machine: Machine, outside: Machine, family: Family) -> None:
        self.machine, self.outside, self.family = machine, outside, family
        self.lans: dict[str, Lan] = {}
        self.servers: dict[str, Namespace] = {}
        self.neighbours: dict[str, Namespace] = {}
        self.sockets: list[Any] = []
        for number, mode in enumerate(MODES):
            lan = Lan(
                machine,
                f"b-{mode}"[:15],
                f"10.{number + 1}.0.0/24",
                f"fd00:{number + 1}::/64",
                internal=mode == "isolated",
                options=dict.fromkeys(options.GATEWAY_MODE.values(), mode),
            ).build()
            # In the model, as the engine makes it: no port of the host where none is used.
            host_port = 0 if mode in ("routed", "isolated") else 8001 + number
            published = [port(host_port, PUBLISHED, host_ip) for host_ip in ("0.0.0.0", "::")]
            self.lans[mode] = lan
            self.servers[mode] = lan.sandbox(f"s{number}", 2, *published)
            self.neighbours[mode] = lan.sandbox(f"n{number}", 3)
            for where in (PUBLISHED, UNPUBLISHED):
                self.sockets.append(self.servers[mode].listen(where, "0.0.0.0" if family == "ip" else "::"))
            outside.run("ip", "route", "add", str(self.subnet(mode)), "via", HOST_ADDRESS[family])
        self.another = Lan(machine, "another", "10.9.0.0/24", "fd00:9::/64").build().sandbox("other", 2)
        outside.keep_this()

    def subnet(self, mode: str) -> IPv4Network | IPv6Network:
        found = self.lans[mode].subnet if self.family == "ip" else self.lans[mode].subnet6
        assert found is not None
        return found

    def sender(self, name: str, mode: str) -> Namespace:
        return {
            "outside": self.outside,
            "another bridge": self.another,
            "the same bridge": self.neighbours[mode],
            "the host": self.machine,
        }[name]

    def probe(self, mode: str, sender: str, what: str) -> str:
        source, target = self.sender(sender, mode), str(self.subnet(mode)[2])
        tries: dict[str, Callable[[], object]] = {
            "ping": lambda: ping(source, target, TIMEOUT),
            "published": lambda: source.connect(target, PUBLISHED, TIMEOUT).close(),
            "unpublished": lambda: source.connect(target, UNPUBLISHED, TIMEOUT).close(),
            PROBES[3]: lambda: source.connect(HOST_ADDRESS[self.family], 8001 + MODES.index(mode), TIMEOUT).close(),
        }
        try:
            tries[what]()
        except OSError:
            return NO
        return YES

    def seen(self) -> dict[tuple[str, str], tuple[str, ...]]:
        with ThreadPoolExecutor(16) as pool:
            asked = {
                (mode, sender): [pool.submit(self.probe, mode, sender, what) for what in PROBES]
                for mode in MODES
                for sender in SENDERS
            }
            return {key: tuple(answer.result() for answer in answers) for key, answers in asked.items()}

    def close(self) -> None:
        for opened in self.sockets:
            opened.close()


@families
def test_what_each_mode_lets_through(machine: Machine, outside: Machine, family: Family) -> None:
    world = World(machine, outside, family)
    try:
        seen = world.seen()
    finally:
        world.close()
    print(as_text(seen))
    assert as_text(seen) == as_text(EXPECTED)
