"""Forwarding between the host's interfaces: turned on when netengine needs it, and said so; nothing else of the host changes.

What was not forwarded before is not forwarded afterwards: the rules drop it (kernel/ruleset.py, `strangers`). IPv4 forwarding
is turned on at start, as Docker does it. IPv6 forwarding waits for the first network that has IPv6 and a way out, because
a host that forwards no longer takes its own default route from router advertisements (RFC 4861, section 6.2.2).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from netengine.engine.core import Core
from netengine.kernel import observe, sysctl, theirs
from netengine.kernel.resources import HOST, Element, Resource, Sysctl, Table
from netengine.model import Network

log = logging.getLogger(__name__)

ROUTERS_SETTING = "accept-ra-raised-on"
"""Links whose accept_ra was raised, separated by blanks: a link name has none."""


@dataclass(frozen=True, slots=True)
class Family:
    """`setting` names, in the store, the boot in which netengine itself turned forwarding on."""

    table: Table
    path: str
    setting: str
    strangers: Element

    @property
    def name(self) -> str:
        return self.path.replace("/", ".")


IPV4 = Family(
    Table("ip"), "net/ipv4/ip_forward", "ip-forward-turned-on-in", Element("ip", "strangers", ("ip",), ("drop",))
)
IPV6 = Family(
    Table("ip6"),
    "net/ipv6/conf/all/forwarding",
    "ip6-forward-turned-on-in",
    Element("ip6", "strangers", ("ip6",), ("drop",)),
)


def needs_ipv6(networks: Iterable[Network]) -> bool:
    """Whether the host forwards packets of one of them: a bridge network with IPv6 that leads out of itself."""
    return any(n.enable_ipv6 and not n.internal and n.bridge is not None for n in networks)


async def base_of(core: Core, family: Family) -> set[Resource]:
    """What belongs to no network: forwarding of a family, turned on if it is off, and with it what keeps strangers out.

    For the start of the daemon and, for IPv6, the first network that needs it. The kernel is only read here, but for the
    links that would lose their router.
    """
    if not core.config.ip_forward:
        if core.store.setting(family.setting):
            # It is somebody else's from now on: `--cleanup` leaves it as it is.
            with core.store.transaction() as t:
                t.set(family.setting, "")
        return set()
    here = this_boot()
    if await core.on_kernel(sysctl.read, family.path) != "1":
        log.warning(
            "turning %s on; packets between interfaces that are not netengine's stay unforwarded. "
            "To forward them, set %s=1 yourself before netengine starts",
            family.name,
            family.name,
        )
        if family is IPV6:
            await _keep_routers(core)
        with core.store.transaction() as t:
            t.set(family.setting, here)
    elif core.store.set_aside is not None and family.strangers in await core.on_kernel(observe.observe, core.kernel):
        # The store that knew who turned forwarding on is lost; the rules in the kernel still tell.
        with core.store.transaction() as t:
            t.set(family.setting, here)
    out: set[Resource] = {Sysctl(HOST, family.path, "1")}
    if core.store.setting(family.setting) == here and not core.config.ip_forward_no_drop:
        out.add(family.strangers)
    return out


async def turn_on_ipv6(core: Core) -> None:
    """For a network that is about to be made. Stays when that fails: it harms nobody, and taking it back would."""
    if core.config.ip_forward and IPV6.table in core.base and Sysctl(HOST, IPV6.path, "1") not in core.base:
        more = await base_of(core, IPV6)
        # Those who must stay outside first: no packet may slip through in between.
        for resources in sorted(more, key=lambda r: isinstance(r, Sysctl)):
            await core.on_kernel(core.kernel.apply, [resources], [])
        core.base |= more


async def _keep_routers(core: Core) -> None:
    """Turning forwarding on makes the kernel drop the default routes that it learnt from router advertisements, and learn no
    more, on links with accept_ra=1. They go on as before with accept_ra=2, whether a router has spoken already or, the host
    being about to start, not yet."""
    links = await core.on_kernel(theirs.router_listeners, core.kernel)
    if not links:
        return
    log.warning(
        "setting net.ipv6.conf.{%s}.accept_ra=2: a host that forwards would not take its default route from a router there",
        ",".join(links),
    )
    before = core.store.setting(ROUTERS_SETTING) if core.store.setting(IPV6.setting) == this_boot() else None
    with core.store.transaction() as t:
        t.set(ROUTERS_SETTING, " ".join(dict.fromkeys([*(before or "").split(), *links])))
    for link in links:
        await core.on_kernel(sysctl.write, f"net/ipv6/conf/{link}/accept_ra", "2")


async def turn_off(core: Core) -> list[str]:
    """For `--cleanup`: forwarding that netengine turned on in this boot goes off again; answers what was done."""
    done = []
    for family in (IPV4, IPV6):
        if core.store.setting(family.setting) == this_boot():
            await core.on_kernel(sysctl.write, family.path, "0")
            done.append(f"sysctl {family.name}: set back to 0")
            if family is IPV6:
                done += await _restore_routers(core)
    return done


async def _restore_routers(core: Core) -> list[str]:
    done = []
    for link in (core.store.setting(ROUTERS_SETTING) or "").split():
        path = f"net/ipv6/conf/{link}/accept_ra"
        if await core.on_kernel(sysctl.read, path) == "2":
            await core.on_kernel(sysctl.write, path, "1")
            done.append(f"sysctl {path.replace('/', '.')}: set back to 1")
    return done


def this_boot() -> str:
    """Names this boot and this network namespace: what was done to a sysctl here holds no longer than they."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}/{os.stat('/proc/self/ns/net').st_ino}"
