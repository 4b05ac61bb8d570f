"""Parents of macvlan and ipvlan networks that go and come back while the daemon runs.

A parent that is deleted takes what is stacked on it along. It is the user's, so nobody puts it back; it is told, and when it
is back, so is all that was on it. What happens inside sandboxes is engine/insides.py's business.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from netengine.engine.core import Core
from netengine.engine.reconcile import Difference
from netengine.kernel import events
from netengine.model import Network

log = logging.getLogger(__name__)


class Parents:
    """What healing knows of parents: which are missing. One instance, used under the writer lock."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._missing: frozenset[str] | None = None
        """None before the first look: the start of the daemon saw for itself."""

    def suspect(self, notices: Iterable[events.Notice]) -> bool:
        """Whether the notices on links mean that something stacked is gone, wrong, or may be made again."""
        for notice in notices:
            match notice:
                case events.LinkGone(name=name) if self._networks_on(name):
                    return True
                case events.LinkSeen(name=name, up=up) if networks := self._networks_on(name):
                    if (
                        self._missing is None
                        or name in self._missing
                        or (not up and any(self._is_ours(n, name) for n in networks))
                    ):
                        return True
        return False

    def _networks_on(self, link: str) -> list[Network]:
        """The networks that need a link of the host."""
        networks = self._core.state.networks.values()
        return [n for n in networks if n.parent and link in (n.parent.link, n.parent.trunk, n.parent.host_link)]

    def _is_ours(self, network: Network, link: str) -> bool:
        parent = network.parent
        return parent is not None and (
            link == parent.host_link or (link == parent.link and (parent.own or bool(parent.trunk)))
        )

    def tell(self, found: Difference) -> None:
        """Say which parents are missing now that were not, and which are back."""
        before = self._missing or frozenset()
        for name in sorted(found.missing_parents - before):
            networks = self._networks_on(name)
            log.error(
                "parent interface %s is gone: the containers of %s reach nobody there until it is back",
                name,
                ", ".join(n.name for n in networks),
            )
            for network in networks:
                self._core.events.publish(
                    "network",
                    "degrade",
                    network.id,
                    name=network.name,
                    type=network.driver,
                    what=f"parent interface {name} is gone",
                )
        for name in sorted(before - found.missing_parents):
            log.warning("parent interface %s is back", name)
        self._missing = found.missing_parents
