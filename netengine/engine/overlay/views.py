"""What `network inspect` shows of the other hosts. Pure."""

from __future__ import annotations

from contextlib import suppress
from ipaddress import ip_address, ip_network

from netengine.cluster import ranges
from netengine.cluster.blocks import addresses_of
from netengine.cluster.mirror import Mirror
from netengine.cluster.session import Place
from netengine.model import JsonDict, Network


def peers(mirror: Mirror, place: Place, network_id: str) -> list[JsonDict]:
    """The hosts that have containers on a network and are up, as Docker lists them."""
    nodes = {node for node, _, _, _ in mirror.endpoints(network_id) if node == place.node_id or mirror.is_alive(node)}
    return [{"Name": name_of(mirror, node), "IP": _address(mirror, node)} for node in sorted(nodes)]


def services(mirror: Mirror, network_id: str) -> JsonDict:
    """All endpoints of all hosts, in Docker's form: those of no service are under the empty name."""
    tasks = [
        {
            "Name": record.name,
            "EndpointID": record.id,
            "EndpointIP": address,
            "Info": {
                "Host IP": _address(mirror, node),
                "Node": name_of(mirror, node),
                "State": "up" if mirror.is_alive(node) else "down",
            },
        }
        for node, _, address, record in mirror.endpoints(network_id)
        if addresses_of(record)[:1] == (address,)
    ]
    tasks.sort(key=lambda task: (str(task["Name"]), str(task["EndpointID"])))
    return {"": {"VIP": "<nil>", "Ports": [], "LocalLBIndex": 0, "Tasks": tasks}} if tasks else {}


def figures(mirror: Mirror, network: Network) -> list[tuple[str, int, int]]:
    """(subnet, addresses in use on all hosts, addresses left) of each subnet."""
    used = []
    for _, _, key, _ in mirror.endpoints(network.id):
        with suppress(ValueError):  # a node may write what it likes below its name
            used.append(ip_address(key))
    out = []
    for subnet in network.subnets:
        prefix = ip_network(subnet.subnet)
        taken = len({a for a in used if a in prefix} | ranges.reserved(subnet))
        out.append((subnet.subnet, taken, prefix.num_addresses - taken))
    return out


def name_of(mirror: Mirror, node: str) -> str:
    """A node's host name with the beginning of its id, since two hosts may have one name."""
    held = mirror.node(node)
    return f"{held.record.name}-{node[:12]}" if held else node


def _address(mirror: Mirror, node: str) -> str:
    status = mirror.status(node)
    return status.data_path if status else ""
