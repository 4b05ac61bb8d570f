"""Explain: kernel resources as the `ip`, `nft` and `sysctl` commands that would build the same by hand, each with its reason.

The commands can be pasted into a root shell on a host without netengine. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from netengine.kernel import ruleset, shaping
from netengine.kernel.nftables import element_text
from netengine.kernel.plan import plan
from netengine.kernel.resources import (
    HOST,
    MARK_GROUP,
    ROUTE_PROTOCOL,
    Address,
    Bridge,
    Element,
    Fdb,
    HostPort,
    Ipvlan,
    LinkUp,
    Macvlan,
    NameService,
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
from netengine.kernel.wgdevice import KEEPALIVE


@dataclass(frozen=True, slots=True)
class Step:
    """A command and why it is there."""

    command: str
    why: str


def explain(resources: Iterable[Resource]) -> list[Step]:
    """The commands in the order in which they work."""
    resources = list(resources)
    aloof = {f"net/ipv6/conf/{r.master}/disable_ipv6" for r in resources if isinstance(r, Vxlan)}
    steps: list[Step] = []
    for resource in plan(resources, ()).create:
        said = _steps(resource)
        if isinstance(resource, Sysctl) and resource.path in aloof:
            said = [Step(step.command, "the host has no part in the network") for step in said]
        steps += said
    return steps


def _name(ns: str) -> str:
    """A namespace's name in commands: the first twelve digits of its id."""
    return ns[:12]


def _ip(ns: str) -> str:
    return "ip" if ns == HOST else f"ip -n {_name(ns)}"


