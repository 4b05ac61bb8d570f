"""Operations on containers: what a user may ask for, and when. How a container starts and ends is lifecycle.py's business."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import TypeVar

from netengine.drivers import DRIVERS
from netengine.engine import checks, links, policies, sandbox, spec, surroundings
from netengine.engine.core import Core, new_id, now
from netengine.engine.dhcp import Dhcp
from netengine.engine.files import EtcFiles
from netengine.engine.lifecycle import Lifecycle, signal_number
from netengine.engine.names import Names
from netengine.engine.overlay.overlay import Overlay
from netengine.engine.requests import ContainerRequest
from netengine.errors import Conflict, Invalid, NotFound, NotModified
from netengine.model import Attachment, Container, ContainerConfig, EndpointSettings, HostConfig, JsonDict, Network
from netengine.runtime import ImageConfig, LogLine, Stream

T = TypeVar("T")

_ADJECTIVES = (
    "able",
    "brisk",
    "calm",
    "deft",
    "eager",
    "fair",
    "glad",
    "keen",
    "lucid",
    "mild",
    "neat",
    "quick",
    "sure",
    "wry",
)
_NOUNS = (
    "bridge",
    "cable",
    "frame",
    "hop",
    "lease",
    "link",
    "mesh",
    "packet",
    "peer",
    "port",
    "queue",
    "route",
    "socket",
    "trunk",
)


class Containers:
    """What can be done with containers. One instance, owned by the engine."""

    def __init__(self, core: Core, files: EtcFiles, names: Names, leases: Dhcp, overlay: Overlay) -> None:
        self._core = core
        self._names = names
        self._overlay = overlay
        self.lifecycle = Lifecycle(core, files, names, leases, overlay)

    # -- create -------------------------------------------------------------------------------------------------------

    async def create(self, name: str, request: ContainerRequest) -> tuple[Container, list[str]]:
        """A container that does not run yet, and warnings."""
        core = self._core
        config = _config_of(request)
        host = request.host_config or HostConfig()
        if host.network_mode in ("", "default"):
            host.network_mode = "bridge"
        if name:
            name = name.removeprefix("/")
            checks.container_name(name)
        checks.container_request(config, host)
        host.dns = checks.name_servers(host.dns) if host.dns else host.dns
        spec.check_modes(host)
        spec.binds(host)
        image = core.images.find(config.image)
        if image.id != core.images.find(spec.SANDBOX_IMAGE).id:
            spec.command(config, image)
        if config.stop_signal:
            signal_number(config.stop_signal)
        _merge(config, image.config)
        warnings = _warnings(config, host)
        identity = new_id()
        async with core.operation(f"create container {name or identity[:12]}") as operation:
            name = name or self._free_name()
            other = core.state.container_named(name)
            if other is not None:
                raise Conflict(
                    f'Conflict. The container name "/{name}" is already in use by container "{other.id}". '
                    "You have to remove (or rename) that container to be able to reuse that name."
                )
            container = Container(
                id=identity,
                name=name,
                created=now(),
                image=config.image,
                image_id=image.id,
                config=config,
                host_config=host,
                attachments=self._attachments(name, config, host, request),
            )
            warnings += _unpublished(container, [core.state.networks[n] for n in container.attachments])
            core.state.containers[identity] = container
            operation.change(lambda: core.state.containers.pop(identity, None))
            operation.put(container)
        if warning := await surroundings.room_for_neighbours(core, len(container.attachments)):
            warnings.append(warning)
        self.lifecycle.publish(container, "create")
        return container, warnings

    def _free_name(self) -> str:
        while True:
            name = f"{secrets.choice(_ADJECTIVES)}_{secrets.choice(_NOUNS)}{secrets.randbelow(1000)}"
            if self._core.state.container_named(name) is None:
                return name

    def _attachments(
        self, name: str, config: ContainerConfig, host: HostConfig, request: ContainerRequest
    ) -> dict[str, Attachment]:
        """The networks that the container is to be on."""
        core, mode = self._core, host.network_mode
        asked = (request.networking_config.endpoints_config or {}) if request.networking_config else {}
        if sandbox.joins_mode(mode):
            target = _must_exist(core.state.container, sandbox.joins_mode(mode))
            if target.name == name:
                raise Invalid("cannot join own network")
            if sandbox.joins_mode(target.host_config.network_mode) or target.host_config.network_mode == "host":
                raise Invalid(f"cannot join the network of container {target.name}: it has none of its own")
            host.network_mode = f"container:{target.id}"
            if any(reference != mode for reference in asked):
                raise Invalid("conflicting options: cannot attach both user-defined and non-user-defined network-modes")
            return {}
        # `-p` and the like address the network of the network mode; the others are added to it.
        settings: dict[str, tuple[Network, EndpointSettings]] = {}
        for reference, wish in asked.items():
            network = _must_exist(core.state.network, "bridge" if reference == "default" else reference)
            settings[network.id] = (network, wish or EndpointSettings())
        if config.network_disabled:
            return {}
        main = _must_exist(core.state.network, mode)
        if main.id not in settings:
            settings = {main.id: (main, EndpointSettings())} | settings
        host.network_mode = mode if mode in (main.name, main.id) else main.name
        legacy: list[str] = []
        if host.links and checks.is_user_defined(main):
            wish = settings[main.id][1]
            wish.links = [*(wish.links or []), *(link for link in host.links if link not in (wish.links or []))]
        elif host.links:
            legacy, host.links = links.pinned(core.state, host.links), None
        if config.mac_address and not settings[main.id][1].mac_address:
            settings[main.id][1].mac_address = config.mac_address
        checks.endpoint_counts([network for network, _ in settings.values()])
        out = {key: checks.attachment(core, network, wish) for key, (network, wish) in settings.items()}
        checks.link_names(out.values())
        out[main.id].links += legacy
        return out

    # -- life ---------------------------------------------------------------------------------------------------------

    async def start(self, reference: str) -> None:
        container = self._core.state.container(reference)
        async with self.lifecycle.exclusive(container):
            if container.state.status == "paused":
                raise Conflict("cannot start a paused container, try unpause instead")
            if container.running:
                raise NotModified("container already started")
            self._core.state.check_there(container)
            links.startable(self._core.state, container)
            await self.lifecycle.start(container)

    async def stop(self, reference: str, timeout: int | None) -> None:
        container = self._core.state.container(reference)
        container.state.stopped_by_user = True
        async with self.lifecycle.exclusive(container):
            if not container.running:
                raise NotModified("container already stopped")
            await self.lifecycle.stop(container, timeout)

    async def restart(self, reference: str, timeout: int | None) -> None:
        container = self._core.state.container(reference)
        async with self.lifecycle.exclusive(container):
            self._core.state.check_there(container)
            links.startable(self._core.state, container)
            auto_remove, container.host_config.auto_remove = container.host_config.auto_remove, False
            try:
                if container.running:
                    container.state.stopped_by_user = True
                    await self.lifecycle.stop(container, timeout)
                await self.lifecycle.start(container)
            finally:
                container.host_config.auto_remove = auto_remove
        self.lifecycle.publish(container, "restart")

    async def kill(self, reference: str, signal: str) -> None:
        container = self._core.state.container(reference)
        number = signal_number(signal or "SIGKILL")
        if not container.running:
            raise Conflict(f"cannot kill container: {reference}: container {container.id} is not running")
        if not self.lifecycle.has_process(container):
            raise Conflict(f"container {container.name} is a sandbox without a process: stop or remove it")
        if number in (9, 15):
            container.state.stopped_by_user = True
        await self._core.runtime.kill(container.id, number)
        self.lifecycle.publish(container, "kill", signal=str(number))

    async def pause(self, reference: str, paused: bool) -> None:
        container = self._core.state.container(reference)
        async with self.lifecycle.exclusive(container):
            if not container.running or not self.lifecycle.has_process(container):
                raise Conflict(f"container {container.id} is not running")
            if (container.state.status == "paused") == paused:
                raise Conflict(f"container {container.id} is {'already' if paused else 'not'} paused")
            await (self._core.runtime.pause if paused else self._core.runtime.unpause)(container.id)
            container.state.status = "paused" if paused else "running"
        self.lifecycle.publish(container, "pause" if paused else "unpause")

    async def rename(self, reference: str, name: str) -> None:
        core = self._core
        container = core.state.container(reference)
        name = name.removeprefix("/")
        if not name:
            raise Invalid("Neither old nor new names may be empty")
        checks.container_name(name)
        old = container.name
        if name == old:
            raise Invalid("Renaming a container with the same name as its current name")
        async with core.operation(f"rename {old} to {name}") as operation:
            other = core.state.container_named(name)
            if other is not None:
                raise Conflict(
                    f'Error when allocating new name: Conflict. The container name "/{name}" is already in use by container '
                    f'"{other.id}". You have to remove (or rename) that container to be able to reuse that name.'
                )
            rendered = sandbox.render(core.state, container)
            container.name = name
            operation.change(lambda: setattr(container, "name", old))
            policies.renamed(core.state, operation, old, name)
            operation.put(container)
            await operation.apply(sandbox.render(core.state, container), rendered)
        if container.running:
            await self._names.opened(container)
            await self._overlay.renamed(container)
        self.lifecycle.refresh_files(container)
        self.lifecycle.publish(container, "rename", oldName=f"/{old}")

    async def remove(self, reference: str, force: bool) -> None:
        container = self._core.state.container(reference)
        if container.running and not force:
            raise Conflict(
                f'cannot remove container "/{container.name}": container is {container.state.status}: '
                "stop the container before removing or force remove"
            )
        container.state.stopped_by_user = True
        async with self.lifecycle.exclusive(container):
            self._core.state.check_there(container)
            if container.running:
                container.host_config.auto_remove = False
                await self.lifecycle.stop(container, 0)
            await self.lifecycle.remove(container)

    # -- streams ------------------------------------------------------------------------------------------------------

    async def attach(self, reference: str) -> Stream:
        return await self.lifecycle.attach(self._core.state.container(reference))

    async def logs(
        self, container: Container, *, follow: bool, since_ns: int | None, until_ns: int | None, tail: int | None
    ) -> AsyncIterator[LogLine]:
        follow = follow and container.running
        lines = self._core.runtime.logs(container.id, follow=follow, since_ns=since_ns, until_ns=until_ns, tail=tail)
        async with aclosing(lines):
            async for line in lines:
                yield line

    async def resize(self, reference: str, height: int, width: int) -> None:
        container = self._core.state.container(reference)
        if not container.running:
            raise Conflict(f"container {container.id} is not running")
        await self._core.runtime.resize(container.id, height, width)

    async def top(self, reference: str, ps_args: str) -> tuple[list[str], list[list[str]]]:
        container = self._core.state.container(reference)
        if not container.running or not self.lifecycle.has_process(container):
            raise Conflict(f"container {container.id} is not running")
        return await self._core.runtime.top(container.id, ps_args or "-ef")


def _must_exist(find: Callable[[str], T], reference: str) -> T:
    """What a new container refers to. 404 would say that its *image* is missing, and clients go and pull that."""
    try:
        return find(reference)
    except NotFound as e:
        raise Invalid(e.message) from None


def _config_of(request: ContainerRequest) -> ContainerConfig:
    return ContainerConfig(**{name: getattr(request, name) for name in ContainerConfig.__struct_fields__})


def _merge(config: ContainerConfig, image: ImageConfig) -> None:
    """What inspect shows and ports need from the image: labels and exposed ports."""
    if image.labels:
        config.labels = image.labels | (config.labels or {})
    if image.exposed_ports:
        exposed: dict[str, JsonDict] = {port: dict(value) for port, value in image.exposed_ports.items()}
        config.exposed_ports = exposed | (config.exposed_ports or {})


def _unpublished(container: Container, networks: list[Network]) -> list[str]:
    """That ports are asked for and none of the container's networks can publish them."""
    host = container.host_config
    if not (host.port_bindings or host.publish_all_ports) or any(DRIVERS[n.driver].publishes_ports for n in networks):
        return []
    return [
        f"Published ports are discarded on network {n.name}: the {n.driver} driver does not support port mappings; "
        "the container is reached at its own address"
        for n in networks
        if n.parent is not None
    ]


def _warnings(config: ContainerConfig, host: HostConfig) -> list[str]:
    out = []
    if host.network_mode == "host" and (host.port_bindings or host.publish_all_ports):
        out.append("Published ports are discarded when using host network mode")
    return out
