"""Parents of macvlan and ipvlan networks: what the host must have before anything is made, and what networks share.

What a parent is and who may share it is the drivers' business (drivers/parents.py); here the host is asked.
"""

from __future__ import annotations

from netengine.drivers import DRIVERS
from netengine.drivers.parents import VID_RANGE
from netengine.engine.core import Core
from netengine.engine.state import State
from netengine.errors import Forbidden, Invalid, KernelRefused, NotFound
from netengine.kernel import stacked, theirs
from netengine.kernel.resources import Resource
from netengine.model import Network

_CONFIG = {"macvlan": "CONFIG_MACVLAN", "ipvlan": "CONFIG_IPVLAN", "vlan": "CONFIG_VLAN_8021Q"}
_MODULE = {"vlan": "8021q"}


async def settle(core: Core, network: Network) -> str:
    """Decide what the parent of a new network is, and check that the host can do it. Answers a warning, or "".

    Raises NotFound for a parent that does not exist, Invalid or Forbidden for one that cannot be a parent, KernelRefused when
    the kernel lacks what it takes.
    """
    settings = network.parent
    if settings is None:
        return ""
    await _check_kernel(core, network.driver)
    if settings.own:
        return ""
    link = await core.on_kernel(theirs.find_link, core.kernel, settings.link)
    if link is None:
        settings.trunk, settings.vid = await _tagged(core, network, settings.link)
        return ""
    if link.name != settings.link:
        raise Invalid(
            f"invalid value {settings.link!r} for parent: that is another name of {link.name}; use parent={link.name}"
        )
    if link.ours:
        other = next((n.parent for n in core.state.networks.values() if n.parent and n.parent.link == link.name), None)
        if other is None or not other.trunk:
            raise Forbidden(
                f"cannot create network {network.name}: {link.name} is netengine's own and cannot be a parent"
            )
        settings.trunk, settings.vid = other.trunk, other.vid
        return ""
    _check_parent(network, link)
    return "" if link.up else f"parent interface {link.name} is down: containers reach nobody until it is up"


def _check_parent(network: Network, link: theirs.Link) -> None:
    if link.loopback:
        raise Invalid(
            f"invalid value {link.name!r} for parent: the loopback interface is not a valid {network.driver} parent"
        )
    if link.master:
        raise Forbidden(
            f"cannot create network {network.name}: {link.name} is a port of {link.master}, which gets all its frames; "
            f"use parent={link.master}"
        )


async def _tagged(core: Core, network: Network, link: str) -> tuple[str, int]:
    """The link and the VLAN of a parent like eth0.50 that does not exist yet."""
    trunk, dot, number = link.rpartition(".")
    found = await core.on_kernel(theirs.find_link, core.kernel, trunk) if dot and trunk else None
    if found is None:
        names = await core.on_kernel(theirs.link_names, core.kernel)
        raise NotFound(
            f"invalid value {link!r} for parent: there is no such interface on this host "
            f"(there is {', '.join(sorted(names)[:12]) or 'none'}; or INTERFACE.VLAN for an 802.1Q sub-interface of one)"
        )
    low, high = VID_RANGE
    if not number.isascii() or not number.isdigit() or not low <= int(number) <= high:
        raise Invalid(
            f"invalid value {link!r} for parent: the VLAN after the dot must be a number from {low} to {high}"
        )
    if found.ours:
        raise Forbidden(f"cannot create network {network.name}: {trunk} is netengine's own and cannot be a parent")
    _check_parent(network, found)
    await _check_kernel(core, "vlan")
    if not found.up:
        raise Forbidden(
            f"cannot create network {network.name}: {trunk} is down, and a sub-interface of it cannot be up; "
            f"bring it up first: ip link set {trunk} up"
        )
    return trunk, int(number)


async def _check_kernel(core: Core, kind: str) -> None:
    if not await core.on_kernel(stacked.supports, core.kernel, kind):
        raise KernelRefused(
            f"this kernel has no {'802.1Q sub-interfaces' if kind == 'vlan' else kind}: it was built without {_CONFIG[kind]}, "
            f"or its module {_MODULE.get(kind, kind)} is not installed"
        )


def admit(state: State, network: Network) -> None:
    """Raise Forbidden when the network cannot take one more endpoint: a parent in mode passthru belongs to a single one."""
    settings = network.parent
    if settings is None or settings.mode != "passthru":
        return
    for other in state.attached_to(network.id):
        raise Forbidden(
            f"network {network.name} is in mode passthru: its parent {settings.link} belongs to one container alone, "
            f"which is {other.name}; disconnect that first"
        )


def unshared(state: State, network: Network) -> frozenset[Resource]:
    """What exists because of this network alone: networks on one VLAN have the sub-interface in common, those that guard
    against forged addresses the table of rules."""
    own = DRIVERS[network.driver].render_network(network)
    if not _shares(network):
        return own
    others = [n for n in state.networks.values() if n.id != network.id and _shares(n)]
    return own.difference(*(DRIVERS[n.driver].render_network(n) for n in others))


def _shares(network: Network) -> bool:
    return network.parent is not None or (network.bridge is not None and network.bridge.anti_spoof)
