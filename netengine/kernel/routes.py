"""How routes are made and removed. They name their link, and the kernel knows it by a number."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from netengine.kernel import messages
from netengine.kernel.netlink import is_gone
from netengine.kernel.resources import Resource, Route

if TYPE_CHECKING:
    from netengine.kernel.host import Kernel


def create(kernel: Kernel, resources: list[Route], made: list[Resource]) -> None:
    for ns, items in groupby(sorted(resources, key=attrgetter("ns")), key=attrgetter("ns")):
        groups: list[tuple[Route, messages.Batch]] = [
            (
                r,
                [
                    (
                        f"add route {r.destination} via {r.gateway or r.link}",
                        messages.route_add(kernel.index(ns, r.link), r),
                    )
                ],
            )
            for r in items
        ]
        kernel.create_each(ns, groups, made)


def remove(kernel: Kernel, resources: list[Route]) -> None:
    remove_by_index(kernel, resources, messages.route_delete)


def remove_by_index(kernel: Kernel, resources: list[Any], build: Callable[[int, Any], messages.Message]) -> None:
    """Remove what is on a link of a namespace; what went with its link is as good as removed."""
    for ns, items in groupby(sorted(resources, key=attrgetter("ns")), key=attrgetter("ns")):
        batch: messages.Batch = []
        for r in items:
            try:
                batch.append((f"delete {r}", build(kernel.index(ns, r.link), r)))
            except OSError as e:
                if not is_gone(e):
                    raise
        kernel.remove(ns, batch)
