"""The difference between what should be in the kernel and what is, and how it is made to go away.

The same at start, after an event and on request (`doctor`). Whoever calls holds the writer lock, or is the start of the daemon:
the model stands still. What is not ours is neither a difference nor touched.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass

from netengine.engine import insides, rendering, sandbox
from netengine.engine.core import Core
from netengine.engine.rendering import wanted
from netengine.errors import NetengineError, Unavailable
from netengine.kernel.observe import OF_THE_HOST, name_ports, observe, observe_host, observe_inside, observe_rules
from netengine.kernel.plan import Plan, plan, stranded
from netengine.kernel.resources import (
    HOST,
    Address,
    Element,
    Ipvlan,
    LinkUp,
    Macvlan,
    NameService,
    Namespace,
    NamespaceAlias,
    Resource,
    Route,
    Sysctl,
    Table,
    TokenBucket,
    Veth,
    Vlan,
)
from netengine.kernel.theirs import links_up
from netengine.model import Container
from netengine.observe.doctor import diagnose, summary

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Difference:
    """What should be, what is, and what turns the one into the other; `unmounted` are namespaces that had lost their file,
    and have it back; `stranded` is what cannot be now, because a parent of the user's is missing."""

    want: frozenset[Resource]
    have: frozenset[Resource]
    steps: Plan
    unmounted: tuple[str, ...] = ()
    stranded: frozenset[Resource] = frozenset()

    @property
    def missing_parents(self) -> frozenset[str]:
        """The parents that are not there."""
        ours = {r.name for r in self.stranded if isinstance(r, Vlan)}
        return frozenset(r.parent for r in self.stranded if isinstance(r, Vlan | Macvlan | Ipvlan)) - ours


def comparable(want: frozenset[Resource], have: set[Resource]) -> frozenset[Resource]:
    """`have` without what a program in a sandbox may do on links of ours: it has links and addresses of its own. An address
    of a bridge that an administrator gave it is told from ours by its mark, and not in `have`."""
    keys = {r.key for r in want}
    theirs = {r.name for r in want if isinstance(r, Namespace)}
    return frozenset(r for r in have if not (isinstance(r, Address | LinkUp) and r.ns in theirs and r.key not in keys))


def _sure(core: Core, want: frozenset[Resource], have: Iterable[Resource]) -> frozenset[Resource]:
    """`have` without what may be of a part of the model that is broken, while there is one: nothing is deleted then."""
    if not core.broken:
        return frozenset(have)
    keys = {r.key for r in want}
    return frozenset(r for r in have if r.key in keys)


async def rules_difference(core: Core, all_wanted: frozenset[Resource] | None = None) -> Difference:
    """As `difference`, for the rules and their elements alone: a matter of milliseconds at any number of sandboxes."""
    all_wanted = wanted(core) if all_wanted is None else all_wanted
    want = frozenset(r for r in all_wanted if isinstance(r, Table | Element))
    have = _sure(core, want, await core.on_kernel(observe_rules, core.kernel))
    return Difference(want, have, plan(want, have))


async def host_difference(core: Core, all_wanted: frozenset[Resource] | None = None) -> Difference:
    """As `difference`, for links, addresses and sysctls of the host alone: its time hardly grows with the sandboxes. A cable
    that is gone is left to `difference`, which knows what else belongs to it."""
    all_wanted = wanted(core) if all_wanted is None else all_wanted
    want = frozenset(
        r
        for r in all_wanted
        if isinstance(r, OF_THE_HOST) or (isinstance(r, Address | Sysctl | TokenBucket) and r.ns == HOST)
    )
    have = comparable(want, await core.on_kernel(observe_host, core.kernel, want))
    there = {r.key for r in have}
    gone = {r.name for r in want if isinstance(r, Veth) and r.key not in there}
    want = frozenset(r for r in want if not {getattr(r, "name", ""), getattr(r, "link", "")} & gone)
    stacked = {r.name for r in all_wanted if isinstance(r, Vlan) or (isinstance(r, Macvlan | Ipvlan) and r.ns == HOST)}
    stacked |= {n.parent.link for n in core.state.networks.values() if n.parent and n.parent.own}
    want = frozenset(r for r in want if not _is_on(r, stacked))
    have = _sure(core, want, (r for r in have if not _is_on(r, stacked)))
    return Difference(want, have, plan(want, have))


def _is_on(r: Resource, links: set[str]) -> bool:
    match r:
        case Address(link=link):
            return link in links
        case Sysctl(path=path):
            return path.split("/")[3:4] != [] and path.split("/")[3] in links
    return False


async def names_difference(core: Core) -> Difference:
    """As `difference`, for the rules of name services inside sandboxes alone: a millisecond each."""
    want = frozenset(r for r in wanted(core) if isinstance(r, NameService))
    have = frozenset([r for r in want if await core.on_kernel(name_ports, core.kernel, r.ns) is not None])
    return Difference(want, have, plan(want, have))


async def inside_difference(core: Core, containers: Iterable[Container]) -> Difference:
    """As `difference`, for what is inside the sandboxes of a few containers alone."""
    rendered = frozenset(r for c in containers for r in rendering.of_container(core, c))
    inside = {r.name for r in rendered if isinstance(r, Namespace)}
    want = frozenset(r for r in rendered if getattr(r, "ns", HOST) in inside and not isinstance(r, NamespaceAlias))
    want |= {Namespace(ns) for ns in inside}
    lost = await _stranded(core, want)
    want -= lost
    have = comparable(want, await core.on_kernel(observe_inside, core.kernel, want, inside))
    return Difference(want, have, plan(want, have), stranded=lost)


