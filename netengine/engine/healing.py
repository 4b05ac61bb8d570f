"""Live healing: what somebody takes away from the kernel is put back while the daemon runs.

Events only raise a suspicion, cheaply and from the model alone: is a link, an address, a rule that we want now gone or changed
by somebody else? Changes of our own raise none, so that the paths of every day pay next to nothing. A suspicion is followed
by a look at the whole, under the writer lock, and by mending what differs. Of what happens inside sandboxes `engine.insides`
judges, but for the way to the name server. Changes of sysctls other than forwarding make no events: `engine.rereading` looks
for them, and so do `doctor`, the next suspicion and the start.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress

from netengine.engine import forwarding, insides, reconcile, rendering
from netengine.engine.core import Core
from netengine.engine.hearing import Hearing
from netengine.engine.overlay import suspicion, uplink
from netengine.engine.reconcile import Difference
from netengine.engine.rereading import Rereading
from netengine.engine.stranded import Parents
from netengine.errors import NetengineError
from netengine.kernel import events
from netengine.kernel import insides as kernel_insides
from netengine.kernel.plan import Plan
from netengine.kernel.resources import Key, Resource, Sysctl
from netengine.model import Container, Network
from netengine.observe.doctor import diagnose, summary, title

log = logging.getLogger(__name__)

_SOON = 1.0
"""Seconds until what could not be seen, or not be undone, is looked into again."""

_TIMES, _WITHIN = 5, 60.0
"""One thing is put back this often in so many seconds; then whoever takes it away has it until the time is over."""


class Healing:
    """Hears from `listen` on what happens, and acts on it from `start` to `close`.

    `mended` is told of each container in whose sandbox something was put right.
    """

    def __init__(self, core: Core, mended: Callable[[Container], Awaitable[None]] | None = None) -> None:
        self._core = core
        self._tell = mended
        self._hearing = Hearing(core, self._go)
        self._parents = Parents(core)
        self._rereading = Rereading(core, lambda found: self._mend(found, ""))
        self._ports: dict[str, str] | None = None
        """The host's ends of all endpoints with their networks, while something is judged that needs them."""
        self._mended: list[tuple[float, Key]] = []
        self._waiting_until = 0.0
        self._in_vain = 0
        """How many times in a row something could not be put right."""
        self._names_deleted = 0
        """How often others have deleted rules of name services inside sandboxes, as far as that was looked into."""

    def listen(self) -> None:
        """Listen, in the network namespace of the calling thread. Before the start looks at the kernel: then nothing can change
        between that look and the first event, and nobody has to look twice."""
        self._hearing.listen()

    def start(self) -> None:
        """The model is complete: from now on events are judged by it, first those that have come meanwhile."""
        self._core.look_around = lambda: self._look_again(_SOON)
        self._rereading.start()
        self._hearing.start()

    def close(self) -> None:
        self._core.look_around = lambda: None
        self._rereading.close()
        self._hearing.close()

    def _look_again(self, seconds: float) -> None:
        self._hearing.look_again(seconds)

    def _go(self) -> None:
        self._core.background(asyncio.create_task(self._look(), name="healing"))

    async def _look(self) -> None:
        async with self._core.lock:
            pending, inside = self._hearing.take()
            try:
                mended = await self._look_around(pending)
                mended += await self._look_inside(inside)
            except Exception as e:
                known = isinstance(e, NetengineError)  # else an error of ours, which will not pass in a moment
                log.error("cannot see what is wrong in the kernel: %s", e, exc_info=not known)
                self._look_again(_SOON if known else _WITHIN / _TIMES)
                return
        sandboxes = {getattr(r, "ns", "") for r in mended} - {""}
        for container in list(self._core.state.containers.values()):
            if self._tell is not None and container.sandbox_id in sandboxes:
                await self._tell(container)

    async def _look_around(self, pending: list[events.Notice]) -> tuple[Resource, ...]:
        self._ports = None
        suspicious = [n for n in pending if self._is_suspicious(n)]
        self._ports = None
        more = self._parents.suspect(pending)
        if uplink.suspect(self._core.state, pending):
            await uplink.look(self._core)
        by = next((n.by for n in pending if isinstance(n, events.RulesTouched) and n.by), "")
        mended: tuple[Resource, ...] = ()
        if any(isinstance(n, events.RulesTouched | events.Overrun) for n in suspicious):
            await self._mend(await reconcile.rules_difference(self._core), by)
        deleted = max((n.times for n in suspicious if isinstance(n, events.NamesTouched)), default=0)
        if deleted:
            self._names_deleted = deleted - self._core.kernel.names_removed
            mended += await self._mend(await reconcile.names_difference(self._core), "")
        if more or not all(isinstance(n, events.RulesTouched | events.NamesTouched) for n in suspicious):
            await self._mend(await reconcile.host_difference(self._core), "")
            overrun = any(isinstance(n, events.Overrun) for n in pending)
            found = await reconcile.difference(self._core, names=overrun, own=False)
            self._parents.tell(found)
            mended += await self._mend(found, "")
        return mended

    async def _look_inside(self, changes: list[kernel_insides.Change]) -> tuple[Resource, ...]:
        core = self._core
        if insides.route_of_a_network(core, changes):
            await self._mend(await reconcile.host_difference(core), "")
        suspects = insides.suspects(core, changes)
        return await self._mend(await reconcile.inside_difference(core, suspects), "") if suspects else ()

    # -- suspecting: from the model alone -------------------------------------------------------------------------------

    def _is_suspicious(self, notice: events.Notice) -> bool:
        match notice:
            case events.LinkGone(name=name):
                network = self._network_of_bridge(name)
                here = network is not None and (network.overlay is None or suspicion.is_here(self._core.state, network))
                return here or self._port(name) is not None or suspicion.is_tunnel(self._core.state, name)
            case events.LinkSeen(name=name):
                return self._looks_wrong(notice)
            case events.AddressGone(link=link, address=address):
                networks = self._core.state.networks.values()
                return suspicion.is_tunnel_address(self._core.state, address) or any(
                    n.bridge is not None
                    and link in ("", n.bridge.link)
                    and any(s.gateway == address for s in n.subnets)
                    for n in networks
                )
            case events.RateTouched(index=index):
                return self._has_rate(index)
            case events.EntryTouched():
                return suspicion.entry_looks_wrong(self._core.state, notice)
            case events.ForwardingOff(ipv6=ipv6):
                family = forwarding.IPV6 if ipv6 else forwarding.IPV4
                return any(isinstance(r, Sysctl) and r.path == family.path for r in self._core.base)
            case events.NamesTouched(times=times):
                return times > self._core.kernel.names_removed + self._names_deleted
            case events.RelayGone():
                return any(
                    ":" in p.host_ip for c in self._core.state.containers.values() for p in c.ports if p.host_port
                )
            case events.MountsChanged():
                return bool(reconcile.lost_namespaces(self._core))
            case events.AddressSeen():
                return False  # of ours none can come that is not there: only the uplink's matters
        return True

    def _looks_wrong(self, seen: events.LinkSeen) -> bool:
        network = self._network_of_bridge(seen.name)
        if network is not None and network.overlay is not None:
            return suspicion.link_looks_wrong(self._core.state, network, seen)
        if network is not None and network.bridge is not None:
            bridge = network.bridge
            if bridge.adopted:  # it may have come back without its ports
                return bool(list(self._core.state.attached_to(network.id)))
            return not seen.up or (seen.mtu, seen.mac) != (bridge.mtu, bridge.mac)
        if seen.up and seen.port and self._have_mtu(seen.mtu):
            return False  # whichever it is: what every connect ends with
        port = self._port(seen.name)
        if port is None:
            return suspicion.tunnel_looks_wrong(self._core.state, seen)
        if port.overlay is not None:
            return not seen.up or not seen.port or seen.mtu != suspicion.mtu(self._core.state, port)
        return not seen.up or not seen.port or port.bridge is None or seen.mtu != port.bridge.mtu

    def _have_mtu(self, mtu: int) -> bool:
        """Whether the ports of all networks have this MTU."""
        networks = self._core.state.networks.values()
        return all(n.overlay is None and (n.bridge is None or n.bridge.mtu == mtu) for n in networks)

    def _has_rate(self, index: int) -> bool:
        with suppress(OSError):
            link = socket.if_indextoname(index)
            containers = self._core.state.containers.values()
            return any(e.host_link == link and e.rate_in for c in containers for e in c.endpoints.values())
        return False

    def _network_of_bridge(self, link: str) -> Network | None:
        return next((n for n in self._core.state.networks.values() if link in _links(n)), None)

    def _port(self, link: str) -> Network | None:
        """The network whose port a link is."""
        if self._ports is None:  # once for all that was heard: after a second of disconnects that is hundreds
            containers = self._core.state.containers.values()
            self._ports = {e.host_link: n for c in containers for n, e in c.endpoints.items() if e.host_link}
        return self._core.state.networks.get(self._ports.get(link, ""))

    # -- mending ------------------------------------------------------------------------------------------------------

    async def _mend(self, found: Difference, by: str) -> tuple[Resource, ...]:
        """Put right what differs; answer what did."""
        core = self._core
        for name in found.unmounted:
            log.warning("put back the file of the namespace of %s: it was unmounted", name)
        touched = touched_by(found.steps)
        if not touched or self._is_fought_over(touched, by):
            return ()
        self._mended += [(time.monotonic(), r.key) for r in touched]
        problems = await reconcile.mend(core, found)
        lines = summary(diagnose(found.steps))
        done = "not all of it could be put right" if problems else "put right"
        for line in lines:
            log.warning("%s: %s%s", done, line, f" (done by {by})" if by else "")
        what = "; ".join(lines)
        for network in self._concerned(found) if not problems else ():
            core.events.publish("network", "heal", network.id, name=network.name, type=network.driver, what=what)
        if problems:
            # Soon, if it was a moment's shortage; not often, if it is something else.
            self._look_again(min(_SOON * 2**self._in_vain, _WITHIN / _TIMES))
        self._in_vain = self._in_vain + 1 if problems else 0
        return touched

    def _is_fought_over(self, touched: tuple[Resource, ...], by: str) -> bool:
        """Whether the same thing has been put back so often that it is left for a while."""
        now = time.monotonic()
        self._mended = [(when, key) for when, key in self._mended if now - when < _WITHIN]
        times = Counter(key for _, key in self._mended)
        worst = max(touched, key=lambda r: times[r.key])
        if times[worst.key] < _TIMES:
            return False
        free = min(when for when, key in self._mended if key == worst.key) + _WITHIN
        if self._waiting_until < now:
            log.error(
                "%s was taken away %d times within a minute%s: it is put back in %.0f s; find out who does that, and stop it",
                title(worst),
                times[worst.key] + 1,
                f", last by {by}" if by else "",
                free - now,
            )
            self._waiting_until = free
        self._look_again(max(free - now, 1.0))
        return True

    def _concerned(self, found: Difference) -> list[Network]:
        """The networks of what was mended; all of them when the rules were."""
        state = self._core.state
        touched = touched_by(found.steps)
        keys, on = {r.key for r in touched}, {getattr(r, "link", "") for r in touched}
        if any(r.key in keys for r in self._core.base):
            return [n for n in state.networks.values() if not n.predefined or n.bridge]
        of = {n.id: rendering.of_network(self._core, n) for n in state.networks.values()}
        out = {n.id: n for n in state.networks.values() if _meets(of[n.id], keys) or on & set(_links(n))}
        for container in state.containers.values():
            if _meets(rendering.of_container(self._core, container), keys):
                out |= {n: state.networks[n] for n in container.endpoints if n in state.networks}
        return list(out.values())


def _links(network: Network) -> tuple[str, ...]:
    """The links of the host that a network is."""
    if network.overlay is not None:
        return network.overlay.link, network.overlay.vxlan
    return (network.bridge.link,) if network.bridge else ()


def _meets(resources: frozenset[Resource], keys: set[Key]) -> bool:
    return any(r.key in keys for r in resources)


def touched_by(steps: Plan) -> tuple[Resource, ...]:
    """What a plan puts right."""
    return steps.delete + steps.missing + tuple(change.new for change in steps.change)