def _steps(resource: Resource) -> list[Step]:
    match resource:
        case Namespace(name=name):
            return [
                Step(f"ip netns add {_name(name)}", "the sandbox: a network namespace of its own"),
                Step(
                    f"ip netns exec {_name(name)} sysctl -w net.ipv6.conf.default.disable_ipv6=1",
                    "no IPv6 on the links of a network without it",
                ),
                Step(
                    f"ip netns exec {_name(name)} sysctl -w net.ipv6.conf.default.accept_ra=0 "
                    "net.ipv6.conf.default.accept_dad=0",
                    "with IPv6: nobody on the network can play its router; a link-local address is usable at once",
                ),
                Step(
                    f"ip netns exec {_name(name)} sysctl -w net.ipv4.conf.default.arp_notify=1 "
                    "net.ipv6.conf.default.ndisc_notify=1",
                    "links announce their address when they come up, so that no neighbour keeps an old MAC",
                ),
            ]
        case NamespaceAlias(alias=alias, ns=ns):
            return [Step(f"ln -s /run/netns/{_name(ns)} /run/netns/{alias}", "enter it by the container's name")]
        case Bridge() as b:
            return [
                Step(
                    f"ip link add {b.name} address {b.mac} group {MARK_GROUP} type bridge stp_state 0 forward_delay 0",
                    "the network: a switch in the kernel, with a MAC that does not change with its ports",
                ),
                Step(f"ip link property add dev {b.name} altname {b.mark}", "the mark that says whose it is"),
                Step(
                    f"ip link set {b.name} mtu {b.mtu} up",
                    "set by itself, the MTU stays when the last port leaves",
                ),
            ]
        case Veth(master="") as v:
            why = "a wire that leads nowhere: its far end is alone in a namespace"
            return [
                Step(
                    f"ip link add {v.name} mtu {v.mtu} group {MARK_GROUP} type veth "
                    f"peer name {v.peer} address {v.peer_mac} mtu {v.mtu} netns {_name(v.ns)}",
                    why,
                ),
                Step(f"ip link set {v.name} addrgenmode none up", why),
            ]
        case Vlan() as v:
            why = f"the frames with tag {v.vid} (802.1Q) on the wire of {v.parent}"
            return [Step(f"ip link add link {v.parent} name {v.name} group {MARK_GROUP} type vlan id {v.vid}", why)]
        case Macvlan() as m:
            why = f"a link with a MAC of its own on the wire of {m.parent}, born where it belongs"
            return [Step(f"ip link add link {m.parent} {_born(m)} type macvlan mode {m.mode}", why)]
        case Ipvlan() as i:
            why = f"a link with the MAC of {i.parent}; frames are told apart by their addresses"
            return [Step(f"ip link add link {i.parent} {_born(i)} type ipvlan mode {i.mode} {i.flag}", why)]
        case WireGuard() as w:
            what = "what goes between hosts is encrypted; where the kernel has no WireGuard, a process serves the link"
            conf = f"net/ipv6/conf/{w.name}/disable_ipv6"
            mine = "the host's address in it, by which VXLAN knows what came this way"
            return [
                Step(f"ip link add {w.name} type wireguard || wireguard-go {w.name}", what),
                Step(
                    f"wg set {w.name} listen-port {w.port} private-key {w.key_file}",
                    f"whose public key is {w.public_key}",
                ),
                Step(f"sysctl -w {_quoted(f'{_dotted(conf)}=0')}", mine),
                Step(f"ip link set {w.name} mtu {w.mtu} group {MARK_GROUP} addrgenmode none up", mine),
                Step(f"ip address add {w.address} nodad dev {w.name}", mine),
            ]
        case WireGuardPeer() as p:
            return [
                Step(
                    f"wg set {p.link} peer {p.public_key} endpoint {p.endpoint} persistent-keepalive {KEEPALIVE} "
                    f"allowed-ips {','.join(p.allowed)}",
                    "another host: what it may send from, and is sent",
                )
            ]
        case Vxlan() as x:
            dev = f" dev {x.parent}" if x.parent else ""
            return [
                Step(
                    f"ip link add {x.name} mtu {x.mtu} group {MARK_GROUP} type vxlan id {x.vni} local {x.local}{dev} "
                    f"dstport {x.port} nolearning proxy",
                    "the way to the other hosts: frames in UDP; it learns nothing, floods nothing, and answers ARP itself",
                ),
                Step(
                    f"ip link set {x.name} mtu {x.mtu} master {x.master} addrgenmode none up", "a port of the network"
                ),
            ]
        case Fdb() as f:
            via = f" via {f.via}" if f.via else ""
            return [
                Step(
                    f"bridge fdb replace {f.mac} dev {f.link} dst {f.remote}{via} self permanent",
                    "the host that an endpoint of the network is on",
                )
            ]
        case Neighbour() as n:
            return [
                Step(
                    f"ip neighbour replace {n.address} lladdr {n.mac} dev {n.link} nud permanent proto {ROUTE_PROTOCOL}",
                    "what is answered to who asks for that endpoint's address",
                )
            ]
        case Veth() as v:
            cable = "the cable: one end a port of the bridge, the other inside the sandbox"
            steps = [
                Step(
                    f"ip link add {v.name} mtu {v.mtu} group {MARK_GROUP} master {v.master} type veth "
                    f"peer name {v.peer} address {v.peer_mac} mtu {v.mtu} netns {_name(v.ns)}",
                    cable,
                )
            ]
            hairpin = "a container reaches its own published port (the packet may leave by the port it came in by)"
            steps.append(Step(f"bridge link set dev {v.name} hairpin on", hairpin))
            if v.isolated:
                isolated = "containers of this network do not reach each other (icc=false)"
                steps.append(Step(f"bridge link set dev {v.name} isolated on", isolated))
            return [*steps, Step(f"ip link set {v.name} addrgenmode none up", cable)]
        case LinkUp(ns=ns, link=link, announces=announces):
            why = "coming up with an address, it announces that by ARP"
            if not announces:
                why = "it has the MAC that goes with its address, as whoever had that before: there is nothing to announce"
            if link == "lo":
                why = "127.0.0.1 inside the sandbox"
            elif ns == HOST:
                why = "what is stacked on it needs it up"
            return [Step(f"{_ip(ns)} link set {link} up", why)]
        case NameService(ns=ns):
            return [
                Step(
                    f": # the name server has sockets on 127.0.0.11 inside {_name(ns)}; see: "
                    f"ip netns exec {_name(ns)} nft list table ip netengine-dns",
                    "names: port 53 of 127.0.0.11 leads to the name server, by stateless rules",
                )
            ]
        case TokenBucket(ns=ns, link=link, rate=rate):
            tc = "tc" if ns == HOST else f"tc -n {_name(ns)}"
            way = "to" if ns == HOST else "from"
            burst, queue = shaping.sizes(rate)
            return [
                Step(
                    f"{tc} qdisc replace dev {link} root handle {MARK_GROUP:x}: tbf rate {rate}bit burst {burst} limit {queue}",
                    f"no more goes {way} the container than it may",
                )
            ]
        case Address(ns=ns, link=link, interface=interface):
            why = "the gateway's address" if ns == HOST else "the container's address"
            if ns == HOST and interface.endswith(("/32", "/128")):
                why = "the host's own address on the network"
            how = "nodad" if ":" in interface else "broadcast +"
            return [Step(f"{_ip(ns)} address add {interface} {how} dev {link}", why)]
        case Route(ns=ns, destination=destination, link=link, gateway=gateway):
            via = f"via {gateway} " if gateway else ""
            return [Step(f"{_ip(ns)} route add {destination} {via}dev {link} proto {ROUTE_PROTOCOL}", "the way out")]
        case Sysctl() as s:
            prefix = "" if s.ns == HOST else f"ip netns exec {_name(s.ns)} "
            return [
                Step(
                    f"{prefix}sysctl -w {_quoted(f'{_dotted(s.path)}={s.value}')}",
                    _why(s),
                )
            ]
        case Table(family=family):
            return [
                Step(
                    f"nft -f - <<'END'\n{ruleset.text(family)}END",
                    "the constant rules: what follows are elements of its sets and maps",
                )
            ]
        case Element() as e:
            return [
                Step(
                    f"nft 'add element {e.family} {ruleset.TABLE} {e.container} {{ {element_text(e)} }}'",
                    ruleset.container(e.container).why,
                )
            ]
        case HostPort(address=address, protocol=protocol, port=port):
            return [
                Step(
                    f": # netengined holds {protocol} {_before_port(address)}:{port} with a bound socket",
                    "nobody else can take the port unknowingly; what the rules translate never comes to the socket",
                )
            ]
        case Relay(address=address, protocol=protocol, port=port) as r:
            target = f"{_before_port(r.target)}:{r.target_port}"
            return [
                Step(
                    f": # the relay carries {protocol} {_before_port(address)}:{port} to {target}",
                    "what the rules cannot translate: from ::1 and link-local addresses, and to a container without IPv6",
                )
            ]


