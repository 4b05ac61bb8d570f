"""Ports of the host, held by bound sockets.

A published port is translated before it reaches any socket; the socket is there so that nobody else takes the port unknowingly,
and so that the kernel tells us when somebody has it. It drops all it receives (a BPF program that accepts nothing), so a packet
that comes before its nftables element is there meets silence, as it does with any packet that is lost.
"""

from __future__ import annotations

import ctypes
import errno
import socket
import struct
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from netengine.errors import KernelRefused
from netengine.kernel.descriptors import moved_up
from netengine.kernel.resources import HostPort, Protocol

_SO_ATTACH_FILTER, _SO_DETACH_FILTER = 26, 27  # include/uapi/asm-generic/socket.h
_DROP_ALL = ctypes.create_string_buffer(struct.pack("=HBBI", 0x06, 0, 0, 0))  # BPF_RET | BPF_K, 0 bytes

_KINDS: dict[str, tuple[int, int]] = {
    "tcp": (socket.SOCK_STREAM, socket.IPPROTO_TCP),
    "udp": (socket.SOCK_DGRAM, socket.IPPROTO_UDP),
    "sctp": (socket.SOCK_STREAM, 132),
}


_ANY_TRIES = 10


class PortTaken(KernelRefused):
    """Somebody else holds the port: another one may be tried where any will do."""


@dataclass(frozen=True, slots=True)
class PortAsk:
    """A port of the same number, from `low` to `high` (0: any), on each of the addresses."""

    addresses: tuple[str, ...]
    protocol: Protocol
    low: int
    high: int


Reserve = Callable[[str, Protocol, int], HostPort]
Release = Callable[[Iterable[HostPort]], object]


def take(asks: Iterable[PortAsk], reserve: Reserve, release: Release) -> list[list[HostPort]]:
    """The ports of each ask: all that are asked for, or none. Raises KernelRefused, with Docker's text when one is taken."""
    taken: list[list[HostPort]] = []
    try:
        for ask in asks:
            taken.append(_take(ask, reserve, release))
    except BaseException:
        for ports in taken:
            release(ports)
        raise
    return taken


def _take(ask: PortAsk, reserve: Reserve, release: Release) -> list[HostPort]:
    if ask.low == 0:
        for attempt in range(_ANY_TRIES):
            try:
                return _take_together(ask, 0, reserve, release)
            except PortTaken:
                if attempt == _ANY_TRIES - 1:
                    raise
    for port in range(ask.low, ask.high + 1):
        try:
            return _take_together(ask, port, reserve, release)
        except PortTaken as e:
            if ask.low == ask.high:
                raise KernelRefused(e.message) from e
    raise KernelRefused(
        f"Bind for {shown(ask.addresses[0])}:{ask.low}-{ask.high} failed: "
        f"all {ask.high - ask.low + 1} ports of the range are already allocated"
    )


def _take_together(ask: PortAsk, port: int, reserve: Reserve, release: Release) -> list[HostPort]:
    """The port on all of the addresses, or on none. Raises PortTaken."""
    held: list[HostPort] = []
    try:
        for address in ask.addresses:
            held.append(reserve(address, ask.protocol, port))
            port = held[0].port
    except BaseException:
        release(held)
        raise
    return held


def bind(
    address: str, protocol: Protocol, port: int, taken: Collection[HostPort]
) -> tuple[HostPort, socket.socket | None]:
    """Take the port; 0 lets the kernel choose one from net.ipv4.ip_local_port_range.

    `taken` are the ports held so far: a kernel without SCTP sockets still forwards SCTP, and then they alone decide (the
    answer's socket is None). Raises PortTaken, or KernelRefused for an address that is not the host's.
    """
    kind, number = _KINDS[protocol]
    try:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        held = moved_up(socket.socket(family, kind | socket.SOCK_CLOEXEC, number))
    except OSError as e:
        if protocol != "sctp" or e.errno not in (errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT):
            raise KernelRefused(f"cannot publish a {protocol} port: {e.strerror}") from e
        return _without_socket(address, protocol, port, taken), None
    try:
        keep_out(held)
        if family == socket.AF_INET6:
            # [::] is not 0.0.0.0 as well: each family's ports are held, and translated, apart.
            held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if kind == socket.SOCK_STREAM:
            # Connections of the port's last owner that are in TIME_WAIT do not count; another listener still does.
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind((address, port))
        if kind == socket.SOCK_STREAM:
            # An unconnected bound socket does not keep others with SO_REUSEADDR from the port; a listening one does.
            held.listen(1)
    except OSError as e:
        held.close()
        if e.errno == errno.EADDRINUSE:
            raise PortTaken(f"Bind for {shown(address)}:{port} failed: port is already allocated") from e
        if e.errno == errno.EADDRNOTAVAIL:
            raise KernelRefused(
                f"cannot publish on {shown(address)}:{port}: {address} is not an address of this host; "
                "publish on one of its addresses, or on all by leaving the address out"
            ) from e
        raise KernelRefused(f"cannot publish on {shown(address)}:{port}/{protocol}: {e.strerror}") from e
    return HostPort(address, protocol, held.getsockname()[1]), held


def shown(address: str) -> str:
    """The address as it stands before a port."""
    return f"[{address}]" if ":" in address else address


def keep_out(held: socket.socket) -> None:
    """Let the socket drop all it receives."""
    program = struct.pack("HP", 1, ctypes.addressof(_DROP_ALL))
    held.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


def let_in(held: socket.socket, backlog: int) -> None:
    """Let the socket receive what comes to it; connections wait in its queue until somebody takes them."""
    try:
        held.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)
    except FileNotFoundError:
        pass  # it has none: an earlier daemon let it in
    if held.type == socket.SOCK_STREAM:
        held.listen(backlog)


def has_ipv6() -> bool:
    """Whether ports can be published on IPv6 addresses of the host: it has ::1. In the calling thread's namespace."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def _without_socket(address: str, protocol: Protocol, port: int, taken: Collection[HostPort]) -> HostPort:
    everywhere = "::" if ":" in address else "0.0.0.0"
    used = {
        t.port for t in taken if t.protocol == protocol and (everywhere in (t.address, address) or t.address == address)
    }
    if port == 0:
        low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
        free = next((p for p in range(low, high + 1) if p not in used), None)
        if free is None:
            raise PortTaken(f"no free {protocol} port between {low} and {high}")
        port = free
    elif port in used:
        raise PortTaken(f"Bind for {shown(address)}:{port} failed: port is already allocated")
    return HostPort(address, protocol, port)
