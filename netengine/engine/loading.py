"""The model read from the store at the start of the daemon, as far as it is sound.

What a disk, another version or a person damaged costs the object that it damaged: that one is left out and said so, and stays
in the store as it is. Nothing of the kernel here.
"""

from __future__ import annotations

import logging

from netengine.drivers import DRIVERS
from netengine.engine import checkup, sandbox
from netengine.engine.core import Core
from netengine.engine.overlay import gateway
from netengine.engine.state import GATEWAY_BRIDGE
from netengine.errors import NetengineError
from netengine.model import Attachment, Container, Network, Policy

log = logging.getLogger(__name__)

_STATUSES = ("created", "running", "paused", "exited")


def load(core: Core) -> None:
    """Fill the state and the address pools; leases in the store follow the endpoints."""
    for intent in core.store.intents():
        log.warning("rolled back what was under way when the daemon ended: %s", intent.what)
        with core.store.transaction() as t:
            t.finish(intent)
    networks(core)
    stored = core.store.ids("network")
    for container in core.store.load("container", Container):
        _add_container(core, container, stored)
    for policy in core.store.load("policy", Policy):
        core.state.policies[policy.id] = policy
    for network_id, address, owner in checkup.leases_wanted(core):
        core.addresses.restore(network_id, address, owner)
    for problem in checkup.mend_store(core):
        log.error("leases in the store could not be put right: %s", problem)


def networks(core: Core) -> None:
    """Fill the networks of the state and their address pools."""
    for network in core.store.load("network", Network):
        if network.id in core.state.networks:
            continue  # of the cluster, which knows better
        if network.bridge is not None:  # of today's configuration, not of its first day's
            network.bridge.direct = core.config.allow_direct_routing
        _add_network(core, network)


def _add_network(core: Core, network: Network) -> None:
    if problem := open_pools(core, network):
        log.error("network %s in the store is damaged and left out: %s", network.name, problem)
        return
    core.state.networks[network.id] = network


def open_pools(core: Core, network: Network) -> str:
    """Open the address pools of a network as it was found, and see whether its driver can make something of it; what is wrong
    with it, "" for nothing."""
    try:
        core.addresses.add(network)
        DRIVERS[network.driver].render_network(network)
    except Exception as error:  # whatever a field of the wrong kind breaks
        core.addresses.remove(network.id)
        return f"{type(error).__name__}: {error}"
    return ""


def _add_container(core: Core, container: Container, stored: set[str]) -> None:
    lost = [n for n in dict.fromkeys([*container.attachments, *container.endpoints]) if n not in core.state.networks]
    for network_id in lost:
        container.attachments.pop(network_id, None)
        endpoint = container.endpoints.pop(network_id, None)
        had = f" and gives up {' and '.join(filter(None, (endpoint.ip, endpoint.ip6)))} there" if endpoint else ""
        log.error("container %s forgets network %s, which is not in the store%s", container.name, network_id[:12], had)
    if lost:
        _leave_gateway(core, container)
    for network_id in container.endpoints:
        if core.state.networks[network_id].name != GATEWAY_BRIDGE:
            container.attachments.setdefault(network_id, Attachment(network_id=network_id))
    if container.state.status not in _STATUSES:
        log.error("container %s has the unknown status %r: taken for exited", container.name, container.state.status)
        container.state.status = "exited"
    core.state.containers[container.id] = container
    try:
        sandbox.render(core.state, container)
    except Exception as error:
        del core.state.containers[container.id]
        log.error(
            "container %s in the store is damaged and left out: %s: %s", container.name, type(error).__name__, error
        )
        return
    if lost and not stored & set(lost):  # a network that is only damaged may yet be read by another version
        _store(core, container)


def _leave_gateway(core: Core, container: Container) -> None:
    """A container that is on docker_gwbridge because of a network that is gone leaves it, and its ports with it."""
    bridge = gateway.find(core.state)
    if bridge is not None and bridge.id not in container.attachments:
        others = [core.state.networks[n] for n in container.endpoints if n != bridge.id]
        if not gateway.may_be_needed(others) and container.endpoints.pop(bridge.id, None) is not None:
            log.warning("container %s leaves %s: no network of it needs that", container.name, bridge.name)
    if container.ports and not sandbox.has_way_out(core.state, container):
        log.warning("container %s loses its published ports: it has no way out any more", container.name)
        container.ports = []


def _store(core: Core, container: Container) -> None:
    try:
        with core.store.transaction() as t:
            t.put("container", container.id, container)
    except NetengineError as e:  # it is known in memory, and found again at the next start
        log.error("what container %s has lost cannot be written down: %s", container.name, e)
