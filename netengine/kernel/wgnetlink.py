"""What the kernel's own WireGuard links are told and asked: by generic netlink. The same in user space is `wgdevice`.

Source: include/uapi/linux/{wireguard,genetlink}.h.
"""

from __future__ import annotations

import base64
import os
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import ip_address, ip_network

from netengine.errors import KernelRefused
from netengine.kernel.attributes import attributes, packed
from netengine.kernel.wgdevice import KEEPALIVE, Peer, State

_NETLINK_GENERIC, _CONTROL, _GET_FAMILY = 16, 0x10, 3  # GENL_ID_CTRL, CTRL_CMD_GETFAMILY
_FAMILY_ID, _FAMILY_NAME = 1, 2  # CTRL_ATTR_*
_GET_DEVICE, _SET_DEVICE = 0, 1  # WG_CMD_*
_IFNAME, _PRIVATE_KEY, _PUBLIC_KEY, _PORT, _PEERS = 2, 3, 4, 6, 8  # WGDEVICE_A_*
_PEER_KEY, _PEER_FLAGS, _ENDPOINT, _KEEPALIVE, _HANDSHAKE, _ALLOWED = 1, 3, 4, 5, 6, 9  # WGPEER_A_*
_IP_FAMILY, _IP, _IP_MASK = 1, 2, 3  # WGALLOWEDIP_A_*
_REMOVE, _REPLACE = 1, 2  # WGPEER_F_REMOVE_ME, WGPEER_F_REPLACE_ALLOWEDIPS
_NESTED = 0x8000  # NLA_F_NESTED
_REQUEST, _ACK, _DUMP = 1, 4, 0x300  # NLM_F_*
_ERROR, _DONE = 2, 3  # NLMSG_*
_HEADER, _GENERIC = struct.Struct("=IHHII"), struct.Struct("=BBH")
_PEERS_AT_ONCE = 50
"""A message must fit into the socket's buffer."""


class InKernel:
    """A link of the kernel's, in the network namespace of the calling thread."""

    def __init__(self, name: str) -> None:
        self._name = name

    def configure(self, private: bytes | None, port: int) -> None:
        key = packed(_PRIVATE_KEY, private) if private else b""
        self._set([key + packed(_PORT, struct.pack("=H", port))])

    def set_peers(self, peers: Iterable[Peer]) -> None:
        self._set_peers([_peer(peer) for peer in peers])

    def remove_peers(self, public_keys: Iterable[str]) -> None:
        flags = packed(_PEER_FLAGS, struct.pack("=I", _REMOVE))
        self._set_peers([packed(_PEER_KEY, base64.b64decode(key)) + flags for key in public_keys])

    def read(self) -> State:
        with _Generic() as generic:
            return parse(generic.dump(_GET_DEVICE, packed(_IFNAME, self._name.encode() + b"\0"), self._name))

    def _set_peers(self, peers: Sequence[bytes]) -> None:
        self._set(
            [_array(_PEERS, peers[start : start + _PEERS_AT_ONCE]) for start in range(0, len(peers), _PEERS_AT_ONCE)]
        )

    def _set(self, bodies: Iterable[bytes]) -> None:
        with _Generic() as generic:
            for body in bodies:
                generic.ask(_SET_DEVICE, packed(_IFNAME, self._name.encode() + b"\0") + body, self._name)


