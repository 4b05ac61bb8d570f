"""Making the hosts of a lab one cluster: what a person would do with `docker swarm init` and `join`, over the same API."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import Any

from netengine.errors import KernelRefused
from netengine.lab.record import Record

_PATIENCE = 120.0
"""Seconds for one call: a manager's etcd takes its time on a busy machine."""


def form(record: Record, managers: int) -> None:
    """The first host begins a cluster; the others join it one after the other, `managers` in all as managers."""
    first, *others = record.hosts
    _call(record, first, "POST", "/swarm/init", {"AdvertiseAddr": record.hosts[first].address})
    tokens = _call(record, first, "GET", "/swarm")["JoinTokens"]
    for number, name in enumerate(others, start=2):
        wanted = {
            "RemoteAddrs": [record.hosts[first].address],
            "JoinToken": tokens["Manager" if number <= managers else "Worker"],
            "AdvertiseAddr": record.hosts[name].address,
        }
        _call(record, name, "POST", "/swarm/join", wanted)


def _call(record: Record, name: str, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """Ask a host's daemon. Raises KernelRefused with its words."""
    connection = _Connection(record.socket(name))
    try:
        raw = None if body is None else json.dumps(body)
        connection.request(method, path, raw, {"Content-Type": "application/json"} if raw else {})
        answer = connection.getresponse()
        text = answer.read()
        found = json.loads(text) if text.strip() else None
    except (OSError, ValueError, http.client.HTTPException) as e:
        raise KernelRefused(f"the daemon of {name} does not answer {method} {path}: {e}") from e
    finally:
        connection.close()
    if answer.status >= 400:
        message = found.get("message", found) if isinstance(found, dict) else found
        raise KernelRefused(f"{name}: {message}")
    return found


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_PATIENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_PATIENCE)
        self.sock.connect(str(self._path))
