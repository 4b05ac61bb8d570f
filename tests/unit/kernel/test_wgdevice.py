"""What WireGuard says of a link, in either of its two languages; and what it is told in the kernel's."""

from __future__ import annotations

import base64
import struct

import pytest

from netengine.kernel import wgnetlink
from netengine.kernel.attributes import attributes, packed
from netengine.kernel.wgdevice import Peer, State, parse

THEIRS = bytes(range(32))
KEY = base64.b64encode(THEIRS).decode()


def test_the_text_of_wireguard_go() -> None:
    text = f"""private_key={"0" * 64}
listen_port=51840
public_key={THEIRS.hex()}
preshared_key={"0" * 64}
protocol_version=1
endpoint=192.0.2.2:51840
last_handshake_time_sec=1700000000
last_handshake_time_nsec=1
tx_bytes=148
rx_bytes=92
persistent_keepalive_interval=25
allowed_ip=fe80::2/128
public_key={"ff" * 32}
last_handshake_time_sec=0
allowed_ip=fe80::3/128
allowed_ip=10.0.0.0/8
errno=0"""
    state = parse(tuple(line.split("=", 1)) for line in text.splitlines())  # type: ignore[misc]
    assert state == State(
        "",
        51840,
        (
            Peer(KEY, "192.0.2.2:51840", ("fe80::2/128",), 1700000000),
            Peer(base64.b64encode(b"\xff" * 32).decode(), "", ("fe80::3/128", "10.0.0.0/8")),
        ),
    )


def test_the_public_key_follows_from_the_private_one() -> None:
    """As `wg pubkey` says."""
    assert parse([("private_key", THEIRS.hex())]).public_key == "j0DFrbaPJWJK5bIU6nZ6bslNgp09e14a0bpvPiE4KF8="


@pytest.mark.parametrize(
    ("endpoint", "allowed"),
    [("192.0.2.2:51840", ("fe80::2/128", "10.0.0.0/8")), ("[2001:db8::2]:51840", ("::/0",))],
)
def test_a_peer_goes_to_the_kernel_and_comes_back(endpoint: str, allowed: tuple[str, ...]) -> None:
    sent = wgnetlink._peer(Peer(KEY, endpoint, allowed))
    answer = packed(4, THEIRS) + packed(6, struct.pack("=H", 51840)) + wgnetlink._array(8, [sent])
    assert wgnetlink.parse([answer]) == State(KEY, 51840, (Peer(KEY, endpoint, allowed),))


def test_a_peer_whose_addresses_come_in_two_messages_is_one() -> None:
    parts = [wgnetlink._peer(Peer(KEY, "192.0.2.2:1", (prefix,))) for prefix in ("fe80::2/128", "fe80::3/128")]
    (peer,) = wgnetlink.parse([wgnetlink._array(8, [part]) for part in parts]).peers
    assert peer.allowed == ("fe80::2/128", "fe80::3/128")


def test_nested_attributes_say_so() -> None:
    """The kernel refuses nested attributes without NLA_F_NESTED."""
    raw = wgnetlink._array(8, [wgnetlink._peer(Peer(KEY, "192.0.2.2:1", ("fe80::2/128",)))])
    assert struct.unpack_from("=HH", raw)[1] & 0x8000
    ((_, item),) = attributes(raw[4:])
    kinds = {kind for kind, _ in attributes(item)}
    assert kinds == {1, 3, 4, 5, 9}
