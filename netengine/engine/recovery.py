"""The start of the daemon: read the store, see which processes live, make the kernel equal to the model, sweep up the rest.

The same code serves the first start, a restart, a crash and a reboot. Traffic that flows keeps flowing: what is right in the
kernel is not touched.
"""

from __future__ import annotations

import logging
from functools import partial
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network, ip_network

from netengine import firewalls
from netengine.drivers.addresses import MTU
from netengine.drivers.bridge import DEFAULT_BRIDGE, HOST_BINDING, ICC, MASQUERADE, NAME
from netengine.engine import forwarding, loading, policy_rules, reconcile, sandbox, surroundings
from netengine.engine.containers import Containers
from netengine.engine.core import Core, new_id, now, stamp
from netengine.engine.files import EtcFiles
from netengine.engine.networks import Networks
from netengine.engine.overlay import fabric
from netengine.engine.overlay.overlay import Overlay
from netengine.errors import Conflict, NetengineError, NotFound
from netengine.ipam.rules import IpamEntry
from netengine.kernel import namespaces, theirs
from netengine.kernel.resources import Element, HostPort, Resource, Table
from netengine.model import Container, Network
from netengine.runtime import Exited, ExitStatus, Running

log = logging.getLogger(__name__)

Interface = IPv4Interface | IPv6Interface


