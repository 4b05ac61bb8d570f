"""Ports of a container, published and withdrawn while it runs. What `-p` gave it is changed for good: restarts keep the change.

All or nothing: every port is reserved before the first nftables element is made, and the elements are one transaction.
"""

from __future__ import annotations

from collections.abc import Mapping

from netengine.engine import ports, sandbox
from netengine.engine.core import Core, Operation
from netengine.engine.ports import PortWish
from netengine.errors import Conflict, Forbidden, Invalid, NotFound
from netengine.kernel.hostports import shown
from netengine.model import Container, PortBinding, PublishedPort

Bindings = Mapping[str, list[PortBinding] | None]


class Publishing:
    """Changes what a container publishes. One instance, owned by the engine."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def publish(self, reference: str, bindings: Bindings) -> list[PublishedPort]:
        """Publish more ports; the ports of the host that were taken, [] for a container that does not run yet.

        Raises Invalid for what is malformed, KernelRefused with Docker's text when a port is taken.
        """
        core = self._core
        container = self._container(reference)
        wishes = _wishes(bindings)
        async with core.operation(f"publish ports of {container.name}") as operation:
            self._core.state.check_there(container)
            rendered = sandbox.render(core.state, container)
            _change_wishes(operation, container, _added(container, bindings))
            taken: list[PublishedPort] = []
            if container.sandbox_id:
                if not sandbox.has_way_out(core.state, container):
                    raise Conflict(
                        f"container {container.name} has no network with a way out: connect it to one that is not internal, "
                        "then publish its ports"
                    )
                taken = await sandbox.take_ports(core, operation, container, wishes)
                await operation.apply(sandbox.render(core.state, container), rendered)
        core.events.publish("container", "publish", container.id, name=container.name, ports=_listed(taken))
        return taken

    async def unpublish(self, reference: str, bindings: Bindings) -> list[PublishedPort]:
        """Withdraw ports; what is withdrawn. A binding without a host port stands for all of its container port. Connections
        that are open stay open. Raises NotFound when one of them is not published, and withdraws none then."""
        core = self._core
        container = self._container(reference)
        wishes = _wishes(bindings)
        async with core.operation(f"withdraw ports of {container.name}") as operation:
            self._core.state.check_there(container)
            rendered = sandbox.render(core.state, container)
            before = list(container.ports)
            left = _withdrawn(container, wishes)
            container.ports = [p for p in before if not any(_meets(w, p) for w in wishes)]
            operation.change(lambda: setattr(container, "ports", before))
            _change_wishes(operation, container, left)
            operation.finish()
            await operation.apply(sandbox.render(core.state, container), rendered)
        gone = [p for p in before if p not in container.ports]
        core.events.publish("container", "unpublish", container.id, name=container.name, ports=_listed(gone))
        return gone

    def _container(self, reference: str) -> Container:
        container = self._core.state.container(reference)
        if container.host_config.network_mode == "host":
            raise Forbidden(f"container {container.name} is on the host's network: its ports are the host's already")
        if target := sandbox.joins(container):
            name = self._core.state.container(target).name
            raise Forbidden(f"container {container.name} shares the network of {name}: publish ports of that one")
        return container


def _wishes(bindings: Bindings) -> list[PortWish]:
    wishes = ports.wishes(bindings, {}, False)
    if not wishes:
        raise Invalid("no ports are named: give at least one, such as 8080:80")
    return wishes


def _change_wishes(operation: Operation, container: Container, bindings: dict[str, list[PortBinding] | None]) -> None:
    host, config = container.host_config, container.config
    before = host.port_bindings, host.publish_all_ports, config.exposed_ports

    def undo() -> None:
        host.port_bindings, host.publish_all_ports, config.exposed_ports = before

    host.port_bindings = bindings
    host.publish_all_ports = False  # what it stood for is in `bindings`
    config.exposed_ports = {spec: {} for spec, entries in bindings.items() if entries} | (config.exposed_ports or {})
    operation.change(undo)
    operation.put(container)


def _explicit(container: Container) -> dict[str, list[PortBinding]]:
    """The container's bindings by "80/tcp", those that `-P` stands for among them."""
    out: dict[str, list[PortBinding]] = {}
    for spec, entries in (container.host_config.port_bindings or {}).items():
        out.setdefault(_spec(*ports.parse_port(spec)), []).extend(entries or [])
    if container.host_config.publish_all_ports:
        for spec in container.config.exposed_ports or {}:
            if not out.get(name := _spec(*ports.parse_port(spec))):
                out[name] = [PortBinding()]
    return out


def _added(container: Container, bindings: Bindings) -> dict[str, list[PortBinding] | None]:
    out = _explicit(container)
    for spec, entries in bindings.items():
        out.setdefault(_spec(*ports.parse_port(spec)), []).extend(entries or [])
    return dict(out)


def _withdrawn(container: Container, wishes: list[PortWish]) -> dict[str, list[PortBinding] | None]:
    """The bindings without those that the wishes name. Raises NotFound when a wish names none."""
    left = _explicit(container)
    for wish in wishes:
        name = _spec(wish.container_port, wish.protocol)
        kept = [b for b in left.get(name, []) if not _names(wish, b, container.ports)]
        if len(kept) == len(left.get(name, [])):
            shown = _listed(container.ports) or "nothing"
            raise NotFound(f"container {container.name} does not publish {_shown(wish)}; it publishes {shown}")
        left[name] = kept
    return {name: bindings for name, bindings in left.items() if bindings}


def _names(wish: PortWish, binding: PortBinding, live: list[PublishedPort]) -> bool:
    """Whether a wish means that binding: by what it says, or by the port that a binding to any port got."""
    if wish.host_ip and binding.host_ip and wish.host_ip != binding.host_ip:
        return False
    (given,) = ports.wishes({_spec(wish.container_port, wish.protocol): [binding]}, {}, False)
    if wish.low == 0 or (wish.low, wish.high) == (given.low, given.high):
        return True
    got = [p.host_port for p in live if _meets(wish, p)]
    return any(given.low == 0 or given.low <= port <= given.high for port in got)


def _meets(wish: PortWish, port: PublishedPort) -> bool:
    if (wish.container_port, wish.protocol) != (port.container_port, port.protocol):
        return False
    if wish.host_ip and wish.host_ip != port.host_ip:
        return False
    # Of a routed network's, no port of the host is taken (0).
    return wish.low == 0 or port.host_port == 0 or wish.low <= port.host_port <= wish.high


def _spec(port: int, protocol: str) -> str:
    return f"{port}/{protocol}"


def _shown(wish: PortWish) -> str:
    host = f"{wish.low}" if wish.low == wish.high else f"{wish.low}-{wish.high}"
    where = f"{shown(wish.host_ip)}:" if wish.host_ip else ""
    return f"{where}{host + ':' if wish.low else ''}{wish.container_port}/{wish.protocol}"


def _listed(published: list[PublishedPort]) -> str:
    return ", ".join(f"{shown(p.host_ip)}:{p.host_port}:{p.container_port}/{p.protocol}" for p in published)
