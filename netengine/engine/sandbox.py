"""Sandboxes: from a container and its endpoints to kernel resources, and how endpoints come and go in a live one.

Which endpoint carries the default route, and with it the published ports, is decided here for the sandbox as a whole; what one
endpoint is made of is the driver's business.
"""

from __future__ import annotations

from collections.abc import Iterable

from netengine.drivers import DRIVERS, EndpointContext, endpoint_options
from netengine.drivers.bridge_options import mode
from netengine.engine import links, parents
from netengine.engine.core import Core, Operation, new_id
from netengine.engine.ports import PortWish, Ways, reserve, wishes_of
from netengine.engine.state import State
from netengine.errors import Forbidden
from netengine.ipam import random_mac
from netengine.kernel.resources import LinkUp, NameService, Namespace, NamespaceAlias, Resource, Sysctl
from netengine.kernel.sysctl import path_of
from netengine.model import Attachment, BridgeSettings, Container, Endpoint, Network, PublishedPort


def joins_mode(network_mode: str) -> str:
    """X of the network mode container:X, or ""."""
    kind, _, target = network_mode.partition(":")
    return target if kind == "container" else ""


def joins(container: Container) -> str:
    """The container whose sandbox this one shares, or ""."""
    return joins_mode(container.host_config.network_mode)


def owns_sandbox(container: Container) -> bool:
    """Whether the container has a network namespace of its own while it runs."""
    return container.host_config.network_mode != "host" and not joins(container)


def gateway_network(state: State, container: Container) -> str:
    """The id of the network that carries the sandbox's default route, or "": Docker's order of preference."""
    candidates = []
    for network_id, endpoint in container.endpoints.items():
        network = state.networks[network_id]
        if network.internal or (DRIVERS[network.driver].has_next_hop(network) and not endpoint.gateway):
            continue
        candidates.append((-container.attachments[network_id].gw_priority, network.name, network_id))
    return min(candidates)[2] if candidates else ""


def needs_names(state: State, container: Container) -> bool:
    """Whether the sandbox has a name server: on user-defined networks, as Docker's embedded one."""
    live = (state.networks[n] for n in container.endpoints)
    return bool(container.sandbox_id) and owns_sandbox(container) and any(not n.predefined for n in live)


def render(state: State, container: Container) -> frozenset[Resource]:
    """Everything in the kernel that exists because of this container's sandbox."""
    if not container.sandbox_id:
        return frozenset()
    out: set[Resource] = {NamespaceAlias(container.name, container.sandbox_id)}
    if not owns_sandbox(container):
        return frozenset(out)
    ns = container.sandbox_id
    out |= {Namespace(ns), LinkUp(ns, "lo")}
    for name, value in (container.host_config.sysctls or {}).items():
        if name.startswith("net."):
            out.add(Sysctl(ns, path_of(name), value))
    if needs_names(state, container):
        out.add(NameService(ns, own_servers=bool(container.host_config.dns)))
    gateway = gateway_network(state, container)
    for network_id, endpoint in container.endpoints.items():
        network = state.networks[network_id]
        is_gateway = network_id == gateway
        context = EndpointContext(is_gateway, tuple(container.ports))
        rendered = DRIVERS[network.driver].render_endpoint(network, endpoint, context)
        out |= endpoint_options.over(rendered, endpoint_options.render(network, endpoint))
    return frozenset(out | links.render(state, container))


def start_order(state: State, container: Container) -> Iterable[str]:
    """Network ids in the order in which interfaces are numbered: the default bridge, the network of the network mode, the
    others by name."""

    def rank(network_id: str) -> tuple[int, str]:
        network = state.networks[network_id]
        if network.name == "bridge":
            return 0, ""
        if container.host_config.network_mode in (network.name, network.id):
            return 1, ""
        return 2, network.name

    return sorted(container.attachments, key=rank)


