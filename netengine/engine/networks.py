"""Operations on networks: create, remove, prune, connect, disconnect."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from netengine.drivers import DRIVERS, OverlayDriver, endpoint_options
from netengine.drivers.parents import DHCP
from netengine.engine import (
    checks,
    configurations,
    dhcp,
    forwarding,
    parents,
    policy_rules,
    sandbox,
    subnets,
    surroundings,
)
from netengine.engine.core import Core, Operation, new_id, now
from netengine.engine.names import Names
from netengine.engine.overlay import gateway
from netengine.engine.overlay.fabric import Claim
from netengine.engine.overlay.overlay import Overlay
from netengine.engine.requests import ConnectRequest, NetworkRequest
from netengine.errors import Conflict, Forbidden, NotFound
from netengine.ipam import check_ipam_config
from netengine.ipam.rules import IpamConfig, IpamEntry
from netengine.kernel import sysctl, theirs
from netengine.kernel.resources import NameService, Resource
from netengine.model import Attachment, Container, Endpoint, EndpointSettings, Network

log = logging.getLogger(__name__)


class Networks:
    """What can be done with networks. One instance, owned by the engine."""

    def __init__(
        self,
        core: Core,
        names: Names,
        leases: dhcp.Dhcp,
        overlay: Overlay,
        changed: Callable[[Container, Network], None],
    ) -> None:
        """`changed` is told of a container that got or lost an endpoint on a network while it runs."""
        self._core = core
        self._dhcp = leases
        self._overlay = overlay
        self._names = names
        self._changed = changed

    # -- create and remove --------------------------------------------------------------------------------------------

    async def create(self, request: NetworkRequest) -> tuple[Network, str]:
        """A new network and a warning ("" for none)."""
        core = self._core
        if request.driver == OverlayDriver.name or request.scope == "swarm" or request.ingress:
            self._overlay.managing()
        checks.network_request(request)
        if request.driver == OverlayDriver.name:
            return await self._overlay.create(request)
        async with core.operation(f"create network {request.name}") as operation:
            if core.state.network_named(request.name) is not None:
                raise Conflict(f"network with name {request.name} already exists")
            request = configurations.resolve(core.state, request)
            network = Network(
                id=new_id(),
                name=request.name,
                driver=request.driver or "bridge",
                created=now(),
                internal=request.internal,
                attachable=request.attachable,
                config_from=request.config_from.network if request.config_from else "",
                labels=request.labels or {},
                options=subnets.default_options(core.config, request),
                ipam_driver=(request.ipam and request.ipam.driver) or "default",
                ipam_options=(request.ipam.options or {}) if request.ipam else {},
            )
            if request.config_only:
                warning = ""
                configurations.fill(network, request)
            else:
                subnets.families(network, request.enable_ipv4, request.enable_ipv6)
                if network.enable_ipv6 and forwarding.IPV6.table not in core.base:
                    raise Forbidden("this host's kernel has no IPv6, or no nftables for it; leave --ipv6 out")
                warning = await self.settle(network, _entries(request))
                if forwarding.needs_ipv6([network]):
                    await forwarding.turn_on_ipv6(core)
            self._add(network)
            operation.change(lambda: self._remove(network.id))
            operation.put(network)
            await operation.apply(self._resources(network))
        core.events.publish("network", "create", network.id, name=network.name, type=network.driver)
        return network, warning

    async def settle(self, network: Network, entries: list[IpamEntry]) -> str:
        """Decide all that is open about a new network: link, subnet, gateway. Answers a warning."""
        core = self._core
        others = list(core.state.networks.values())
        driver = DRIVERS[network.driver]
        configs = check_ipam_config(entries)
        endpoint_options.check_network(network.options)
        driver.settle(network, others, await surroundings.default_mtu(core))
        if network.bridge is not None:
            network.bridge.direct = core.config.allow_direct_routing
        if not driver.has_addresses:
            return ""
        caution = await parents.settle(core, network)
        if network.ipam_driver == DHCP:
            dhcp.check_network(network, has_subnets=bool(configs))
            return caution
        link = await self._adopt(network)
        if link is not None:
            configs += _of_link(link, network, configs)
        network.subnets, warnings = subnets.choose(
            network,
            configs,
            pools=subnets.pools_of(core.config, core.store.setting("identity") or ""),
            others=others,
            routes=await core.on_kernel(theirs.host_routes, core.kernel),
            adopted=link is not None,
        )
        if network.bridge is not None:
            network.bridge.steady_macs = link is None  # who was on a bridge of somebody else's is not known
        if network.bridge is not None and link is not None:
            has = {str(i.ip) for i in link.addresses}
            network.bridge.has_address = any(s.gateway in has for s in network.subnets if s.version == 4)
            network.bridge.has_address6 = any(s.gateway in has for s in network.subnets if s.version == 6)
        return "; ".join(filter(None, [*warnings, caution]))

    async def _adopt(self, network: Network) -> theirs.Link | None:
        """A link of the wanted name that exists already is the user's: used when it is a bridge, and never changed."""
        settings = network.bridge
        if settings is None:
            return None
        link = await self._core.on_kernel(theirs.find_link, self._core.kernel, settings.link)
        if link is None or link.ours:
            return None
        if link.kind != "bridge":
            raise Forbidden(
                f"cannot create network {network.name}: link {settings.link} exists and is not a bridge "
                f"({link.kind or 'a physical interface'}); choose another com.docker.network.bridge.name"
            )
        if network.enable_ipv6:
            await self._must_have_ipv6(link.name)
        settings.adopted = True
        settings.mtu = link.mtu
        return link

    async def _must_have_ipv6(self, link: str) -> None:
        name = f"net/ipv6/conf/{link}/disable_ipv6"
        if await self._core.on_kernel(sysctl.read, name) != "0":
            raise Forbidden(
                f"bridge {link} has IPv6 disabled, and it is not netengine's to change: "
                f"sysctl -w {name.replace('/', '.')}=0, or leave --ipv6 out"
            )

    def _add(self, network: Network) -> None:
        self._core.addresses.add(network)
        self._core.state.networks[network.id] = network

    def _remove(self, network_id: str) -> None:
        self._core.state.networks.pop(network_id, None)
        self._core.addresses.remove(network_id)

    async def remove(self, reference: str) -> None:
        core = self._core
        network = core.state.network(reference)
        if network.predefined:
            raise Forbidden(f"{network.name} is a pre-defined network and cannot be removed")
        if network.overlay is not None:
            await self._overlay.remove(network)
            return
        async with core.operation(f"remove network {network.name}") as operation:
            if network.id not in core.state.networks:
                raise NotFound(f"network {reference} not found")
            users = core.state.attached_to(network.id)
            if users:
                named = ", ".join(f'name:"{c.name}" id:"{c.endpoints[network.id].id[:12]}"' for c in users)
                raise Forbidden(
                    f"error while removing network: network {network.name} has active endpoints ({named}); "
                    f"disconnect them first, with network disconnect -f"
                )
            configurations.check_unused(core.state, network)
            self._remove(network.id)
            operation.change(lambda: self._add(network))
            for container in core.state.containers.values():
                self._detach(operation, container, network.id)
            operation.forget(network)
            operation.finish()
            await operation.apply((), self._resources(network))
        await self._names.removed(network)
        core.events.publish("network", "destroy", network.id, name=network.name, type=network.driver)

    def _resources(self, network: Network) -> frozenset[Resource]:
        """What comes and goes with the network."""
        state = self._core.state
        return parents.unshared(state, network) | policy_rules.of_network(state, network)

    def _detach(self, operation: Operation, container: Container, network_id: str) -> None:
        """A stopped container forgets a network that is gone."""
        wish = container.attachments.pop(network_id, None)
        if wish is not None:
            operation.change(lambda: container.attachments.__setitem__(network_id, wish))
            operation.put(container)

    # -- connect and disconnect ---------------------------------------------------------------------------------------

    async def connect(self, reference: str, request: ConnectRequest) -> None:
        core = self._core
        network = core.state.network(reference)
        container = core.state.container(request.container)
        settings = request.endpoint_config or EndpointSettings()
        checks.can_connect(core.state, container, network)
        wish = checks.attachment(core, network, settings)
        live = network.overlay is not None and container.running and network.id not in container.endpoints
        claims = await self._overlay.claim(container, [(network, wish)]) if live else {}
        try:
            await self._connect(reference, request, network, container, wish, claims)
        except BaseException:
            await asyncio.shield(self._overlay.give_up(claims))
            raise
        self._overlay.keep(claims)

    async def _connect(
        self,
        reference: str,
        request: ConnectRequest,
        network: Network,
        container: Container,
        wish: Attachment,
        claims: Mapping[str, Claim],
    ) -> None:
        core = self._core
        endpoint = told = None
        try:
            async with core.operation(f"connect {container.name} to {network.name}") as operation:
                if network.id not in core.state.networks:
                    raise NotFound(f"network {reference} not found")
                if container.id not in core.state.containers:
                    raise NotFound(f"No such container: {request.container}")
                if network.id in container.endpoints:
                    raise Forbidden(f"endpoint with name {container.name} already exists in network {network.name}")
                before = container.attachments.get(network.id)
                container.attachments[network.id] = wish
                operation.change(lambda: _restore(container.attachments, network.id, before))
                operation.put(container)
                checks.link_names(container.attachments.values(), container)
                if container.running and container.sandbox_id:
                    surroundings.room_on(core.state, network)
                    if warning := await surroundings.room_for_neighbours(core, 1):
                        log.warning("connecting %s to %s: %s", container.name, network.name, warning)
                    rendered = sandbox.render(core.state, container)
                    endpoint = sandbox.build_endpoint(core, operation, container, network, wish, claims.get(network.id))
                    gateway.settle(core, operation, container)
                    await sandbox.settle_ports(core, operation, container)
                    operation.commit()
                    wanted = sandbox.render(core.state, container)
                    # The name server hears of it while the kernel is at work. What it needs to be reached by comes first, where
                    # that takes no way into the sandbox of its own.
                    if not _has_names(rendered):
                        ready = rendered | {r for r in wanted if isinstance(r, NameService)}
                        if ready != rendered and core.kernel.is_brief(ready, rendered):
                            await operation.apply(ready, rendered)
                            rendered = ready
                    if _has_names(rendered):
                        told = self._names.opened(container)
                    await operation.apply(wanted, rendered)
                    told = told or self._names.opened(container)
        except BaseException:
            if endpoint is not None and told is not None:
                for word in (told, self._names.left(container, network, endpoint.id)):
                    core.background(asyncio.create_task(word, name="names of one who did not come"))
            raise
        if endpoint is not None and told is not None:
            await told
            try:
                await self._dhcp.bind(container)
            except BaseException:
                await asyncio.shield(self.disconnect(network.id, container.id, force=True))
                raise
            self._changed(container, network)
            core.announce(network, container, endpoint)
            core.publish_network("connect", network, container)

    async def disconnect(self, reference: str, container_reference: str, force: bool) -> None:
        core = self._core
        network = core.state.network(reference)
        container = core.state.container(container_reference)
        if network.driver == "host" and container.host_config.network_mode == "host":
            raise Forbidden(
                "cannot disconnect container from host network - container was created in host network mode"
            )
        await self._dhcp.release(container, network.id)
        endpoint = told = None
        try:
            async with core.operation(f"disconnect {container.name} from {network.name}") as operation:
                if network.id not in container.attachments and network.id not in container.endpoints:
                    raise Forbidden(f"container {container.id} is not connected to network {network.name}")
                rendered = sandbox.render(core.state, container)
                container.attachments.pop(network.id, None)
                operation.put(container)
                if network.id in container.endpoints:
                    endpoint = sandbox.drop_endpoint(core, operation, container, network.id)
                    gateway.settle(core, operation, container)
                    await sandbox.settle_ports(core, operation, container)
                    operation.finish()
                    # The model is without it already: name server and kernel follow at the same time.
                    told = self._names.left(container, network, endpoint.id)
                    await operation.apply(sandbox.render(core.state, container), rendered)
            if endpoint is not None:
                await self._overlay.left()
        except BaseException:
            if told is not None:
                core.background(asyncio.create_task(told, name="names of one who left"))
            raise
        if endpoint is not None and told is not None:
            await told
            self._changed(container, network)
            core.publish_network("disconnect", network, container)

    # -- what a network looks like ------------------------------------------------------------------------------------

    def endpoints(self, network: Network) -> list[tuple[Container, Endpoint]]:
        """The live endpoints on a network with their containers."""
        return [(c, c.endpoints[network.id]) for c in self._core.state.attached_to(network.id)]

    def has_users(self, network: Network) -> bool:
        """Whether a running container is on the network, or another network is made from it."""
        derived = network.config_only and any(n.config_from == network.name for n in self._core.state.networks.values())
        return derived or bool(self._core.state.attached_to(network.id))


def _entries(request: NetworkRequest) -> list[IpamEntry]:
    configs = (request.ipam.config or []) if request.ipam else []
    return [IpamEntry(c.subnet, c.ip_range, c.gateway, c.auxiliary_addresses or {}) for c in configs]


def _of_link(link: theirs.Link, network: Network, configs: tuple[IpamConfig, ...]) -> tuple[IpamConfig, ...]:
    """The subnets of a bridge that is used as it is found, for the families of the network that have no subnet among
    `configs`: its own addresses are the gateways."""
    wanted = {4} if network.enable_ipv4 else set()
    wanted |= {6} if network.enable_ipv6 else set()
    wanted -= {c.subnet.version for c in configs}
    found: dict[int, IpamConfig] = {}
    for interface in link.addresses:
        if interface.version in wanted and not interface.is_link_local:
            found.setdefault(interface.version, IpamConfig(subnet=interface.network, gateway=interface.ip))
    return tuple(found.values())


def _has_names(rendered: frozenset[Resource]) -> bool:
    return any(isinstance(r, NameService) for r in rendered)


def _restore(attachments: dict[str, Attachment], network_id: str, before: Attachment | None) -> None:
    if before is None:
        attachments.pop(network_id, None)
    else:
        attachments[network_id] = before
