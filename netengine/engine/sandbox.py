"""Sandboxes: from a container and its endpoints to kernel resources, and how endpoints come and go in a live one.

Which endpoint carries the default route, and with it the published ports, is decided here for the sandbox as a whole; what one
endpoint is made of is the driver's business.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from netengine.cluster.records import EndpointRecord
from netengine.drivers import DRIVERS, EndpointContext, endpoint_options
from netengine.drivers.bridge_options import mode
from netengine.drivers.parents import DHCP
from netengine.engine import links, parents, policy_rules
from netengine.engine.core import Core, Operation, new_id
from netengine.engine.overlay import fabric
from netengine.engine.overlay.fabric import Claim
from netengine.engine.ports import PortWish, Ways, reserve, settle, wishes_of
from netengine.engine.state import State
from netengine.errors import Forbidden, Invalid, Unavailable
from netengine.ipam import random_mac, steady_mac
from netengine.kernel.hostports import has_ipv6
from netengine.kernel.plan import is_ipv6_of
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


def gateway_network(state: State, container: Container, version: Literal[4, 6] = 4, without: str = "") -> str:
    """The id of the network that carries the sandbox's default route of a family, or "". One can be left out of account.

    Docker's order of preference: the priority that was given, then networks with both families, then the name.
    """
    candidates = []
    for network_id, endpoint in container.endpoints.items():
        network = state.networks[network_id]
        driver = DRIVERS[network.driver]
        address, gateway = _of_family(endpoint, version)
        if network_id == without or network.internal or not address or (driver.has_next_hop(network) and not gateway):
            continue
        one_family = not (endpoint.address and endpoint.address6)
        wish = container.attachments.get(network_id)  # none where nobody asked for it: docker_gwbridge
        candidates.append((-wish.gw_priority if wish else 0, one_family, network.name, network_id))
    return min(candidates)[-1] if candidates else ""


def _of_family(endpoint: Endpoint, version: Literal[4, 6]) -> tuple[str, str]:
    """(address, gateway) of an endpoint in one family."""
    return (endpoint.address, endpoint.gateway) if version == 4 else (endpoint.address6, endpoint.gateway6)


def has_way_out(state: State, container: Container, without: str = "") -> bool:
    """Whether the sandbox has a default route, of whichever family; that by one of its networks can be left out of account."""
    return any(gateway_network(state, container, version, without) for version in (4, 6))


def refuses_ipv6(container: Container, link: str) -> bool:
    """Whether its owner has switched IPv6 off in the sandbox, or on that link of it, with --sysctl."""
    return any(
        value.strip() == "1" and name.startswith("net.") and path_of(name) in _ipv6_switches(link)
        for name, value in (container.host_config.sysctls or {}).items()
    )


def _refuses_ipv6(container: Container, endpoint: Endpoint) -> bool:
    asked = endpoint_options.sysctls(endpoint).get(f"net/ipv6/conf/{endpoint.link}/disable_ipv6")
    return refuses_ipv6(container, endpoint.link) if asked is None else asked == "1"


def _ipv6_switches(link: str) -> tuple[str, ...]:
    return tuple(f"net/ipv6/conf/{which}/disable_ipv6" for which in ("all", link))


def needs_names(state: State, container: Container) -> bool:
    """Whether the sandbox has a name server: on user-defined networks, as Docker's embedded one."""
    live = (state.networks[n] for n in container.endpoints)
    return bool(container.sandbox_id) and owns_sandbox(container) and any(not n.predefined for n in live)


def servers_of(state: State, container: Container) -> tuple[str, ...]:
    """Name servers that are asked from the sandbox, as Docker's: the container's, else those that a DHCP server told it, else
    daemon.json's. Without any, the host's are asked from the host."""
    told = (server for e in container.endpoints.values() if e.dhcp for server in e.dhcp.servers)
    return tuple(container.host_config.dns or dict.fromkeys(told) or state.name_servers)


