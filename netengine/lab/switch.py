"""The switch: a namespace with a bridge that plays the physical network, and an nftables set of the pairs that are cut."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network

from netengine.lab.hosts import run
from netengine.lab.record import Node

BRIDGE = "lan"
CABLE = "eth0"
"""What a host calls its end."""

# At -200, since on kernel 6.1 with br_netfilter a chain of the bridge family at priority 0 sees nothing of IP.
_RULES = """
table bridge lab {
	set cut { type ifname . ifname; }
	chain forward {
		type filter hook forward priority -200;
		iifname . oifname @cut drop
	}
}
"""


def make(switch: Node) -> None:
    run(switch, ["ip", "link", "add", BRIDGE, "type", "bridge", "mcast_snooping", "0"], only_network=True)
    run(switch, ["ip", "link", "set", BRIDGE, "up"], only_network=True)
    run(switch, ["nft", "-f", "-"], _RULES, only_network=True)


def plug(switch: Node, host: Node, subnet: IPv4Network | IPv6Network) -> None:
    """A cable from a host to the switch, and the host's address on it."""
    add = ["ip", "link", "add", host.name, "type", "veth", "peer", "name", CABLE, "netns", str(host.pid)]
    run(switch, add, only_network=True)
    run(switch, ["ip", "link", "set", host.name, "master", BRIDGE, "up"], only_network=True)
    # Nobody else has the address: it is to be usable at once, without RFC 4862's second of asking.
    address = [f"{host.address}/{subnet.prefixlen}", *(["nodad"] if subnet.version == 6 else [])]
    run(host, ["ip", "addr", "add", *address, "dev", CABLE], only_network=True)
    run(host, ["ip", "link", "set", CABLE, "up"], only_network=True)


def cut(switch: Node, a: str, b: str) -> None:
    """No frame passes between two hosts from now on, in either direction."""
    _change(switch, "add", a, b)


def mend(switch: Node, a: str, b: str) -> None:
    _change(switch, "delete", a, b)


def _change(switch: Node, verb: str, a: str, b: str) -> None:
    elements = f'{verb} element bridge lab cut {{ "{a}" . "{b}", "{b}" . "{a}" }}\n'
    run(switch, ["nft", "-f", "-"], elements, only_network=True)
