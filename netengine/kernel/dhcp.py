"""A DHCP client (RFC 2131) on a link inside a sandbox: pyroute2's state machine on a socket that was opened there.

The socket is made on the kernel thread, which may enter the sandbox; everything else runs on the event loop. What becomes of a
lease is the engine's business: it is told by `changed`.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pyroute2.dhcp.client import AsyncDHCPClient, ClientConfig, randomized_increasing_backoff
from pyroute2.dhcp.dhcp4socket import AsyncDHCP4Socket, listen_udp_port
from pyroute2.dhcp.fsm import State
from pyroute2.dhcp.hooks import Hook, Trigger
from pyroute2.dhcp.leases import Lease as WireLease
from pyroute2.ext import bpf

from netengine.kernel import messages
from netengine.kernel.boottime import boot_seconds
from netengine.kernel.descriptors import move_up
from netengine.kernel.host import Kernel

log = logging.getLogger(__name__)
logging.getLogger("pyroute2.dhcp").setLevel(logging.CRITICAL)  # what anybody on the wire sends is an error there


@dataclass(frozen=True, slots=True)
class Lease:
    """What a server granted. `address` is in CIDR, `gateway` "" for none, `servers` are name servers; `server` and `server_mac`
    say who it was; `seconds` is the lease's time from `obtained` (by `boot_seconds`) on, -1 for ever."""

    address: str
    gateway: str = ""
    servers: tuple[str, ...] = ()
    server: str = ""
    server_mac: str = ""
    seconds: int = 0
    obtained: float = 0.0


_ETH_P_IP = 0x0800
_SO_ATTACH_FILTER = 26
_FIRST_WAIT, _MOST_WAIT = 1.0, 32.0
"""Seconds between a question and its first and later repetitions."""

_END = 2.0
"""Seconds that a client may take to say goodbye."""

_TIMEOUTS = {State.REBOOTING: 10, State.REQUESTING: 10, State.SELECTING: 15 * 60}
"""Seconds in a state without an answer, after which all begins anew."""


def open_socket(kernel: Kernel, ns: str, link: str) -> tuple[int, str]:
    """A packet socket on a link of a namespace that hears what comes to a DHCP client, and the link's MAC. On the kernel
    thread. Raises OSError."""
    mac = kernel.socket_in(ns).ask(f"look at {link}", messages.link_get(name=link)).get_attr("IFLA_ADDRESS")
    with kernel.inside(ns), socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0) as opened:
        # Of protocol 0 it hears nothing before it is bound, and then has its filter.
        text, program = bpf.compile(listen_udp_port())
        opened.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, text)
        del program  # the text points into it
        opened.bind((link, _ETH_P_IP))
        return move_up(opened.detach()), mac


class _Socket(AsyncDHCP4Socket):  # type: ignore[misc]  # pyroute2 carries no types
    """A socket that is open already."""

    def __init__(self, link: str, descriptor: int, mac: str) -> None:
        super().__init__(link)
        self._open = descriptor
        self.l2addr = mac

    async def __aenter__(self) -> _Socket:
        socket.socket.__init__(self, fileno=self._open)
        self.setblocking(False)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    @classmethod
    def _decode_msg(cls, data: bytes) -> Any:
        """What comes from the wire may be anything: garbage must not end the client."""
        try:
            return super()._decode_msg(data)
        except Exception as e:
            raise ValueError(f"not a DHCP message: {e!r}") from e


class _Machine(AsyncDHCPClient):  # type: ignore[misc]  # pyroute2 carries no types
    @property
    def last_state_change(self) -> float:
        """What pyroute2 takes from the wall clock to tell the server how long the client has tried. Were that clock set back
        meanwhile, the difference would be negative, which no message can hold; half a second more than it was rounds it."""
        return time.time() - (boot_seconds() - self._changed_at) - 0.5

    @last_state_change.setter
    def last_state_change(self, _: float) -> None:
        self._changed_at = boot_seconds()

    async def _process_msg(self, msg: Any) -> None:
        try:
            await super()._process_msg(msg)
        except Exception as e:
            log.warning("a DHCP message of %s was not understood: %r", msg.eth_src, e)


