"""The CNI reference plugins, executed as a container runtime does."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from benchmarks.contenders.base import FIRST_PORT, Contender, namespaces, run

PLUGINS = Path("/usr/lib/cni")
NETWORK: dict[str, Any] = {"cniVersion": "0.4.0", "name": "bench"}
BRIDGE: dict[str, Any] = {
    "type": "bridge", "bridge": "cni0", "isGateway": True, "isDefaultGateway": True, "ipMasq": True, "hairpinMode": True,
    "ipam": {"type": "host-local", "subnet": "10.88.0.0/16", "dataDir": "/run/cni-bench"},
}  # fmt: skip


class CniPlugins(Contender):
    """The chain bridge (with host-local) and portmap: masqueraded, as every network of the other contenders is."""

    name = "CNI plugins"

    @staticmethod
    def missing() -> str:
        if not (PLUGINS / "bridge").exists() or not shutil.which("iptables"):
            return "CNI plugins: not installed (Debian: containernetworking-plugins and iptables)"
        return ""

    def prepare(self, count: int) -> None:
        namespaces(count)
        self._ports: dict[int, int] = {}

    def attach(self, n: int) -> None:
        self._chain(n)

    def port(self, n: int) -> None:
        self._ports[n] = FIRST_PORT + n
        self._chain(n)

    def detach(self, n: int) -> None:
        if n in self._ports:
            self._call("DEL", n, "portmap", self._mapping(n))
        self._call("DEL", n, "bridge", BRIDGE)

    def _chain(self, n: int) -> None:
        result = json.loads(self._call("ADD", n, "bridge", BRIDGE))
        if n in self._ports:
            self._call("ADD", n, "portmap", {**self._mapping(n), "prevResult": result})

    def _mapping(self, n: int) -> dict[str, Any]:
        mapping = {"hostPort": self._ports[n], "containerPort": 80, "protocol": "tcp"}
        return {"type": "portmap", "snat": True, "runtimeConfig": {"portMappings": [mapping]}}

    def _call(self, verb: str, n: int, plugin: str, config: dict[str, Any]) -> str:
        env = {
            "CNI_COMMAND": verb, "CNI_CONTAINERID": f"c{n}", "CNI_NETNS": f"/run/netns/ns{n}", "CNI_IFNAME": "eth0",
            "CNI_PATH": str(PLUGINS), "PATH": os.environ["PATH"],
        }  # fmt: skip
        return run([str(PLUGINS / plugin)], env=env, stdin=json.dumps(NETWORK | config).encode())
