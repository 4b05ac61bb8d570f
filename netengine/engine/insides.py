"""What changed inside sandboxes, judged by the model: which of them deserve a look. Changes nothing.

A container that was given CAP_NET_ADMIN, or is privileged, may change its own network: what is different inside is its own
doing, and left alone until somebody asks (`doctor`) or the daemon starts.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_interface

from netengine.engine import rendering
from netengine.engine.core import Core
from netengine.engine.state import State
from netengine.kernel.insides import HERE, Change
from netengine.kernel.resources import Address, LinkUp, Resource, Route, Veth
from netengine.model import Container


def suspects(core: Core, changes: Iterable[Change]) -> list[Container]:
    """The containers in whose sandbox something may be lost."""
    out: dict[str, Container] = {}
    rendered: dict[str, frozenset[Resource]] = {}
    for change in changes:
        ns = core.kernel.numbers.get(change.nsid, "")
        container = core.state.containers.get(ns)  # a sandbox has its owner's id
        if container is None or container.id in out or container.sandbox_id != ns or may_change_its_own(container):
            continue
        if change.kind == "link" and _is_as_wanted(core.state, container, change):
            continue
        if change.kind == "link" and (ns, change.index) in core.kernel.buried:
            continue  # said before we took it out of use ourselves
        if container.id not in rendered:
            rendered[container.id] = rendering.of_container(core, container)
        if concerns(change, rendered[container.id]):
            out[container.id] = container
    return list(out.values())


def _is_as_wanted(state: State, container: Container, change: Change) -> bool:
    """Whether a link is as it was made, in the plainest of cases, which every connect ends with: rendering costs more."""
    for network_id, endpoint in container.endpoints.items():
        network = state.networks.get(network_id)
        if endpoint.link == change.subject and network is not None and network.bridge is not None:
            return change.up and (change.mac, change.mtu) == (endpoint.mac, network.bridge.mtu)
    return False


def route_of_a_network(core: Core, changes: Iterable[Change]) -> bool:
    """Whether the host has lost the way to a network of ours."""
    lost = {c.subject for c in changes if c.kind == "route" and c.nsid == HERE}
    return any(subnet.subnet in lost for n in core.state.networks.values() for subnet in n.subnets)


def may_change_its_own(container: Container) -> bool:
    host = container.host_config
    given = {name.upper().removeprefix("CAP_") for name in host.cap_add or ()}
    return container.state.pid != 0 and (host.privileged or bool(given & {"NET_ADMIN", "ALL"}))


def concerns(change: Change, rendered: Iterable[Resource]) -> bool:
    """Whether a sandbox that should be as `rendered` is not, by what the change says."""
    for r in rendered:
        match change.kind, r:
            case "address", Address(interface=interface) if interface.partition("/")[0] == change.subject:
                return True
            case "route", Route(destination=destination) if destination == change.subject:
                return True
            case "route", Address(interface=interface) if str(ip_interface(interface).network) == change.subject:
                return True
            case "link", LinkUp(link=link) if link == change.subject and not change.up:
                return True
            case "link", Veth(peer=peer, mtu=mtu, peer_mac=mac) if peer == change.subject:
                if (change.mtu, change.mac) != (mtu, mac):
                    return True
    # A veth under a name that none has: renamed.
    peers = {r.peer for r in rendered if isinstance(r, Veth)}
    return change.kind == "link" and change.paired and bool(peers) and change.subject not in peers
