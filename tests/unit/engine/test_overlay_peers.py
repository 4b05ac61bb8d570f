"""Which records of other hosts are believed: a node in the wrong hands cannot lead anybody's packets astray."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import msgspec
import pytest

from netengine.cluster import networks as shared
from netengine.cluster import ranges
from netengine.cluster.records import FIRST_VNI, LAST_VNI, BlockRecord, EndpointRecord, StatusRecord
from netengine.drivers import OverlayDriver
from netengine.drivers.wireguard import TunnelPeer, tunnel_address
from netengine.engine.overlay.encryption import host_of
from netengine.engine.overlay.peers import peer_of
from netengine.errors import Invalid, Unavailable
from netengine.model import Network, Subnet

NODE, OTHER = "n2", "n3"
BLOCKS = {
    "10.0.9.16/28": BlockRecord(node=NODE, lent={"10.0.9.20": OTHER}),
    "10.0.9.0/28": BlockRecord(node=NODE),
    "10.0.9.32/28": BlockRecord(node=OTHER, lent={"10.0.9.40": NODE}),
    "fd00:9::/112": BlockRecord(node=NODE),
}
STATUS = StatusRecord(data_path="192.0.2.2")
GOOD = EndpointRecord(
    id="e1", container_id="c1", name="web", mac="02:42:0a:00:09:11", address="10.0.9.17/24", address6="fd00:9::17/64"
)


def network(**more: Any) -> Network:
    subnets = [
        Subnet(subnet="10.0.9.0/24", gateway="10.0.9.1", aux={"dns": "10.0.9.3"}),
        Subnet(subnet="fd00:9::/64", gateway="fd00:9::1"),
    ]
    made = Network(id="a" * 64, name="app", driver="overlay", created="", enable_ipv6=True, subnets=subnets, **more)
    OverlayDriver().settle(made, [], 1500)
    return made


def changed(**fields: Any) -> EndpointRecord:
    return msgspec.structs.replace(GOOD, **fields)


def believed(record: EndpointRecord, key: str = "", status: StatusRecord | None = STATUS, **more: Any) -> Any:
    place = (NODE, key or record.address.partition("/")[0])
    return peer_of(more.get("network", network()), BLOCKS, place, record, status, more.get("macs", {}), "cluster")


def test_a_good_record_is_a_peer_at_its_host() -> None:
    peer = believed(GOOD)
    assert (peer.mac, peer.addresses, peer.vtep) == ("02:42:0a:00:09:11", ("10.0.9.17", "fd00:9::17"), "192.0.2.2")


def test_an_address_that_was_lent_is_the_borrower_s() -> None:
    lent = changed(address="10.0.9.40/24", mac="02:42:0a:00:09:28", address6="")
    assert believed(lent).addresses == ("10.0.9.40",)


def test_the_second_address_s_key_and_a_host_that_says_nothing_yet_are_no_peers() -> None:
    assert believed(GOOD, key="fd00:9::17") is None
    assert believed(GOOD, status=None) is None


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"address": "192.0.2.7/24", "mac": "02:42:c0:00:02:07"}, "no configured subnet contains"),
        ({"address": "10.0.9.33/24", "mac": "02:42:0a:00:09:21"}, "not this node's to give away"),
        ({"address": "10.0.9.20/24", "mac": "02:42:0a:00:09:14"}, "not this node's to give away"),
        ({"address": "10.0.9.200/24", "mac": "02:42:0a:00:09:c8"}, "not this node's to give away"),
        ({"address": "10.0.9.1/24", "mac": "02:42:0a:00:09:01"}, "is reserved"),
        ({"address": "10.0.9.3/24", "mac": "02:42:0a:00:09:03"}, "is reserved"),
        ({"address6": "fd00:9::1/64"}, "is reserved"),
        ({"address6": "fd00:8::17/64"}, "no configured subnet contains"),
        ({"address6": "fd00:9::1:17/64"}, "not this node's to give away"),
        ({"address6": "fd00:9:0::17/64"}, "is not how that address is written"),
        ({"address": ""}, "its key says"),
        ({"mac": "01:00:5e:00:00:01"}, "multicast"),
        ({"mac": "ff:ff:ff:ff:ff:ff"}, "multicast"),
        ({"mac": "00:00:00:00:00:00"}, "zero address"),
        ({"mac": "nonsense"}, "invalid mac"),
        ({"mac": "02:42:0a:00:09:99"}, "goes with another address"),
        ({"mac": "06:00:00:00:00:01"}, "is that of 10.0.9.40"),
    ],
)
def test_what_is_not_believed(fields: dict[str, str], words: str) -> None:
    record = changed(**fields)
    key = record.address.partition("/")[0] or "10.0.9.17"
    with pytest.raises(Invalid, match=words):
        believed(record, key, macs={"06:00:00:00:00:01": (OTHER, "10.0.9.40")})


@pytest.mark.parametrize("address", ["10.0.9", "10.0.9.17; rm", "::ffff:10.0.9.17%eth0", "nonsense"])
def test_what_is_no_address_is_refused_without_harm(address: str) -> None:
    with pytest.raises((Invalid, ValueError)):
        believed(changed(address=f"{address}/24", address6=""))


def test_of_an_encrypted_network_the_host_is_where_its_key_is() -> None:
    secret = network(options={"encrypted": ""})
    assert believed(GOOD, network=secret) is None, "it has no key yet"
    status = StatusRecord(data_path="192.0.2.2", wireguard_key="x", wireguard_port=51840)
    assert believed(GOOD, status=status, network=secret).vtep == tunnel_address("cluster", NODE)


KEY = "Ai0iGMMVRcIcAjaBWfJAlH9nHH0DWCNzcpiUIRJZVzs="


@pytest.mark.parametrize(
    ("key", "address", "port", "words"),
    [
        ("short", "192.0.2.2", 51840, "key or port"),
        ("ä" * 44, "192.0.2.2", 51840, "key or port|ascii|ASCII"),
        (KEY, "192.0.2.2", 0, "key or port"),
        (KEY, "192.0.2.2", 70000, "key or port"),
        (KEY, "192.0.2.2\nPublicKey = x", 51840, "does not appear to be"),
        ("Bi0iGMMVRcIcAjaBWfJAlH9nHH0DWCNzcpiUIRJZVzs=", "192.0.2.2", 51840, "has the WireGuard key of node n9"),
    ],
)
def test_a_host_s_key_is_looked_at(key: str, address: str, port: int, words: str) -> None:
    others = {"n9": TunnelPeer("n9", "Bi0iGMMVRcIcAjaBWfJAlH9nHH0DWCNzcpiUIRJZVzs=", "192.0.2.9")}
    with pytest.raises((Invalid, ValueError), match=words):
        host_of(NODE, key, address, port, others)
    assert host_of(NODE, KEY, "192.0.2.2", 51840, others).public_key == KEY


# -- ranges and numbers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("subnet", "size", "count"),
    [
        ("10.0.0.0/24", 28, 16),
        ("10.0.0.0/16", 24, 256),
        ("10.0.0.0/29", 31, 4),
        ("10.0.0.0/30", 31, 2),
        ("10.0.0.0/31", 32, 1),
    ],
)
def test_a_subnet_is_cut_in_about_as_many_blocks_as_a_block_has_addresses(subnet: str, size: int, count: int) -> None:
    first = str(ip_network(subnet)[1])
    cut = list(ranges.blocks(Subnet(subnet=subnet, gateway=first)))
    assert {b.prefixlen for b in cut} == {size}
    assert len(cut) <= count
    given = {a for b in cut for a in ranges.addresses(Subnet(subnet=subnet, gateway=first), b)}
    whole = set(ip_network(subnet)) - ranges.reserved(Subnet(subnet=subnet, gateway=first))
    assert given == whole, "every address is in a block, and none is given that is reserved"


def test_the_next_address_follows_the_last() -> None:
    subnet = Subnet(subnet="10.0.0.0/24", gateway="10.0.0.1")
    block = ip_network("10.0.0.0/28")
    first, second, *_ = ranges.addresses(subnet, block)
    assert (str(first), str(second)) == ("10.0.0.2", "10.0.0.3")
    after = [str(a) for a in ranges.addresses(subnet, block, after=ip_network("10.0.0.14/32")[0])]
    assert (after[0], after[-1], len(after)) == ("10.0.0.15", "10.0.0.14", 14)


def test_vnis_go_on_from_the_highest_and_are_used_up_at_last() -> None:
    assert shared.next_vni([]) == FIRST_VNI
    assert shared.next_vni([7, FIRST_VNI, FIRST_VNI + 4]) == FIRST_VNI + 5, "one that a user chose below is no matter"
    assert shared.next_vni([FIRST_VNI, LAST_VNI]) == FIRST_VNI + 1


def test_when_all_vnis_are_used_up_it_says_so() -> None:
    with pytest.raises(Unavailable, match="all VXLAN network identifiers from 4096 to 4098 are in use"):
        shared.next_vni(range(FIRST_VNI, FIRST_VNI + 3), FIRST_VNI, FIRST_VNI + 2)
