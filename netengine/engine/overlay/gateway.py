"""docker_gwbridge: the way out of sandboxes whose networks lead nowhere but to other hosts.

A bridge network of this host, made when it is first needed, and kept: another container will need it. It is no network that a
container was connected to, so it is not shown among a container's, and has no names. Containers on it do not reach each other.
"""

from __future__ import annotations

from netengine.drivers.bridge import ICC, MASQUERADE, NAME
from netengine.engine import sandbox
from netengine.engine.core import Core, Operation
from netengine.engine.requests import NetworkRequest
from netengine.engine.state import GATEWAY_BRIDGE, State
from netengine.model import Attachment, Container, Network


def request() -> NetworkRequest:
    """What it is made of, when the user has not made it otherwise before."""
    options = {NAME: GATEWAY_BRIDGE, ICC: "false", MASQUERADE: "true"}
    return NetworkRequest(name=GATEWAY_BRIDGE, driver="bridge", options=options)


def may_be_needed(networks: list[Network]) -> bool:
    """Whether a container on these networks has no way out but by the bridge."""
    return any(n.overlay is not None and not n.internal for n in networks)


def find(state: State) -> Network | None:
    return next((n for n in state.networks.values() if n.name == GATEWAY_BRIDGE and n.bridge is not None), None)


def settle(core: Core, operation: Operation, container: Container) -> None:
    """Connect a sandbox to the bridge, or disconnect it, after its other endpoints have come or gone."""
    bridge = find(core.state)
    if bridge is None or bridge.id in container.attachments:
        return
    others = [core.state.networks[n] for n in container.endpoints if n != bridge.id]
    needed = may_be_needed(others) and not sandbox.has_way_out(core.state, container, without=bridge.id)
    if needed and bridge.id not in container.endpoints:
        sandbox.build_endpoint(core, operation, container, bridge, Attachment(network_id=bridge.id))
    elif not needed and bridge.id in container.endpoints:
        sandbox.drop_endpoint(core, operation, container, bridge.id)
