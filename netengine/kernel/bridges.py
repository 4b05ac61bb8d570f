"""How bridges are made and removed. A name is no proof of ownership: users choose it, and others may take it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from netengine.kernel import messages, sysctl
from netengine.kernel.netlink import is_gone
from netengine.kernel.plan import Change, revived
from netengine.kernel.resources import HOST, MARK_GROUP, Bridge, Resource, Veth, Vxlan

if TYPE_CHECKING:
    from netengine.kernel.host import Kernel


def create(kernel: Kernel, resources: list[Bridge], made: list[Resource]) -> None:
    # In two goes: a batch is carried out to its end, and where somebody else's link has the name, that would get our mark.
    kernel.create_each(HOST, [(r, [(f"create bridge {r.name}", messages.bridge_add(r))]) for r in resources], made)
    batch: messages.Batch = []
    for r in resources:
        batch.append((f"mark bridge {r.name} as {r.mark}", messages.alternative_name(r.name, r.mark)))
        batch.append((f"bring bridge {r.name} up", messages.link_set(r.name, mtu=r.mtu)))
    kernel.execute(HOST, batch)


def remove(kernel: Kernel, resources: list[Bridge]) -> None:
    """A link of somebody else that has got the name meanwhile is not deleted."""
    batch: messages.Batch = []
    for r in resources:
        try:
            seen = kernel.socket_in(HOST).ask(f"look at {r.name}", messages.link_get(name=r.name))
        except OSError as e:
            if is_gone(e):
                continue
            raise
        if seen.get_attr("IFLA_GROUP") == MARK_GROUP:
            batch.append((f"delete {r.name}", messages.link_delete(index=seen["index"])))
    kernel.remove(HOST, batch)


def silence(step: Change) -> None:
    """The kernel may have given a port of a bridge IPv6 back with a change, and with it an address of its own, before anybody
    could say that it is to have none: that goes when IPv6 is taken off once more, and does not come back."""
    for ns, link in revived(step) if isinstance(step.new, Veth | Vxlan) else ():
        switch = f"net/ipv6/conf/{link}/disable_ipv6"
        if ns == HOST and sysctl.read(switch) == "0":
            sysctl.write(switch, "1")
            sysctl.write(switch, "0")
