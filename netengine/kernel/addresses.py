"""How addresses are made and removed, and given back the connected routes that somebody deleted."""

from __future__ import annotations

import errno
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING

from netengine.kernel import messages
from netengine.kernel.netlink import NetlinkError
from netengine.kernel.resources import Address, Resource
from netengine.kernel.routes import remove_by_index

if TYPE_CHECKING:
    from netengine.kernel.host import Kernel


def create(kernel: Kernel, resources: list[Address], made: list[Resource]) -> None:
    for ns, group in groupby(sorted(resources, key=attrgetter("ns")), key=attrgetter("ns")):
        items = list(group)
        groups: list[tuple[Address, messages.Batch]] = [
            (r, [(f"add address {r.interface} to {r.link}", messages.address_add(kernel.index(ns, r.link), r))])
            for r in items
        ]
        try:
            kernel.create_each(ns, groups, made)
        except NetlinkError as e:
            if e.errno != errno.EEXIST:
                raise
            # It is there, and its connected route is not: `observe` takes it for missing.
            back = [r for r in items if r not in made]
            what = "add the connected route of"
            kernel.execute(
                ns, [(f"{what} {r.interface}", messages.connected_route(kernel.index(ns, r.link), r)) for r in back]
            )


def remove(kernel: Kernel, resources: list[Address]) -> None:
    remove_by_index(kernel, resources, messages.address_delete)