def free_link(container: Container, prefix: str = endpoint_options.DEFAULT_PREFIX) -> str:
    """The lowest ethN that is free in the sandbox, and that no endpoint to come is to have."""
    used = {e.link for e in container.endpoints.values()}
    used |= {endpoint_options.parse(wish.driver_opts).link for wish in container.attachments.values()}
    return next(name for name in (f"{prefix}{n}" for n in range(len(used) + 1)) if name not in used)


def build_endpoint(
    core: Core, operation: Operation, container: Container, network: Network, wish: Attachment
) -> Endpoint:
    """An endpoint with its address leased, put among the container's; taken back when the operation fails."""
    parents.admit(core.state, network)
    identity = new_id()
    endpoint = Endpoint(
        id=identity,
        network_id=network.id,
        container_id=container.id,
        sandbox_id=container.sandbox_id,
        host_link=f"veth{identity[:7]}",
    )
    if DRIVERS[network.driver].has_addresses:
        address = operation.lease(network, identity, wish.ip)
        endpoint.address = f"{address}/{core.addresses.prefixlen(network.id, address)}"
        if not network.internal and DRIVERS[network.driver].has_next_hop(network):
            endpoint.gateway = (network.bridge and network.bridge.container_gateway) or core.addresses.gateway(
                network.id, address
            )
        if DRIVERS[network.driver].has_own_mac(network):
            endpoint.mac = wish.mac or random_mac()
        options = endpoint_options.parse(wish.driver_opts)
        endpoint.link = options.link or free_link(container, endpoint_options.link_prefix(network))
        endpoint.sysctls = dict(options.sysctls)
        endpoint.link_local = [_link_local(core.state, network, text) for text in wish.link_local_ips]
    container.endpoints[network.id] = endpoint
    operation.change(lambda: container.endpoints.pop(network.id, None))
    return endpoint


def _link_local(state: State, network: Network, text: str) -> str:
    """No pool hands these out, so nobody else sees to it that each has one owner."""
    interface = endpoint_options.link_local(text)
    for other in state.attached_to(network.id):
        if interface in other.endpoints[network.id].link_local:
            raise Forbidden(f"Address already in use ({text} is held by container {other.name} on {network.name})")
    return interface


async def settle_ports(core: Core, operation: Operation, container: Container) -> None:
    """Take the container's published ports when it has got a way out, and forget them when it has lost it."""
    before = list(container.ports)
    ways = _ways(core, container)
    if not ways:
        container.ports = []
    elif not container.ports:
        container.ports = await reserve(operation, wishes_of(container), ways)
    if container.ports != before:
        operation.change(lambda: setattr(container, "ports", before))


def _ways(core: Core, container: Container) -> Ways:
    """How packets come in from the host: through the network of the default route of each family."""
    bridge = bridge_of(core.state, gateway_network(core.state, container))
    return Ways(
        ip=mode(bridge, "ip") if bridge else "",
        default=(bridge.host_binding if bridge else "") or str(core.config.ip),
    )


def bridge_of(state: State, network_id: str) -> BridgeSettings | None:
    """The bridge whose rules lead ports of the host to this network's endpoints."""
    network = state.networks.get(network_id)
    return network.bridge if network and DRIVERS[network.driver].publishes_ports else None


async def take_ports(
    core: Core, operation: Operation, container: Container, wishes: list[PortWish]
) -> list[PublishedPort]:
    """Take more ports for a container that has a way out; taken back when the operation fails."""
    before = container.ports
    taken = await reserve(operation, wishes, _ways(core, container))
    container.ports = [*before, *taken]
    operation.change(lambda: setattr(container, "ports", before))
    return taken


def drop_endpoint(core: Core, operation: Operation, container: Container, network_id: str) -> Endpoint:
    """Take an endpoint out of the model and give its address back when the operation finishes."""
    endpoint = container.endpoints.pop(network_id)
    operation.change(lambda: container.endpoints.__setitem__(network_id, endpoint))
    operation.release(network_id, endpoint.ip, endpoint.id)
    return endpoint
