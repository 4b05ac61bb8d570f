"""Link-layer addresses: made, read, refused."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Callable

from netengine.errors import Invalid

_LOCALLY_ADMINISTERED = 0x02  # IEEE 802, second-lowest bit of the first octet
_GROUP = 0x01  # lowest bit of the first octet: a multicast address

_COLONS = re.compile(r"[0-9a-fA-F]{1,2}(:[0-9a-fA-F]{1,2}){5}")
_DASHES = re.compile(r"[0-9a-fA-F]{1,2}(-[0-9a-fA-F]{1,2}){5}")
_DOTS = re.compile(r"[0-9a-fA-F]{4}(\.[0-9a-fA-F]{4}){2}")


def random_mac(entropy: Callable[[int], bytes] = secrets.token_bytes) -> str:
    """A random unicast address from the locally administered range, as `02:42:ac:11:00:02`."""
    octets = bytearray(entropy(6))
    octets[0] = octets[0] & ~_GROUP | _LOCALLY_ADMINISTERED
    return octets.hex(":")


def steady_mac(network_id: str, address: str) -> str:
    """The MAC that goes with an address of a network: whoever gets the address gets the same one, so that what neighbours have
    in their caches stays right. As good as random between networks, also those of two hosts on one wire."""
    digest = hashlib.sha256(f"{network_id} {address}".encode()).digest()
    return random_mac(lambda count: digest[:count])


def parse_mac(text: str) -> str:
    """The address that `text` gives with colons, dashes or dots, in lower case with colons.

    Raises `Invalid` when it is malformed, or one that the kernel refuses for an interface: multicast or zero.
    """
    if _COLONS.fullmatch(text) or _DASHES.fullmatch(text):
        octets = bytes(int(octet, 16) for octet in re.split("[:-]", text))
    elif _DOTS.fullmatch(text):
        octets = bytes.fromhex(text.replace(".", ""))
    else:
        raise Invalid(f"invalid mac address {text[:40]!r}: it must be six octets like 02:42:ac:11:00:02")
    if octets == bytes(6):
        raise Invalid(f"invalid mac address {text}: the zero address cannot be given to an interface")
    if octets[0] & _GROUP:
        raise Invalid(f"invalid mac address {text}: it is a multicast address; the first octet must be even")
    return octets.hex(":")
