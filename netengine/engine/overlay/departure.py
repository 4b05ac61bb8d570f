"""How a host's overlay networks end when it leaves its cluster: with all that is on them, in one operation.

Nobody can come to a network in between, and the database has networks and endpoints, or none of them. The cluster's store is
not asked: that is `claims`' business.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from netengine.engine import rendering, sandbox
from netengine.engine.core import Core, Operation
from netengine.engine.overlay import fabric, gateway
from netengine.errors import NetengineError
from netengine.kernel.resources import Resource
from netengine.model import Container, Endpoint, Network

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Departed:
    """An endpoint that is gone."""

    container: Container
    network: Network
    endpoint: Endpoint


async def forget_all(core: Core) -> tuple[list[Network], list[Departed]]:
    """Forget the overlay networks, and take every container off them. What the kernel refuses is left to healing: the model has
    it no more. Raises what the database refuses; then nothing has changed."""
    state = core.state
    async with core.operation("leave the cluster") as operation:
        networks = {n.id: n for n in state.networks.values() if n.overlay is not None}
        concerned = [
            c for c in state.containers.values() if networks.keys() & (c.attachments.keys() | c.endpoints.keys())
        ]
        had = _of_all(core, networks, concerned)
        gone: list[Departed] = []
        for container in concerned:
            gone += await _take_off(core, operation, container, networks)
            operation.put(container)
        for network in networks.values():
            operation.forget(network)
        operation.finish()
        for network_id in networks:
            del state.networks[network_id]
            core.addresses.remove(network_id)
            state.fabric.peers.pop(network_id, None)
            state.fabric.named.pop(network_id, None)
        try:
            await operation.apply(_of_all(core, networks, concerned), had)
        except NetengineError as e:
            log.error("what was of overlay networks in the kernel could not be removed in one go, and will be: %s", e)
            core.look_around()
    return list(networks.values()), gone


def _of_all(core: Core, networks: Mapping[str, Network], containers: list[Container]) -> frozenset[Resource]:
    """What of the kernel's may be concerned."""
    state = core.state
    out = set(fabric.common(state.fabric, state.networks, state.containers))
    for network in networks.values():
        out |= rendering.of_network(core, network)
    for container in containers:
        out |= rendering.of_container(core, container)
    return frozenset(out)


async def _take_off(
    core: Core, operation: Operation, container: Container, networks: Mapping[str, Network]
) -> list[Departed]:
    before = dict(container.attachments)
    for network_id in networks:
        container.attachments.pop(network_id, None)
    operation.change(lambda: container.attachments.update(before))
    gone = [
        Departed(container, network, sandbox.drop_endpoint(core, operation, container, network_id))
        for network_id, network in networks.items()
        if network_id in container.endpoints
    ]
    if gone:
        gateway.settle(core, operation, container)
        try:
            await sandbox.settle_ports(core, operation, container)
        except NetengineError as e:
            log.error("container %s loses its published ports with its overlay networks: %s", container.name, e)
            ports, container.ports = container.ports, []
            operation.change(lambda: setattr(container, "ports", ports))
    return gone