class DhcpClient:
    """Gets a lease, and keeps it for as long as it runs."""

    def __init__(
        self,
        link: str,
        descriptor: int,
        mac: str,
        *,
        identity: str,
        host_name: str,
        lease: Lease | None,
        changed: Callable[[Lease | None], None],
    ) -> None:
        """`identity` is what servers know the client by; `lease` one of an earlier life, which is asked for again. `changed`
        is told of each lease that is got or renewed, and with None that there is none any more."""
        self._changed = changed
        self._bound = asyncio.Event()
        hooks = [
            Hook(self._have, {Trigger.BOUND, Trigger.RENEWED, Trigger.REBOUND}),
            Hook(self._lost, {Trigger.EXPIRED, Trigger.UNBOUND}),
        ]
        self._config = ClientConfig(
            interface=link,
            lease_type=_kept(lease),
            hooks=hooks,
            timeouts=dict(_TIMEOUTS),
            retransmission=lambda: randomized_increasing_backoff(_FIRST_WAIT, _MOST_WAIT),
            client_id=identity.encode(),
            handle_signals=False,
            vendor_id="netengine",
            host_name=host_name,
        )
        self._machine = _Machine(self._config)
        self._machine._sock = _Socket(link, descriptor, mac)
        self._ending = False

    async def start(self) -> None:
        await self._machine.__aenter__()
        await self._machine.bootstrap()

    async def bound(self, seconds: float) -> bool:
        """Wait for a lease; whether there is one."""
        try:
            await asyncio.wait_for(self._bound.wait(), seconds)
        except TimeoutError:
            return False
        return True

    async def close(self, *, release: bool) -> None:
        """End; with `release` the server is told that the address is free."""
        self._ending = True
        self._config.release = release
        machine = self._machine
        try:
            await asyncio.wait_for(machine.__aexit__(), _END)
        except Exception as e:  # its tasks end with whatever ended them: a link that is gone, say
            log.debug("the end of a DHCP client: %r", e)
        finally:
            machine.lease_timers.cancel()
            for task in (machine._sender_task, machine._receiver_task, machine._state_watchdog):
                if task is not None:
                    task.cancel()
            machine._sock.close()

    async def _have(self, lease: Any) -> None:
        self._bound.set()
        self._changed(_told(lease))

    async def _lost(self, lease: Any) -> None:
        if not self._ending:
            self._changed(None)


def _kept(lease: Lease | None) -> type[Any]:
    """The class of leases for a client that begins with this one; the engine stores leases, not pyroute2."""

    class Kept(WireLease):  # type: ignore[misc]  # pyroute2 carries no types
        def __init__(self, ack: Any, interface: str, server_mac: str, obtained: float | None = None) -> None:
            super().__init__(ack, interface, server_mac, boot_seconds() if obtained is None else obtained)

        def _seconds_til_timer(self, value: int) -> float | None:
            """By our clock: pyroute2 would take the wall clock, and give an address up when that is set forward."""
            return None if value == -1 else float(self.obtained + value - boot_seconds())

        def dump(self) -> None:
            """Nothing: `changed` is told."""

        @classmethod
        def load(cls, interface: str) -> Any:
            if lease is None:
                return None
            options = {"server_id": lease.server, "lease_time": lease.seconds}
            ack = {"yiaddr": lease.address.partition("/")[0], "options": options}
            return cls(ack=ack, interface=interface, server_mac=lease.server_mac, obtained=lease.obtained)

    return Kept


def _told(lease: Any) -> Lease:
    """What a server's acknowledgement says. Options that are missing, or are not what they should be, are left out."""
    options = lease.ack["options"]
    length = _prefixlen(options.get("subnet_mask"))
    return Lease(
        address=f"{lease.ip}/{length}",
        gateway=next(iter(_addresses(options.get("router"))), ""),
        servers=tuple(_addresses(options.get("name_server"))),
        server=str(options.get("server_id") or ""),
        server_mac=lease.server_mac,
        seconds=int(options.get("lease_time") or 0),
        obtained=lease.obtained,
    )


def _prefixlen(mask: object) -> int:
    if not isinstance(mask, str):
        return 32
    number = int.from_bytes(socket.inet_aton(mask))
    return number.bit_count()


def _addresses(value: object) -> list[str]:
    out = []
    for text in value if isinstance(value, list | tuple) else [value]:
        if isinstance(text, str):
            try:
                out.append(socket.inet_ntop(socket.AF_INET, socket.inet_aton(text)))
            except OSError:
                continue
    return out