def render(state: State, container: Container) -> frozenset[Resource]:
    """Everything in the kernel that exists because of this container's sandbox."""
    if not container.sandbox_id:
        return frozenset()
    out: set[Resource] = {NamespaceAlias(container.name, container.sandbox_id)}
    if not owns_sandbox(container):
        return frozenset(out)
    ns = container.sandbox_id
    out |= {Namespace(ns), LinkUp(ns, "lo")}
    if needs_names(state, container):
        families: set[Literal[4, 6]] = {6 if ":" in server else 4 for server in servers_of(state, container)}
        out.add(NameService(ns, own_servers=tuple(sorted(families))))
    gateway, gateway6 = gateway_network(state, container), gateway_network(state, container, 6)
    for network_id, endpoint in container.endpoints.items():
        network = state.networks[network_id]
        if network.overlay is not None and not state.fabric.is_possible(network):
            continue  # until it is again
        is_gateway = network_id == gateway
        context = EndpointContext(
            is_gateway,
            tuple(container.ports),
            is_gateway6=network_id == gateway6,
            relays_ipv6=is_gateway and not gateway6,
            underlay=state.fabric.underlay,
        )
        rendered = DRIVERS[network.driver].render_endpoint(network, endpoint, context)
        out |= endpoint_options.over(rendered, endpoint_options.render(network, endpoint))
    out |= fabric.of_sole_user(state.fabric, state.networks, state.containers, container)
    out |= links.render(state, container)
    out |= policy_rules.of_container(state, container)
    # What the container's owner says of a link comes before what the driver says.
    rendered = endpoint_options.over(out, {Sysctl(ns, path, value) for path, value in _sysctls(container).items()})
    without = {(ns, e.link) for n, e in container.endpoints.items() if state.fabric.lacks_ipv6(state.networks[n])}
    return frozenset(r for r in rendered if not is_ipv6_of(r, without)) if without else rendered


def _sysctls(container: Container) -> dict[str, str]:
    """The network sysctls that were asked for, by path."""
    given = (container.host_config.sysctls or {}).items()
    return {path_of(name): value for name, value in given if name.startswith("net.")}


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
    core: Core,
    operation: Operation,
    container: Container,
    network: Network,
    wish: Attachment,
    claim: Claim | None = None,
) -> Endpoint:
    """An endpoint with its address leased, put among the container's; taken back when the operation fails. On an overlay
    network it is the one that was claimed."""
    parents.admit(core.state, network)
    if network.overlay is not None and claim is None:
        raise Unavailable(f"network {network.name} has come to {container.name} meanwhile: try again")
    identity = claim.record.id if claim else new_id()
    endpoint = Endpoint(
        id=identity,
        network_id=network.id,
        container_id=container.id,
        sandbox_id=container.sandbox_id,
        host_link=f"veth{identity[:7]}",
    )
    if DRIVERS[network.driver].has_addresses:
        options = endpoint_options.parse(wish.driver_opts)
        endpoint.link = options.link or free_link(container, endpoint_options.link_prefix(network))
        endpoint.sysctls = dict(options.sysctls)
        endpoint.rate_in, endpoint.rate_out = options.rate_in, options.rate_out
        endpoint.link_local = [_link_local(core.state, network, text) for text in wish.link_local_ips]
        if claim is not None:
            _give_claimed(operation, network, endpoint, claim.record, ipv6=not _refuses_ipv6(container, endpoint))
        else:
            _give_addresses(core, operation, network, wish, endpoint, ipv6=not _refuses_ipv6(container, endpoint))
        if claim is None and DRIVERS[network.driver].has_own_mac(network):
            _give_mac(operation, network, wish, endpoint)
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


def _give_addresses(
    core: Core, operation: Operation, network: Network, wish: Attachment, endpoint: Endpoint, *, ipv6: bool
) -> None:
    """Lease an address of each family that the network and the sandbox have, and say whom it goes out through."""
    settings = network.bridge
    leads_out = not network.internal and DRIVERS[network.driver].has_next_hop(network)
    if network.enable_ipv4 and network.ipam_driver != DHCP:
        endpoint.address, gateway = _leased(core, operation, network, endpoint, 4, wish.ip)
        endpoint.gateway = ((settings and settings.container_gateway) or gateway) if leads_out else ""
    asked = [wish.ip6, *(text for text in wish.link_local_ips if ":" in text)]
    if any(asked) and not ipv6:
        raise Invalid(
            f"cannot use {' '.join(asked).strip()}: a sysctl of the container disables IPv6 on {endpoint.link}"
        )
    if network.enable_ipv6 and ipv6:
        endpoint.address6, gateway = _leased(core, operation, network, endpoint, 6, wish.ip6)
        endpoint.gateway6 = ((settings and settings.container_gateway6) or gateway) if leads_out else ""


