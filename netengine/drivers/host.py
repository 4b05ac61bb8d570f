"""The driver of the network `host`: the container runs in the host's own network namespace; nothing is built."""

from __future__ import annotations

from netengine.drivers.null import NullDriver


class HostDriver(NullDriver):
    name = "host"
