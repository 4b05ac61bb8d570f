"""Kernels drawn at random for property tests: sets of resources that can exist together, as drivers render them."""

from __future__ import annotations

from hypothesis import strategies as st

from netengine.kernel.resources import (
    HOST,
    IPV6_MIN_MTU,
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
    Relay,
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

BRIDGES = ("br0", "br1")
SANDBOXES = ("s0", "s1", "s2")
MACS = ("02:00:00:00:00:0a", "02:00:00:00:00:0b")


@st.composite
def worlds(draw: st.DrawFn) -> frozenset[Resource]:
    """A kernel with up to two bridges and three sandboxes. Few names, so that two worlds have much in common."""
    out: set[Resource] = {Table("ip")}
    tunnel = draw(_tunnels())
    bridges = draw(st.lists(st.sampled_from(BRIDGES), unique=True))
    for bridge in bridges:
        mtu = draw(st.sampled_from([1200, 1400, 1500]))
        out |= {Bridge(bridge, "02:00:00:00:00:01", mtu, f"mark-{bridge}"), Element("ip", "bridges", (bridge,))}
        if draw(st.booleans()):
            out.add(Address(HOST, bridge, draw(st.sampled_from(["10.0.0.1/24", "10.0.1.1/24"]))))
        if mtu < IPV6_MIN_MTU:
            out.add(Sysctl(HOST, f"net/ipv6/conf/{bridge}/disable_ipv6", "1"))
        elif draw(st.booleans()):
            out |= {
                Sysctl(HOST, f"net/ipv6/conf/{bridge}/disable_ipv6", "0"),
                Address(HOST, bridge, draw(st.sampled_from(["fd00::1/64", "fd00:1::1/64"]))),
            }
        if draw(st.booleans()):
            out.add(Sysctl(HOST, f"net/ipv4/conf/{bridge}/route_localnet", draw(st.sampled_from("01"))))
        if draw(st.booleans()):
            out.add(Element("ip", "pairs", (bridge, bridge), (draw(st.sampled_from(["accept", "drop"])),)))
        if draw(st.booleans()):
            remotes = draw(_remotes(bridge, bridges))
            out |= remotes | {Table("inet"), Element("inet", "sealed", (bridge,))}
            if any(isinstance(r, Vxlan) and r.parent for r in remotes):
                out |= tunnel
    parents = ["up0"]
    if draw(st.booleans()):
        parents.append("up0.5")
        out |= {Vlan("up0.5", "up0", draw(st.sampled_from([5, 6]))), LinkUp(HOST, "up0.5")}
        out.add(Sysctl(HOST, "net/ipv6/conf/up0.5/disable_ipv6", "1"))
    if draw(st.booleans()):
        out |= {Macvlan(HOST, "shim", draw(st.sampled_from(parents)), "bridge", MACS[0]), LinkUp(HOST, "shim")}
        out.add(Route(HOST, "10.9.0.2/32", "shim"))
    for sandbox in draw(st.lists(st.sampled_from(SANDBOXES), unique=True)):
        out |= {Namespace(sandbox), LinkUp(sandbox, "lo")}
        if draw(st.booleans()):
            out.add(NamespaceAlias(draw(st.sampled_from(["web", "db"])) + sandbox, sandbox))
        if draw(st.booleans()):
            out.add(Sysctl(sandbox, "net/ipv4/ip_unprivileged_port_start", draw(st.sampled_from("01"))))
        if bridges and draw(st.booleans()):
            out |= draw(_endpoints(sandbox, bridges))
        if draw(st.booleans()):
            out |= draw(_stacked(sandbox, parents))
    return frozenset(out)


@st.composite
def _tunnels(draw: st.DrawFn) -> frozenset[Resource]:
    """A WireGuard link and other hosts."""
    link = WireGuard(
        "wg0", draw(st.sampled_from(["fe80::1/64", "fe80::9/64"])), 51840, draw(st.sampled_from("AB")), 1440
    )
    peers = draw(st.lists(st.sampled_from("CDE"), unique=True))
    return frozenset({link, *(WireGuardPeer("wg0", peer, "192.0.2.2:51840", ("fe80::2/128",)) for peer in peers)})


@st.composite
def _remotes(draw: st.DrawFn, bridge: str, bridges: list[str]) -> frozenset[Resource]:
    """A VXLAN link of a bridge, and endpoints on other hosts. Each bridge has its own VNIs."""
    link = f"vx-{bridge}"
    vni = draw(st.sampled_from([4096, 4098])) + BRIDGES.index(bridge)
    parent = draw(st.sampled_from(["", "wg0"]))
    local = "fe80::1" if parent else draw(st.sampled_from(["192.0.2.1", "192.0.2.9"]))
    master = draw(st.sampled_from(bridges))
    mtu = draw(st.sampled_from([1200, 1400, 1450]))
    out: set[Resource] = {Vxlan(link, vni, local, 4789, master, mtu, parent)}
    has_ipv6 = mtu >= IPV6_MIN_MTU
    out.add(Sysctl(HOST, f"net/ipv6/conf/{link}/disable_ipv6", draw(st.sampled_from("01" if has_ipv6 else "1"))))
    for number in draw(st.lists(st.integers(2, 4), unique=True)):
        mac = f"02:42:0a:00:00:{number:02x}"
        remote = "fe80::2" if parent else draw(st.sampled_from(["192.0.2.2", "192.0.2.3"]))
        out |= {
            Fdb(link, mac, remote, parent),
            Neighbour(link, f"10.0.0.{number}", draw(st.sampled_from([mac, *MACS]))),
        }
        if has_ipv6 and draw(st.booleans()):
            out.add(Neighbour(link, f"fd00::{number}", mac))
    return frozenset(out)


@st.composite
def _endpoints(draw: st.DrawFn, sandbox: str, bridges: list[str]) -> frozenset[Resource]:
    peer = draw(st.sampled_from(["eth0", "eth1"]))
    host_port = draw(st.integers(8080, 8082))
    mtu = draw(st.sampled_from([1200, 1400, 1500]))
    out: set[Resource] = {
        Veth(
            name=f"veth{sandbox}",
            master=draw(st.sampled_from(bridges)),
            ns=sandbox,
            peer=peer,
            peer_mac=draw(st.sampled_from(MACS)),
            mtu=mtu,
            isolated=draw(st.booleans()),
        ),
        Address(sandbox, peer, draw(st.sampled_from(["10.0.0.2/24", "10.0.0.3/24"]))),
        LinkUp(sandbox, peer),
    }
    if draw(st.booleans()):
        out.add(Route(sandbox, "default", peer, draw(st.sampled_from(["10.0.0.1", "10.0.0.254"]))))
    for ns, link in ((HOST, f"veth{sandbox}"), (sandbox, peer)):
        if draw(st.booleans()):
            out.add(TokenBucket(ns, link, draw(st.sampled_from([8000, 10_000_000]))))
    if draw(st.booleans()):
        guarded = (f"veth{sandbox}", draw(st.sampled_from(MACS)))
        out |= {Table("bridge"), Element("bridge", "guarded", guarded[:1]), Element("bridge", "stations", guarded)}
        out.add(Element("bridge", "owners", (*guarded, draw(st.sampled_from(["10.0.0.2", "10.0.0.3"])))))
        if draw(st.booleans()):
            out.add(Element("bridge", "owners6", (*guarded, "fd00::2")))
            out.add(Element("bridge", "targets", (guarded[0], "fd00::2")))
    if mtu >= IPV6_MIN_MTU and draw(st.booleans()):
        out |= {
            Sysctl(sandbox, f"net/ipv6/conf/{peer}/disable_ipv6", "0"),
            Address(sandbox, peer, draw(st.sampled_from(["fd00::2/64", "fd00::3/64"]))),
            Route(sandbox, "::/0", peer, draw(st.sampled_from(["fd00::1", "fd00::fe"]))),
        }
    if draw(st.booleans()):
        # A port of the host belongs to one sandbox only.
        port = host_port + 100 * int(sandbox[1:])
        out.add(HostPort("0.0.0.0", "tcp", port))
        if draw(st.booleans()):
            out |= {
                HostPort("::", "tcp", port),
                Relay("::", "tcp", port, draw(st.sampled_from(["10.0.0.2", "fd00::2"])), 80),
            }
        out.add(Element("ip", "ports", ("tcp", str(port)), ("10.0.0.2", "80")))
    if draw(st.booleans()):
        # Both ends of a link render it: two sandboxes may have one and the same.
        out.add(Element("ip", "links", ("br0", "10.0.0.2", "10.0.0.3", "tcp", draw(st.sampled_from(["80", "81"])))))
    return frozenset(out)


@st.composite
def _stacked(draw: st.DrawFn, sandbox: str, parents: list[str]) -> frozenset[Resource]:
    """An endpoint on a parent, which is the host's or a VLAN of ours."""
    parent = draw(st.sampled_from(parents))
    link: Resource = Ipvlan(sandbox, "eth2", parent, draw(st.sampled_from(["l2", "l3"])), "bridge")
    if draw(st.booleans()):
        link = Macvlan(
            sandbox,
            "eth2",
            parent,
            draw(st.sampled_from(["bridge", "vepa"])),
            draw(st.sampled_from(MACS)),
            draw(st.sampled_from([0, 1400])),
        )
    out: set[Resource] = {link, LinkUp(sandbox, "eth2")}
    if draw(st.booleans()):
        out.add(Address(sandbox, "eth2", draw(st.sampled_from(["10.9.0.2/24", "10.9.0.3/24"]))))
    if draw(st.booleans()):
        out.add(Route(sandbox, "10.8.0.0/16", "eth2"))
    return frozenset(out)