def _give_claimed(
    operation: Operation, network: Network, endpoint: Endpoint, record: EndpointRecord, *, ipv6: bool
) -> None:
    """What the cluster has given this endpoint. It is leased here too, and so written down and shown like any other."""
    endpoint.mac = record.mac
    endpoint.address, endpoint.address6 = record.address, record.address6 if ipv6 else ""
    if endpoint.address:
        operation.lease(network, endpoint.id, 4, endpoint.ip)
    if endpoint.address6:
        operation.lease(network, endpoint.id, 6, endpoint.ip6)


def _give_mac(operation: Operation, network: Network, wish: Attachment, endpoint: Endpoint) -> None:
    """The MAC that a user wants; on a bridge of ours the one that goes with the address; else any.

    Where all MACs go with addresses, a new one is nothing that a neighbour must be told. Not so by IPv6, whose addresses have
    the MAC of whichever IPv4 address they came with.
    """
    settings = network.bridge
    if wish.mac or not endpoint.address or settings is None:
        endpoint.mac = wish.mac or random_mac()
    else:
        endpoint.mac = steady_mac(network.id, endpoint.ip)
    if settings is None or not settings.steady_macs:
        return
    if wish.mac:
        settings.steady_macs = False
        operation.change(lambda: setattr(settings, "steady_macs", True))
        operation.put(network)
    told = endpoint_options.ANNOUNCEMENTS in network.options or endpoint_options.INTERVAL in network.options
    endpoint.steady_mac = settings.steady_macs and not (told or endpoint.address6 or endpoint.link_local)


def _leased(
    core: Core, operation: Operation, network: Network, endpoint: Endpoint, version: Literal[4, 6], wanted: str
) -> tuple[str, str]:
    """An address in CIDR and the gateway of its subnet."""
    wanted = wanted or core.addresses.recall(network.id, endpoint.container_id, version)
    address = operation.lease(network, endpoint.id, version, wanted)
    prefixlen, gateway = core.addresses.subnet_of(network.id, address)
    return f"{address}/{prefixlen}", gateway


async def settle_ports(core: Core, operation: Operation, container: Container) -> None:
    """Take the container's published ports when it has got a way out, and forget them when it has lost it."""
    before = list(container.ports)
    wishes = wishes_of(container)
    if not before and not wishes:
        return
    ways = await _ways(core, container)
    if not ways:
        container.ports = []
    else:
        container.ports = await settle(operation, before, wishes, ways)
    if container.ports != before:
        operation.change(lambda: setattr(container, "ports", before))


async def _ways(core: Core, container: Container) -> Ways:
    """How packets come in from the host: through the network of the default route of each family."""
    bridge = bridge_of(core.state, gateway_network(core.state, container))
    bridge6 = bridge_of(core.state, gateway_network(core.state, container, 6))
    return Ways(
        ip=mode(bridge, "ip") if bridge else "",
        ip6=mode(bridge6, "ip6") if bridge6 else "",
        default=next((b.host_binding for b in (bridge, bridge6) if b and b.host_binding), str(core.config.ip)),
        listens6=await core.briefly(has_ipv6),
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
    taken = await reserve(operation, wishes, await _ways(core, container))
    container.ports = [*before, *taken]
    operation.change(lambda: setattr(container, "ports", before))
    return taken


def drop_endpoint(core: Core, operation: Operation, container: Container, network_id: str) -> Endpoint:
    """Take an endpoint out of the model and give its address back when the operation finishes."""
    endpoint = container.endpoints.pop(network_id)
    operation.change(lambda: container.endpoints.__setitem__(network_id, endpoint))
    if core.state.networks[network_id].overlay is not None:
        core.state.fabric.leaving |= {(network_id, address) for address in (endpoint.ip, endpoint.ip6) if address}
    operation.release(network_id, (endpoint.ip, endpoint.ip6), endpoint.id)
    return endpoint
