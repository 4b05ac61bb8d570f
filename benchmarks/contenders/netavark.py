"""Podman's netavark, without its name server."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from benchmarks.contenders.base import FIRST_PORT, Contender, address, namespaces, run

PROGRAM = Path("/usr/lib/podman/netavark")


class Netavark(Contender):
    name = "netavark"

    @staticmethod
    def missing() -> str:
        if not PROGRAM.exists() or not shutil.which("iptables"):
            return "netavark: not installed (Debian: netavark and iptables)"
        return ""

    def prepare(self, count: int) -> None:
        namespaces(count)
        self._ports: dict[int, int] = {}

    def attach(self, n: int) -> None:
        self._call("setup", n)

    def port(self, n: int) -> None:
        self._ports[n] = FIRST_PORT + n
        self._call("setup", n)

    def detach(self, n: int) -> None:
        self._call("teardown", n)

    def _call(self, verb: str, n: int) -> None:
        network = {
            "name": "bench", "id": "b" * 64, "driver": "bridge", "network_interface": "podman9", "internal": False,
            "ipv6_enabled": False, "dns_enabled": False, "ipam_options": {"driver": "host-local"},
            "subnets": [{"subnet": "10.89.0.0/16", "gateway": "10.89.0.1"}],
        }  # fmt: skip
        asked: dict[str, Any] = {
            "container_id": f"c{n}", "container_name": f"c{n}", "network_info": {"bench": network},
            "networks": {"bench": {"static_ips": [address(n, "10.89")], "interface_name": "eth0"}},
        }  # fmt: skip
        if n in self._ports:
            mapping = {"host_ip": "", "host_port": self._ports[n], "container_port": 80, "protocol": "tcp", "range": 1}
            asked["port_mappings"] = [mapping]
        argv = [str(PROGRAM), "--config", "/run", verb, f"/run/netns/ns{n}"]
        run(argv, stdin=json.dumps(asked).encode())
