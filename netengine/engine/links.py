"""Links on the default bridge: `--link target:alias`, which there is a line of /etc/hosts and, with `icc` off, a way through.

On user-defined networks a link is a name that the linker alone sees, which is the name server's business (names.py). Here it
is kept with the target's id, so that it outlives a rename, and all else follows from the model: while both run, the linker's
file has a line and the kernel an element for each port that the target exposes; the second one to come makes them, the first
one to go takes them away. Pure: nothing is changed here.
"""

from __future__ import annotations

import re

from netengine.engine.ports import parse_port
from netengine.engine.state import State
from netengine.errors import Conflict, Invalid, NotFound
from netengine.kernel.resources import Element, Resource
from netengine.model import Container, Endpoint, Network

_ALIAS = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}")


def parse(text: str) -> tuple[str, str]:
    """(target, alias) of `target`, `target:alias` or, as inspect shows it, `/target:/linker/alias`. Raises Invalid."""
    target, separator, alias = text.partition(":")
    if alias.startswith("/"):
        alias = alias.rpartition("/")[2]
    target = target.removeprefix("/")
    alias = alias if separator else target
    if not target or not _ALIAS.fullmatch(alias):
        shown = text if len(text) <= 60 else text[:57] + "..."
        raise Invalid(f"bad format for links: {shown}: give name or name:alias")
    return target, alias


def pinned(state: State, links: list[str]) -> list[str]:
    """Links of a new container on the default bridge as the model keeps them: `id:alias`. Raises Invalid, with Docker's texts
    where it has one."""
    out: dict[str, str] = {}
    for text in links:
        reference, alias = parse(text)
        try:
            target = state.container(reference)
            while target.host_config.network_mode.startswith("container:"):
                target = state.container(target.host_config.network_mode.partition(":")[2])
        except NotFound as e:
            # As with the image: 404 would make clients pull it.
            raise Invalid(f"could not get container for {reference}: {e.message}") from None
        if target.host_config.network_mode == "host":
            raise Invalid(
                "conflicting options: host type networking can't be used with links. This would result in undefined behavior"
            )
        if out.setdefault(alias, target.id) != target.id:
            raise Invalid(f"conflicting links: the alias {alias} is given to two containers; choose another")
    return [f"{target}:{alias}" for alias, target in out.items()]


def home(state: State) -> Network | None:
    """The network on which links are of this kind."""
    return next((n for n in state.networks.values() if n.predefined and n.bridge is not None), None)


def targets(state: State, linker: Container) -> list[tuple[Container, str]]:
    """Whom a container is linked to, with the aliases; containers that were removed are not among them."""
    network = home(state)
    wish = linker.attachments.get(network.id) if network else None
    pairs = (link.partition(":") for link in wish.links) if wish else ()
    return [(state.containers[target], alias) for target, _, alias in pairs if target in state.containers]


def linkers(state: State, target: Container) -> list[tuple[Container, str]]:
    """Who is linked to a container, with the aliases."""
    return all_linkers(state).get(target.id, [])


def all_linkers(state: State) -> dict[str, list[tuple[Container, str]]]:
    """The same for each container that somebody is linked to, by its id: whoever asks for all of them asks once."""
    out: dict[str, list[tuple[Container, str]]] = {}
    network = home(state)
    for container in state.containers.values() if network else ():
        if network and (wish := container.attachments.get(network.id)) is not None and wish.links:
            for target, alias in targets(state, container):
                out.setdefault(target.id, []).append((container, alias))
    return out


def startable(state: State, linker: Container) -> None:
    """Docker's condition for a start that somebody asked for. Raises Conflict.

    A start of netengine's own, by a restart policy, has no such condition: the line and the way come with the target.
    """
    network = home(state)
    for target, alias in targets(state, linker):
        if network is None or network.id not in target.attachments:
            raise Conflict(f"Cannot link to /{target.name}, as it does not belong to the default network")
        if not target.running:
            raise Conflict(f"Cannot link to a non running container: /{target.name} AS /{linker.name}/{alias}")


def host_lines(state: State, linker: Container) -> list[tuple[str, str]]:
    """(address, names) for the linker's /etc/hosts: the alias, the target's host name and its name, as far as they differ."""
    network = home(state)
    if network is None or network.id not in linker.endpoints:
        return []
    out = []
    for target, alias in targets(state, linker):
        endpoint = target.endpoints.get(network.id)
        if endpoint is not None and endpoint.ip:
            names = dict.fromkeys([alias, target.config.hostname or target.id[:12], target.name])
            out.append((endpoint.ip, " ".join(names)))
    return out


def shown(state: State, linker: Container) -> list[str]:
    """HostConfig.Links as inspect shows them: `/target:/linker/alias`."""
    return [f"/{target.name}:/{linker.name}/{alias}" for target, alias in targets(state, linker)]


def render(state: State, container: Container) -> frozenset[Resource]:
    """The elements that let a container through to those it is linked to, and those linked to it through to it.

    Both ends render the same elements, so that they come and go with either.
    """
    network = home(state)
    if network is None or network.bridge is None or network.bridge.icc or network.id not in container.endpoints:
        return frozenset()
    pairs = [(container, target) for target, _ in targets(state, container)]
    pairs += [(linker, container) for linker, _ in linkers(state, container)]
    out: set[Resource] = set()
    for linker, target in pairs:
        here, there = linker.endpoints.get(network.id), target.endpoints.get(network.id)
        if here is not None and there is not None:
            out |= _way(network.bridge.link, here, there, target)
    return frozenset(out)


def _way(link: str, here: Endpoint, there: Endpoint, target: Container) -> set[Resource]:
    specs = {*(target.config.exposed_ports or {}), *(target.host_config.port_bindings or {})}
    ports = {parse_port(spec) for spec in specs}
    if not here.ip or not there.ip:
        return set()
    return {Element("ip", "links", (link, here.ip, there.ip, protocol, str(port))) for port, protocol in ports}