class Recovery:
    """Brings the engine up. One instance, used once."""

    def __init__(
        self, core: Core, networks: Networks, containers: Containers, files: EtcFiles, overlay: Overlay
    ) -> None:
        self._core = core
        self._overlay = overlay
        self._networks = networks
        self._containers = containers
        self._files = files

    async def run(self) -> None:
        core = self._core
        await core.on_kernel(core.kernel.open)
        await self._overlay.prepare()
        loading.load(core)
        await self._begin_base()
        await self._predefined()
        if self._forwards_ipv6():
            core.base |= await forwarding.base_of(core, forwarding.IPV6)
        await self._reconcile(settled=await self._processes())
        damaged = core.store.set_aside
        kept = damaged.with_name(f"{damaged.name}-containers") if damaged else None
        await core.runtime.cleanup(core.state.containers, kept)
        for container in core.state.containers.values():
            if container.running and self._containers.lifecycle.has_process(container):
                self._containers.lifecycle.watch(container)

    # -- what belongs to no network -----------------------------------------------------------------------------------

    async def _begin_base(self) -> None:
        core = self._core
        tables = {forwarding.IPV4.table}
        if await core.on_kernel(core.kernel.has_ipv6):
            tables.add(forwarding.IPV6.table)
        for problem in await core.on_kernel(core.kernel.nft.strangers, tables):
            raise Conflict(problem)  # nothing could be published, and nothing kept apart
        core.base = frozenset(tables | await forwarding.base_of(core, forwarding.IPV4))

    def _forwards_ipv6(self) -> bool:
        """Whether there is a network that needs it, or it was turned on for one that is gone."""
        if forwarding.IPV6.table not in self._core.base:
            return False
        turned_on = self._core.store.setting(forwarding.IPV6.setting) == forwarding.this_boot()
        return turned_on or forwarding.needs_ipv6(self._core.state.networks.values())

    # -- the predefined networks --------------------------------------------------------------------------------------

    async def _predefined(self) -> None:
        core = self._core
        for name, driver in (("host", "host"), ("none", "null")):
            if core.state.network_named(name) is None:
                await self._add(Network(id=new_id(), name=name, driver=driver, created=now(), predefined=True))
        existing = core.state.network_named("bridge")
        if core.config.bridge == "none":
            if existing is not None:
                await self._drop(existing)
            return
        await self._default_bridge(existing)

    async def _drop(self, network: Network) -> None:
        async with self._core.operation(f"remove network {network.name}") as operation:
            self._core.state.networks.pop(network.id)
            self._core.addresses.remove(network.id)
            for container in self._core.state.containers.values():
                container.attachments.pop(network.id, None)
                container.endpoints.pop(network.id, None)
                operation.put(container)
            operation.forget(network)

    async def _add(self, network: Network) -> None:
        async with self._core.operation(f"create network {network.name}") as operation:
            self._core.state.networks[network.id] = network
            self._core.addresses.add(network)
            operation.put(network)

    async def _default_bridge(self, existing: Network | None) -> None:
        """The network `bridge` as the configuration describes it; it keeps its id, link and chosen subnet over restarts."""
        core, config = self._core, self._core.config
        link = config.bridge or (existing.bridge.link if existing and existing.bridge else await self._free_link())
        network = Network(
            id=existing.id if existing else new_id(),
            name="bridge",
            driver="bridge",
            created=existing.created if existing else now(),
            predefined=True,
            enable_ipv6=config.ipv6,
            options={
                DEFAULT_BRIDGE: "true",
                ICC: str(config.icc).lower(),
                MASQUERADE: str(config.ip_masq).lower(),
                HOST_BINDING: str(config.ip) if config.ip.version == 4 else "",
                NAME: link,
                MTU: str(await surroundings.default_mtu(core)),
            },
        )
        if existing is not None:
            core.state.networks.pop(existing.id)
            core.addresses.remove(existing.id)
        await self._networks.settle(network, await self._default_entries(existing))
        if network.bridge is not None:
            network.bridge.container_gateway = str(config.default_gateway or "")
            network.bridge.container_gateway6 = str(config.default_gateway_v6 or "")
            if existing is not None:
                known = existing.bridge is not None and existing.bridge.steady_macs
                network.bridge.steady_macs = network.bridge.steady_macs and known
        if existing is not None and _subnets(existing) != _subnets(network) and self._has_endpoints(existing):
            log.warning(
                "the default bridge keeps %s while containers run on it; stop them and restart the daemon to use %s",
                _subnets(existing),
                _subnets(network),
            )
            network = existing
        await self._add(network)
        for container in core.state.containers.values():
            if (endpoint := container.endpoints.get(network.id)) is not None:
                for address in filter(None, (endpoint.ip, endpoint.ip6)):
                    core.addresses.restore(network.id, address, endpoint.id)

    def _has_endpoints(self, network: Network) -> bool:
        return any(network.id in c.endpoints for c in self._core.state.containers.values())

    async def _free_link(self) -> str:
        """docker0, unless somebody (Docker itself, say) has it or would like to."""
        if firewalls.docker_runs():
            return firewalls.default_bridge()
        taken = await self._core.on_kernel(theirs.find_link, self._core.kernel, "docker0")
        return "docker0" if taken is None or taken.ours else "ne0"

    async def _default_entries(self, existing: Network | None) -> list[IpamEntry]:
        """What the configuration, the user's own bridge or the time before says of the default network's subnets."""
        config = self._core.config
        if not config.ipv6 and (config.bip6 or config.fixed_cidr_v6 or config.default_gateway_v6):
            log.warning("bip6, fixed-cidr-v6 and default-gateway-v6 do nothing while ipv6 is not true in daemon.json")
        link = await self._core.on_kernel(theirs.find_link, self._core.kernel, config.bridge) if config.bridge else None
        own: list[Interface] = [i for i in link.addresses if not i.is_link_local] if link else []
        entries = [self._default_entry(existing, 4, config.bip, config.fixed_cidr, config.default_gateway, own)]
        if config.ipv6:
            gateway = config.default_gateway_v6
            entries.append(self._default_entry(existing, 6, config.bip6, config.fixed_cidr_v6, gateway, own))
        return [e for e in entries if e is not None]

    def _default_entry(
        self,
        existing: Network | None,
        version: int,
        bip: Interface | None,
        fixed: IPv4Network | IPv6Network | None,
        gateway: IPv4Address | IPv6Address | None,
        own: list[Interface],
    ) -> IpamEntry | None:
        ip_range = str(fixed or "")
        aux = {f"DefaultGatewayIPv{version}": str(gateway)} if gateway and not gateway.is_link_local else {}
        for interface in [bip] if bip else [i for i in own if i.version == version]:
            return IpamEntry(str(interface.network), ip_range, str(interface.ip), aux)
        for old in existing.subnets if existing else ():
            if old.version == version and (fixed is None or fixed.subnet_of(ip_network(old.subnet))):  # type: ignore[arg-type]
                return IpamEntry(old.subnet, ip_range, old.gateway, aux)
        return IpamEntry(ip_range, ip_range, "", aux) if fixed else None

    # -- processes and kernel -----------------------------------------------------------------------------------------

    async def _processes(self) -> list[Container]:
        """Which containers run; the others lose their sandbox. Answers those whose end has to be settled."""
        core = self._core
        lifecycle = self._containers.lifecycle
        known = await core.runtime.recover(core.state.containers)
        ended = []
        for identity, container in core.state.containers.items():
            state = known[identity]
            if not container.sandbox_id and not container.running:
                continue
            if lifecycle.has_process(container):
                if isinstance(state, Running) and state.started:
                    container.state.status, container.state.pid = "running", state.pid
                    container.state.started_at = container.state.started_at or now()
                    continue
                self._record_end(container, state.status if isinstance(state, Exited) else None)
                # What the runtime keeps of it would refuse the next start; one that was created and never started waits still.
                await self._forget_process(container)
            elif namespaces.is_alive(core.kernel.ns_path(container.sandbox_id)) and container.running:
                continue
            else:
                self._record_end(container, None)
            ended.append(container)
        return ended

    async def _forget_process(self, container: Container) -> None:
        try:
            await self._core.runtime.delete(container.id)
        except NetengineError as e:
            log.error("what is left of the process of %s could not be removed: %s", container.name, e)

    def _record_end(self, container: Container, status: ExitStatus | None) -> None:
        """It ended while no daemon looked. A container that was only being started goes back to `created`."""
        state = container.state
        if state.status == "created":
            return
        state.status, state.pid = "exited", 0
        if status is not None:
            state.exit_code, state.oom_killed = status.code, status.oom_killed
            state.finished_at = stamp(status.finished_at)
        else:
            state.exit_code, state.finished_at = 255, now()

    async def _reconcile(self, settled: list[Container]) -> None:
        core = self._core
        async with core.operation("take over the kernel's state") as operation:
            for container in settled:
                for network_id, endpoint in container.endpoints.items():
                    core.addresses.remember(network_id, container.id, [a for a in (endpoint.ip, endpoint.ip6) if a])
                self._containers.lifecycle.forget_sandbox(operation, container)
            operation.finish()
        await self._hold_ports()
        found = await reconcile.difference(core)
        if steps := found.steps:
            log.info(
                "kernel: %d to remove, %d to create, %d to change",
                len(steps.delete),
                len(steps.missing),
                len(steps.change),
            )
        for parent in sorted(found.missing_parents):
            log.error("parent interface %s is gone: containers on it have no link there until it is back", parent)
        await reconcile.mend(core, found)
        for container in settled:
            await self._after_end(container)
        for container in list(core.state.containers.values()):
            # As Docker: `always` means after a restart of the daemon too, whoever had stopped it.
            if container.state.status == "exited" and container.host_config.restart_policy.name == "always":
                await self._start_again(container)
        core.addresses.forget()

    def resources_of(self, reference: str) -> tuple[str, Network | Container, frozenset[Resource]]:
        """What is in the kernel because of a network or a container. Raises NotFound."""
        state = self._core.state
        try:
            network = state.network(reference)
        except NotFound:
            try:
                container = state.container(reference)
            except NotFound:
                raise NotFound(f"no network and no container is called {reference}") from None
            return "container", container, sandbox.render(state, container)
        of_network = fabric.render(state.fabric, state.containers, network)
        if of_network and network.overlay is not None and network.overlay.encrypted:
            of_network |= state.fabric.tunnel()
        rendered = of_network | policy_rules.of_network(state, network)
        # The elements of a network live in the constant rules, which every network has in common.
        families = {r.family for r in rendered if isinstance(r, Element)}
        return (
            "network",
            network,
            rendered | {r for r in self._core.base if isinstance(r, Table) and r.family in families},
        )

    async def _hold_ports(self) -> None:
        """Bind the host ports again. One that somebody took meanwhile is given up, and said so."""
        core = self._core
        ports = [
            (container, port)
            for container in core.state.containers.values()
            for port in container.ports
            if port.host_port  # else of a routed network
        ]
        wanted = [HostPort(p.host_ip, p.protocol, p.host_port) for _, p in ports]  # type: ignore[arg-type]  # checked when made
        errors = await core.on_kernel(core.kernel.reserve_each, wanted)
        for (container, port), error in zip(ports, errors, strict=True):
            if error is not None:
                log.error("container %s loses its published port: %s", container.name, error)
                container.ports = [p for p in container.ports if p is not port]

    async def _after_end(self, container: Container) -> None:
        """A container that ended unseen is removed or started again, as was asked."""
        host = container.host_config
        if host.auto_remove:
            await self._containers.lifecycle.remove(container)
            return
        policy = host.restart_policy.name
        again = policy in ("always", "unless-stopped") or (policy == "on-failure" and container.state.exit_code != 0)
        if again and not container.state.stopped_by_user:
            await self._start_again(container)

    async def _start_again(self, container: Container) -> None:
        if container.id not in self._core.state.containers or container.running:
            return
        if self._overlay.must_wait(container, partial(self._start_again, container)):
            log.warning("container %s is started when the cluster's store answers", container.name)
            return
        try:
            await self._containers.start(container.id)
        except NetengineError as e:
            log.error("container %s could not be started again: %s", container.name, e)


def _subnets(network: Network) -> str:
    return ", ".join(s.subnet for s in network.subnets)
