"""Word of endpoints elsewhere, to the sandboxes on a bridge of this host: gratuitous ARP, unsolicited neighbour advertisements.

Who asks for an address a moment before this host knows it gets no answer, and asks again after a second. It takes such a word
for the answer; who has not asked ignores it.

Source: arp_process (net/ipv4/arp.c), ndisc_recv_na (net/ipv6/ndisc.c); RFC 826, RFC 4861 section 7.2.6.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING

from netengine.kernel.descriptors import moved_up

if TYPE_CHECKING:
    from netengine.kernel.host import Kernel

_ETH_P_IP, _ETH_P_ARP, _ETH_P_IPV6 = 0x0800, 0x0806, 0x86DD
_ETHERNET, _REPLY = 1, 2
_ICMPV6, _ADVERTISEMENT, _OVERRIDE, _TARGET_LINK = 58, 136, 1 << 29, 2
_ALL_NODES = IPv6Address("ff02::1")


@dataclass(frozen=True, slots=True)
class Word:
    """`address` has `mac`; to be said on the link `bridge`."""

    bridge: str
    mac: str
    address: str


def say(kernel: Kernel, words: Iterable[Word]) -> None:
    """On the kernel thread. What cannot be sent is not: it will be asked for again."""
    if kernel.herald is None:
        # Kept: to close such a socket takes as long as an RCU grace period. Of protocol 0 it hears nothing.
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        kernel.herald = moved_up(socket.socket(socket.AF_PACKET, kind, 0))
    for word in words:
        with suppress(OSError):
            kernel.herald.sendto(frame(word.mac, word.address), (word.bridge, 0))


def frame(mac: str, address: str) -> bytes:
    at, source = ip_address(address), bytes.fromhex(mac.replace(":", ""))
    return _arp(source, at) if isinstance(at, IPv4Address) else _advertisement(source, at)


def _arp(mac: bytes, address: IPv4Address) -> bytes:
    """An answer that nobody has asked for. Not a request, which the VXLAN link would answer in turn."""
    head = struct.pack("!HHBBH", _ETHERNET, _ETH_P_IP, 6, 4, _REPLY)
    everybody = b"\xff" * 6
    return everybody + mac + struct.pack("!H", _ETH_P_ARP) + head + 2 * (mac + address.packed)


def _advertisement(mac: bytes, address: IPv6Address) -> bytes:
    body = struct.pack("!BBHI", _ADVERTISEMENT, 0, 0, _OVERRIDE) + address.packed
    body += struct.pack("!BB", _TARGET_LINK, 1) + mac
    pseudo = address.packed + _ALL_NODES.packed + struct.pack("!II", len(body), _ICMPV6)
    body = body[:2] + struct.pack("!H", _checksum(pseudo + body)) + body[4:]
    head = struct.pack("!IHBB", 6 << 28, len(body), _ICMPV6, 255) + address.packed + _ALL_NODES.packed
    return b"\x33\x33\x00\x00\x00\x01" + mac + struct.pack("!H", _ETH_P_IPV6) + head + body


def _checksum(data: bytes) -> int:
    """RFC 1071; of an even number of bytes."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
