"""What exists, in memory: networks and containers by id, and how a user's reference finds one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeVar

from netengine.engine.overlay.fabric import Fabric
from netengine.errors import Invalid, NotFound
from netengine.model import Container, Network, Policy

T = TypeVar("T", Network, Container)

GATEWAY_BRIDGE = "docker_gwbridge"
"""The network by which containers leave that have overlay networks alone. See engine/overlay/gateway.py."""


def _find(kind: str, objects: dict[str, T], reference: str) -> T | None:
    """Full id, then full name, then a prefix of the id."""
    if reference in objects:
        return objects[reference]
    named = [o for o in objects.values() if o.name == reference]
    if len(named) == 1:
        return named[0]
    if len(named) > 1:
        raise Invalid(f"{kind} {reference} is ambiguous ({len(named)} matches found on name)")
    prefixed = [o for i, o in objects.items() if reference and i.startswith(reference)]
    if len(prefixed) > 1:
        raise Invalid(f"{kind} {reference} is ambiguous ({len(prefixed)} matches found based on ID prefix)")
    return prefixed[0] if prefixed else None


class State:
    """The model in memory. Read freely on the event loop; changed by the engine's operations only."""

    def __init__(self) -> None:
        self.networks: dict[str, Network] = {}
        self.containers: dict[str, Container] = {}
        self.name_servers: tuple[str, ...] = ()
        """Those that daemon.json gives every container, as if by --dns."""
        self.policies: dict[str, Policy] = {}
        self.fabric = Fabric()
        """The other hosts of the cluster."""
        self._found: dict[str, str] = {}
        """Ids of containers by the names that they were found by: a look at each of a thousand takes longer than rendering."""
        self.spare_neighbours: dict[Literal[4, 6], int] = {}
        """Endpoints that may still come before somebody looks whether the kernel has room for their neighbours."""

    def network(self, reference: str) -> Network:
        """Raises NotFound with Docker's text, Invalid when several match."""
        found = _find("network", self.networks, reference)
        if found is None:
            raise NotFound(f"network {reference} not found")
        return found

    def container(self, reference: str) -> Container:
        """Raises NotFound with Docker's text, Invalid when several match."""
        reference = reference.removeprefix("/")
        if (known := self._recalled(reference)) is not None:
            return known
        found = _find("container", self.containers, reference)
        if found is None:
            raise NotFound(f"No such container: {reference}")
        if found.name == reference:
            if len(self._found) > 2 * len(self.containers):
                self._found.clear()  # most of them are gone
            self._found[reference] = found.id
        return found

    def _recalled(self, reference: str) -> Container | None:
        """The container that was found by this name before and still has it: no two have the same."""
        found = self.containers.get(self._found.get(reference, ""))
        return found if found is not None and found.name == reference and reference not in self.containers else None

    def check_there(self, container: Container) -> None:
        """Raise NotFound when the container was removed while its operation waited for its turn."""
        if container.id not in self.containers:
            raise NotFound(f"No such container: {container.name}")

    def network_named(self, name: str) -> Network | None:
        return next((n for n in self.networks.values() if n.name == name), None)

    def container_named(self, name: str) -> Container | None:
        return next((c for c in self.containers.values() if c.name == name), None)

    def attached_to(self, network_id: str) -> Iterable[Container]:
        """Containers with a live endpoint on the network."""
        return [c for c in self.containers.values() if network_id in c.endpoints]

    def sharing(self, container: Container) -> Iterable[Container]:
        """Running containers that joined this one's sandbox (network mode container:X)."""
        return [
            c
            for c in self.containers.values()
            if c.id != container.id and c.running and c.sandbox_id and c.sandbox_id == container.sandbox_id
        ]
