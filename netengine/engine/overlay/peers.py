"""Which records of other hosts are believed: an endpoint there becomes a peer only if its host may have it. Pure.

Every node writes its own endpoints, and a node may be in the wrong hands. What it says must not lead other hosts' packets
astray: an address outside the network, or one that is another node's to give away, is refused, and so is a MAC that is no
host's, or that goes with another address.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address, ip_interface

from netengine.cluster import ranges
from netengine.cluster.blocks import addresses_of
from netengine.cluster.records import BlockRecord, EndpointRecord, StatusRecord
from netengine.drivers.overlay import mac_for
from netengine.drivers.underlay import Peer
from netengine.drivers.wireguard import tunnel_address
from netengine.engine.overlay.fabric import Place
from netengine.errors import Invalid
from netengine.ipam import parse_mac
from netengine.model import Network

DERIVED = "02:42:"
"""The MACs that go with IPv4 addresses begin so: nobody may wish for one."""


def peer_of(
    network: Network,
    blocks: Mapping[str, BlockRecord],
    place: Place,
    record: EndpointRecord,
    status: StatusRecord | None,
    macs: Mapping[str, Place],
    cluster: str,
) -> Peer | None:
    """The peer that a record is, or None: its host has not said yet where it is, or the key is that of a second address.

    `blocks` are the network's by CIDR, `macs` those that were wished for and whose they are. Raises Invalid, saying why, for a
    record that is not to be believed.
    """
    node, key = place
    addresses = addresses_of(record)
    if key not in addresses:
        raise Invalid(f"its address is {', '.join(addresses) or 'none'}, and its key says {key[:60]}")
    if key != addresses[0] or status is None:
        return None
    for text in addresses:
        _check_address(network, blocks, node, text)
    mac = parse_mac(record.mac)
    expected = mac_for(addresses[0]) if record.address else ""
    if mac != expected:
        if mac.startswith(DERIVED):
            raise Invalid(f"MAC {mac} goes with another address than {addresses[0]}")
        if macs.get(mac, place) != place:
            raise Invalid(f"MAC {mac} is that of {macs[mac][1]} on node {macs[mac][0]}")
    vtep = str(ip_address(status.data_path))
    if network.overlay is not None and network.overlay.encrypted:
        vtep = tunnel_address(cluster, node) if status.wireguard_key else ""
    return Peer(mac, addresses, vtep) if vtep else None


def _check_address(network: Network, blocks: Mapping[str, BlockRecord], node: str, text: str) -> None:
    address = ip_address(text)
    if str(address) != text:
        raise Invalid(f"{text} is not how that address is written")
    subnet = ranges.subnet_of(network, address)
    if address in ranges.reserved(subnet):
        raise Invalid(f"{text} is reserved on network {network.name}")
    cidr = str(ranges.block_of(ip_interface(subnet.subnet).network, address))
    block = blocks.get(cidr)
    if block is None or block.lent.get(text, block.node) != node:
        raise Invalid(f"{text} is not this node's to give away")