async def _stranded(core: Core, want: frozenset[Resource]) -> frozenset[Resource]:
    """What of `want` cannot be now. Costs nothing where no network has a parent."""
    if not any(isinstance(r, Vlan | Macvlan | Ipvlan) for r in want):
        return frozenset()
    return stranded(want, await core.on_kernel(links_up, core.kernel))


async def difference(core: Core, *, names: bool = True, own: bool = True) -> Difference:
    """Read the kernel back and compare. A namespace whose file is gone gets it back first: without, it could not be read.

    Without `names` the rules of name services inside sandboxes are taken for granted: reading them is a third of the time.
    Without `own` so is what is inside the sandboxes of containers that may change their network.
    """
    want = wanted(core)
    bare = set(core.kernel.lost_namespaces(ns for _, ns, _ in _namespaces(core)))
    unmounted = [
        name
        for name, ns, pid in _namespaces(core)
        if ns in bare and await core.on_kernel(core.kernel.keep_namespace, ns, pid)
    ]
    lost = await _stranded(core, want)
    want -= lost
    granted: set[Resource] = {
        r for r in want if not names and isinstance(r, NameService) and core.kernel.has_namespace(r.ns)
    }
    seen = await core.on_kernel(observe, core.kernel, want - granted)
    if not own:
        theirs = {c.sandbox_id for c in core.state.containers.values() if insides.may_change_its_own(c)}
        # A link that is made anew gets all that it had, whosever it is.
        keys = {r.key for r in seen}
        new = {(r.ns, r.name) for r in want if isinstance(r, Macvlan | Ipvlan) and r.key not in keys}
        again = {r for r in want if isinstance(r, Address | Route | LinkUp) and (r.ns, r.link) in new}
        want, granted = frozenset(_without_inner(want, theirs)) | again, set(_without_inner(granted, theirs))
        seen = set(_without_inner(seen, theirs))
    have = _sure(core, want, comparable(want, seen | granted))
    return Difference(want, have, plan(want, have), tuple(unmounted), lost)


def _without_inner(resources: Iterable[Resource], sandboxes: set[str]) -> Iterable[Resource]:
    inner = (Address, Route, LinkUp, NameService)
    return (r for r in resources if not (isinstance(r, inner) and r.ns in sandboxes))


def lost_namespaces(core: Core) -> list[str]:
    """Whose namespace has no file any more, or no link under /run/netns. Cheap: no netlink."""
    names = {ns: name for name, ns, _ in _namespaces(core)}
    lost = [names[ns] for ns in core.kernel.lost_namespaces(names)]
    # Our own mounts are heard of too, so this follows each start: one listing, and not a look at a thousand links.
    aliases = frozenset(os.listdir(core.kernel.alias_dir) if core.kernel.alias_dir.exists() else ())
    return lost + [c.name for c in core.state.containers.values() if c.sandbox_id and c.name not in aliases]


def _namespaces(core: Core) -> list[tuple[str, str, int]]:
    """(name of container or network, its namespace, a process in it) of all namespaces that should be."""
    out = [
        (c.name, c.sandbox_id, c.state.pid)
        for c in core.state.containers.values()
        if c.sandbox_id and sandbox.owns_sandbox(c)
    ]
    return out + [(n.name, n.id, 0) for n in core.state.networks.values() if n.parent and n.parent.own]


async def mend(core: Core, found: Difference) -> list[str]:
    """Make the difference go away, in one go or else network by network and container by container; answer what could not
    be mended, a sentence each."""
    if not found.steps:
        return []
    try:
        await core.on_kernel(core.kernel.apply, found.want, found.have)
    except NetengineError as e:
        log.error("the kernel could not be made as wanted in one go (%s); doing it piece by piece", e)
        return await _piecewise(core, found.stranded)
    return []


async def put_back(core: Core, new: frozenset[Resource], had: frozenset[Resource]) -> bool:
    """Put back what is missing of the rules and of the host's links and addresses, because the kernel refused to go from `had`
    to `new`; answer whether anything was missing. Nothing is deleted: an operation is under way. Raises Unavailable."""
    before = frozenset({r.key: r for r in (*(wanted(core) - new), *had)}.values())
    missed = False
    for look in (rules_difference, host_difference):
        found = await look(core, before)
        keys = {r.key for r in found.want}
        have = frozenset(r for r in found.have if r.key in keys)
        steps = plan(found.want, have)
        if not steps:
            continue
        missed = True
        try:
            await core.on_kernel(core.kernel.apply, found.want, have)
        except NetengineError as e:
            raise Unavailable(
                f"netengine's rules or links were taken away, and cannot be put back now ({e}); "
                "`netengine doctor` lists them: find out who takes them away (the daemon's log may say), and try again"
            ) from e
        for line in summary(diagnose(steps)):
            log.warning("put right: %s (an operation needs it)", line)
    return missed


async def _piecewise(core: Core, lost: frozenset[Resource]) -> list[str]:
    # What was done was taken back, as far as that went: look again.
    have = await core.on_kernel(observe, core.kernel, wanted(core))
    problems = []
    for name, resources in rendering.pieces(core):
        keys = {r.key for r in resources}
        try:
            await core.on_kernel(core.kernel.apply, resources - lost, {r for r in have if r.key in keys})
        except NetengineError as e:
            problems.append(f"{name} is not as it should be: {e}")
            log.error("%s", problems[-1])
    return problems
