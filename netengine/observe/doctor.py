"""Doctor: a difference between what should be in the kernel and what is, as findings with the commands that would mend each.

Pure. The commands can be pasted into a root shell on the host; `netengine doctor --fix` does the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

from netengine.kernel import ruleset
from netengine.kernel.nftables import element_text
from netengine.kernel.plan import Plan
from netengine.kernel.resources import (
    HOST,
    Address,
    Bridge,
    Element,
    Fdb,
    HostPort,
    Ipvlan,
    LinkUp,
    Macvlan,
    Namespace,
    NamespaceAlias,
    Neighbour,
    Resource,
    Route,
    Sysctl,
    Table,
    TokenBucket,
    Veth,
    Vlan,
    Vxlan,
    WireGuard,
    WireGuardPeer,
)
from netengine.observe.explain import explain

State = Literal["missing", "extra", "different"]
_WAS: dict[State, str] = {"missing": " was missing", "extra": " was left over", "different": ""}


class Finding(msgspec.Struct, frozen=True):
    """One thing that is not as it should be. `what` is its kind and name; `commands` would mend it by hand."""

    state: State
    what: str
    commands: tuple[str, ...] = ()


def diagnose(steps: Plan) -> list[Finding]:
    """The findings, in the order in which they would be mended. What the kernel does by itself on the way is left out."""
    found = [Finding("extra", title(r), _removal(r)) for r in steps.delete]
    found += [Finding("missing", title(r), tuple(s.command for s in explain([r]))) for r in steps.missing]
    found += [
        Finding("different", f"{title(change.new)}: {_contrast(change.old, change.new)}", _correction(change.new))
        for change in steps.change
    ]
    return found


def title(resource: Resource) -> str:
    """What a resource is called in reports and logs: its kind and key; the ids of namespaces cut to twelve digits."""
    return " ".join(word[:12] if len(word) == 64 else word for word in resource.key if word != HOST)


def summary(findings: Iterable[Finding]) -> list[str]:
    """A line for each kind of thing and what was wrong with it: `bridge docker0 was missing`."""
    kinds: dict[tuple[State, str], list[str]] = {}
    for finding in findings:
        kinds.setdefault((finding.state, finding.what.split()[0]), []).append(finding.what)
    lines = []
    for (state, _), whats in kinds.items():
        if len(whats) > 1:
            lines.append(f"{whats[0]} and {len(whats) - 1} more of the kind" + _WAS[state].replace("was", "were"))
        else:
            lines.append(whats[0] + _WAS[state])
    return lines


def _contrast(old: Resource, new: Resource) -> str:
    """`mtu 1400 instead of 1500`, for each field that differs."""
    names = [name for name in type(new).__slots__ if getattr(old, name, None) != getattr(new, name)]
    return ", ".join(f"{name} {_said(getattr(old, name))} instead of {_said(getattr(new, name))}" for name in names)


def _said(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return (
        {True: "yes", False: "no", "": "none"}.get(value, str(value)) if isinstance(value, bool | str) else str(value)
    )


def _ip(ns: str) -> str:
    return "ip" if ns == HOST else f"ip -n {ns[:12]}"


def _removal(resource: Resource) -> tuple[str, ...]:
    match resource:
        case Macvlan(ns=ns, name=name) | Ipvlan(ns=ns, name=name):
            return (f"{_ip(ns)} link delete {name}",)
        case Bridge(name=name) | Veth(name=name) | Vlan(name=name) | Vxlan(name=name) | WireGuard(name=name):
            return (f"ip link delete {name}",)
        case WireGuardPeer(link=link, public_key=key):
            return (f"wg set {link} peer {key} remove",)
        case Fdb(link=link, mac=mac):
            return (f"bridge fdb del {mac} dev {link} self",)
        case Neighbour(link=link, address=address):
            return (f"ip neighbour delete {address} dev {link}",)
        case Namespace(name=name):
            return (f"ip netns delete {name[:12]}",)
        case NamespaceAlias(alias=alias):
            return (f"rm /run/netns/{alias}",)
        case Address(ns=ns, link=link, interface=interface):
            return (f"{_ip(ns)} address delete {interface} dev {link}",)
        case Route(ns=ns, destination=destination, link=link):
            return (f"{_ip(ns)} route delete {destination} dev {link}",)
        case TokenBucket(ns=ns, link=link):
            return (f"tc{'' if ns == HOST else f' -n {ns[:12]}'} qdisc delete dev {link} root",)
        case LinkUp(ns=ns, link=link):
            return (f"{_ip(ns)} link set {link} down",)
        case Table(family=family):
            return (f"nft delete table {family} {ruleset.TABLE}",)
        case Element() as e:
            key = element_text(e).partition(" : ")[0]
            return (f"nft 'delete element {e.family} {ruleset.TABLE} {e.container} {{ {key} }}'",)
        case HostPort() | Sysctl():
            return ()
    return ()


def _correction(new: Resource) -> tuple[str, ...]:
    match new:
        case Bridge() as b:
            return (f"ip link set {b.name} address {b.mac} mtu {b.mtu} up",)
        case Veth() as v:
            if not v.master:
                return (f"ip link set {v.name} mtu {v.mtu} nomaster up",)
            isolated = "on" if v.isolated else "off"
            return (
                f"ip link set {v.name} mtu {v.mtu} master {v.master} up",
                f"bridge link set dev {v.name} hairpin on isolated {isolated}",
            )
        case WireGuard() as w:
            return tuple(s.command for s in explain([w]))[1:]
        case Vxlan() as x:
            return (f"ip link set {x.name} mtu {x.mtu} master {x.master} up",)
        case Element() as e:
            return (*_removal(e), *(s.command for s in explain([e])))
        case Route() | NamespaceAlias():
            return (*_removal(new), *(s.command for s in explain([new])))
    return tuple(s.command for s in explain([new]))
