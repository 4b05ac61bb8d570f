"""Networks, containers and endpoints for tests, with no more said than the test is about."""

from __future__ import annotations

from typing import Any

from netengine.engine.state import State
from netengine.model import (
    Attachment,
    BridgeSettings,
    Container,
    ContainerConfig,
    ContainerState,
    Endpoint,
    HostConfig,
    Network,
    Subnet,
)


def network(name: str, identity: str = "", **fields: Any) -> Network:
    """A bridge network with a subnet; its id is its name written out to 64 digits unless given."""
    made = Network(id=identity or _id(name), name=name, driver=fields.pop("driver", "bridge"), created="", **fields)
    if made.driver == "bridge":
        made.bridge = BridgeSettings(link=f"br-{name}"[:15], mac="02:00:00:00:00:01", mtu=1500)
        made.subnets = [Subnet(subnet="10.1.0.0/24", gateway="10.1.0.1")]
    return made


def container(name: str, identity: str = "", *, config: Any = None, host: Any = None, **fields: Any) -> Container:
    """`config` and `host` are the fields of ContainerConfig and HostConfig."""
    return Container(
        id=identity or _id(name),
        name=name,
        created="2025-01-01T00:00:00.000000000Z",
        image="host",
        image_id="sha256:0",
        config=ContainerConfig(**(config or {})),
        host_config=HostConfig(**{"network_mode": "bridge", **(host or {})}),
        **fields,
    )


def running(made: Container) -> Container:
    made.state = ContainerState(status="running", pid=1, started_at="2025-01-01T00:00:00.000000000Z")
    made.sandbox_id = made.sandbox_id or made.id
    return made


def plug(
    made: Container, into: Network, *, link: str = "eth0", gateway: str = "10.1.0.1", priority: int = 0
) -> Endpoint:
    """A live endpoint of the container on the network."""
    endpoint = Endpoint(
        id=_id(f"{made.name}{into.name}"),
        network_id=into.id,
        container_id=made.id,
        sandbox_id=made.sandbox_id,
        address="10.1.0.2/24",
        gateway=gateway,
        mac="02:00:00:00:00:02",
        link=link,
        host_link=f"v{into.name}"[:15],
    )
    made.attachments[into.id] = Attachment(network_id=into.id, gw_priority=priority)
    made.endpoints[into.id] = endpoint
    return endpoint


def state(*things: Network | Container) -> State:
    made = State()
    for thing in things:
        where: dict[str, Any] = made.networks if isinstance(thing, Network) else made.containers
        where[thing.id] = thing
    return made


def _id(name: str) -> str:
    return (name.encode().hex() + "0" * 64)[:64]