class _Generic:
    """A socket to the kernel's WireGuard, open for the block."""

    def __enter__(self) -> _Generic:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_GENERIC)
        self._family = _CONTROL
        name = packed(_FAMILY_NAME, b"wireguard\0")
        (answer,) = self._answers(_GET_FAMILY, 0, name, "the kernel's WireGuard")
        self._family = struct.unpack("=H", dict(attributes(answer))[_FAMILY_ID])[0]
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, command: int, body: bytes, what: str) -> None:
        self._answers(command, _ACK, body, what)

    def dump(self, command: int, body: bytes, what: str) -> list[bytes]:
        return self._answers(command, _DUMP, body, what)

    def _answers(self, command: int, flags: int, body: bytes, what: str) -> list[bytes]:
        """The attributes of each message of the answer. What is sent may hold the private key: no error names it."""
        content = _GENERIC.pack(command, 1, 0) + body
        self._socket.send(_HEADER.pack(_HEADER.size + len(content), self._family, _REQUEST | flags, 1, 0) + content)
        out: list[bytes] = []
        while True:
            for kind, data in _messages(self._socket.recv(1 << 17)):
                if kind == _ERROR:
                    number = -struct.unpack_from("=i", data)[0]
                    if number:
                        raise KernelRefused(f"the kernel refused a setting of {what}: {os.strerror(number)}")
                    return out
                if kind == _DONE:
                    return out
                out.append(data[_GENERIC.size :])
                if not flags:
                    return out


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset + _HEADER.size <= len(data):
        length, kind, *_ = _HEADER.unpack_from(data, offset)
        if length < _HEADER.size:
            return
        yield kind, data[offset + _HEADER.size : offset + length]
        offset += (length + 3) & ~3


def _array(kind: int, items: Iterable[bytes]) -> bytes:
    return packed(kind | _NESTED, b"".join(packed(_NESTED, item) for item in items))


def _peer(peer: Peer) -> bytes:
    return b"".join(
        (
            packed(_PEER_KEY, base64.b64decode(peer.public_key)),
            packed(_PEER_FLAGS, struct.pack("=I", _REPLACE)),
            packed(_ENDPOINT, _sockaddr(peer.endpoint)),
            packed(_KEEPALIVE, struct.pack("=H", KEEPALIVE)),
            _array(_ALLOWED, [_allowed(prefix) for prefix in peer.allowed]),
        )
    )


def _allowed(prefix: str) -> bytes:
    network = ip_network(prefix)
    family = socket.AF_INET if network.version == 4 else socket.AF_INET6
    return (
        packed(_IP_FAMILY, struct.pack("=H", family))
        + packed(_IP, network.network_address.packed)
        + packed(_IP_MASK, bytes([network.prefixlen]))
    )


def _sockaddr(endpoint: str) -> bytes:
    """struct sockaddr_in or sockaddr_in6 of address:port."""
    text, _, port = endpoint.rpartition(":")
    address, number = ip_address(text.strip("[]")), struct.pack("!H", int(port))
    if address.version == 4:
        return struct.pack("=H", socket.AF_INET) + number + address.packed + bytes(8)
    return struct.pack("=H", socket.AF_INET6) + number + bytes(4) + address.packed + bytes(4)


def _endpoint(raw: bytes) -> str:
    if len(raw) < 16:
        return ""
    port = struct.unpack_from("!H", raw, 2)[0]
    if struct.unpack_from("=H", raw)[0] == socket.AF_INET:
        return f"{ip_address(raw[4:8])}:{port}"
    return f"[{ip_address(raw[8:24])}]:{port}"


def parse(answers: Iterable[bytes]) -> State:
    """A link with many peers comes in several messages; one whose allowed addresses did not fit comes again."""
    public, port = "", 0
    peers: dict[str, Peer] = {}
    for answer in answers:
        for kind, value in attributes(answer):
            if kind == _PUBLIC_KEY:
                public = base64.b64encode(value).decode()
            elif kind == _PORT:
                port = struct.unpack("=H", value)[0]
            elif kind == _PEERS:
                for _, content in attributes(value):
                    peer = _heard(content)
                    before = peers.get(peer.public_key)
                    if before is not None:
                        peer = Peer(before.public_key, before.endpoint, before.allowed + peer.allowed, before.handshake)
                    peers[peer.public_key] = peer
    return State(public, port, tuple(peers.values()))


def _heard(content: bytes) -> Peer:
    found = dict(attributes(content))
    allowed = []
    for _, item in attributes(found.get(_ALLOWED, b"")):
        fields = dict(attributes(item))
        allowed.append(f"{ip_address(fields[_IP])}/{fields[_IP_MASK][0]}")
    handshake = struct.unpack_from("=q", found[_HANDSHAKE])[0] if _HANDSHAKE in found else 0
    key = base64.b64encode(found[_PEER_KEY]).decode()
    return Peer(key, _endpoint(found.get(_ENDPOINT, b"")), tuple(allowed), handshake)
