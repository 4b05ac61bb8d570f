"""Elements of published ports as a netlink batch. libnftables lists the sets before each of its commands, which takes half
of what publishing one port costs; so addresses, protocols and ports are packed here, and other kinds of elements are left to
it. What an element is to nft `nftables.element_text` says, which also checks it; that both are the same is tested. Pure.

Source: include/uapi/linux/netfilter/nf_tables.h; nft(8): of a concatenation each part takes whole 32 bit words.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Literal

from netengine.kernel import nfbatch, ruleset
from netengine.kernel.attributes import packed
from netengine.kernel.nfbatch import ACK, CREATE, NESTED
from netengine.kernel.resources import Element

MOST = 1000
"""Elements in one batch: a netlink socket takes some 200 KiB at once."""
_AT_ONCE = 500
"""In one message: an attribute has room for 64 KiB."""

_KINDS: frozenset[ruleset.Part] = frozenset({"address", "protocol", "port"})
_NEW, _DELETE = 12, 14  # NFT_MSG_NEWSETELEM, NFT_MSG_DELSETELEM
_NFPROTO = {"ip": 2, "ip6": 10}
_PROTOCOLS = {
    "tcp": bytes([socket.IPPROTO_TCP, 0, 0, 0]),
    "udp": bytes([socket.IPPROTO_UDP, 0, 0, 0]),
    "sctp": bytes([socket.IPPROTO_SCTP, 0, 0, 0]),
}


def is_plain(element: Element) -> bool:
    """Whether `batch` can pack it."""
    container = ruleset.container(element.container)
    return element.family in _NFPROTO and _KINDS.issuperset(container.key) and _KINDS.issuperset(container.value)


def batch(verb: Literal["add", "delete"], elements: Sequence[Element]) -> bytes:
    """One transaction that adds or deletes plain elements, whose parts `nftables.element_text` has checked."""
    grouped: dict[tuple[str, str], list[bytes]] = {}
    for e in elements:
        container = ruleset.container(e.container)
        body = packed(1 | NESTED, packed(1, _packed(container.key, e.parts)))
        if e.value and verb == "add":
            body += packed(2 | NESTED, packed(1, _packed(container.value, e.value)))
        grouped.setdefault((e.family, e.container), []).append(packed(1 | NESTED, body))
    kind, flags = (_NEW, CREATE) if verb == "add" else (_DELETE, 0)
    named = nfbatch.text(1, ruleset.TABLE)
    messages: list[tuple[bytes, int]] = []
    for (family, name), items in grouped.items():
        for start in range(0, len(items), _AT_ONCE):
            listed = packed(3 | NESTED, b"".join(items[start : start + _AT_ONCE]))
            messages.append((named + nfbatch.text(2, name) + listed, _NFPROTO[family]))
    last = len(messages) - 1
    return nfbatch.batch(
        nfbatch.message(kind, flags | (ACK if at == last else 0), body, family)
        for at, (body, family) in enumerate(messages)
    )


def _packed(kinds: Sequence[ruleset.Part], values: Sequence[str]) -> bytes:
    return b"".join(_part(kind, value) for kind, value in zip(kinds, values, strict=True))


def _part(kind: ruleset.Part, value: str) -> bytes:
    if kind == "address":
        return ip_address(value).packed
    return _PROTOCOLS[value] if kind == "protocol" else struct.pack("!HH", int(value), 0)
