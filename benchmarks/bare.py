"""A machine that forwards to two namespaces behind its bridge, without NAT and without a rule; and another one beside it."""

from __future__ import annotations

from pathlib import Path

from benchmarks.paths import INSIDE
from benchmarks.turns import inside
from tests.hosts import Host, wire

NAME = "no NAT, no rule"
NEAR, FAR = "10.7.0.2", "10.7.0.3"
"""The two namespaces' addresses."""


class Bare:
    def __init__(self, directory: Path) -> None:
        self.host, self.neighbour = Host("bare", directory), Host("beyond-bare", directory)
        wire(self.host, self.neighbour)
        self.host.sysctl("net.ipv4.ip_forward", "1")
        for words in ("link add br0 type bridge", "addr add 10.7.0.1/16 dev br0", "link set br0 up"):
            self.host.ip(*words.split())
        for name, address in (("near", NEAR), ("far", FAR)):
            for words in (
                f"netns add {name}", f"link add {name} type veth peer name eth0 netns {name}",
                f"link set {name} master br0 up", f"-n {name} link set lo up", f"-n {name} addr add {address}/16 dev eth0",
                f"-n {name} link set eth0 up", f"-n {name} route add default via 10.7.0.1",
            ):  # fmt: skip
                self.host.ip(*words.split())
        self.neighbour.ip("route", "add", "10.7.0.0/16", "via", INSIDE)
        self.near, self.far = (inside(self.host, ["ip", "netns", "exec", name]) for name in ("near", "far"))

    def close(self) -> None:
        self.near.close()
        self.far.close()
        self.neighbour.close()
        self.host.close()