def _born(link: Macvlan | Ipvlan) -> str:
    """Name, place and address of a link, as words of `ip link add`."""
    words = [f"name {link.name}"]
    if isinstance(link, Macvlan) and link.mac:
        words.append(f"address {link.mac}")
    if link.mtu:
        words.append(f"mtu {link.mtu}")
    words.append(f"group {MARK_GROUP}")
    if link.ns:
        words.append(f"netns {_name(link.ns)}")
    return " ".join(words)


_SYSCTLS = {
    "arp_filter": "it answers for the host's other addresses, but only to who is reached by it: to the rest the parent does",
    "route_localnet": "the answer to a connection from 127.0.0.1 to a published port finds its way back",
    "disable_ipv6=1": "no IPv6 on the links of a network without it",
    "disable_ipv6=0": "the network has IPv6",
    "accept_ra=0": "nobody on the network can play its router: routes come from netengine alone",
    "accept_dad=0": "its link-local address, which forwarding needs, can be used at once",
    "proxy_arp_pvlan": "with icc off, the host answers ARP in place of a neighbour, to pass on what links allow",
    "proxy_delay": "and does so at once",
    "ip_forward": "the host forwards packets between its networks",
    "forwarding=1": "the host forwards IPv6 packets between its networks",
}


def _why(s: Sysctl) -> str:
    name = s.path.rsplit("/", 1)[-1]
    if "/all/" in s.path and s.ns != HOST:
        return "asked for with --sysctl"
    return _SYSCTLS.get(f"{name}={s.value}") or _SYSCTLS.get(name, "asked for with --sysctl")


def _before_port(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _dotted(path: str) -> str:
    """The path in sysctl(8)'s dotted form, in which a dot within a name is a slash."""
    return path.translate(str.maketrans("./", "/."))


def _quoted(text: str) -> str:
    """One word for a shell. A sysctl's value is whatever its user gave."""
    return "'" + text.replace("'", "'\\''") + "'"
