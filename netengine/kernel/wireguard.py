"""WireGuard links and their peers: how they are made, changed, removed and read back.

Where the kernel has no WireGuard, a process of wireguard-go serves a TUN link in its place. The two live and die together: the
process ends when the link is deleted, and the link goes when the process ends, whoever ends it. So the link, which is found and
marked like any other, is all that has to be kept track of; a daemon that starts finds both at work.

Source: drivers/net/wireguard/{device,netlink}.c, https://git.zx2c4.com/wireguard-go.
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyroute2.netlink import NLM_F_CREATE, NLM_F_EXCL
from pyroute2.netlink.rtnl import RTM_NEWLINK
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg

from netengine.errors import Conflict, KernelRefused, NetengineError, Unsupported
from netengine.kernel import messages, sysctl, wgkeys
from netengine.kernel.netlink import NetlinkError
from netengine.kernel.request import Request
from netengine.kernel.resources import HOST, MARK_GROUP, Address, Key, Resource, WireGuard, WireGuardPeer
from netengine.kernel.wgdevice import Device, Peer, UserSpace, socket_of
from netengine.kernel.wgnetlink import InKernel

if TYPE_CHECKING:
    from netengine.kernel.host import Kernel

PROGRAM = "wireguard-go"
_KIND, _KIND_IN_USER_SPACE = "wireguard", "tun"
_PATIENCE = 10.0  # seconds, for a process to start or end
_UP = 1  # IFF_UP


# -- links ------------------------------------------------------------------------------------------------------------


def create(kernel: Kernel, resources: list[WireGuard], made: list[Resource]) -> None:
    """Raises Conflict when the port is taken, Unsupported without any WireGuard."""
    for r in resources:
        private = _private(r)
        _check_port(r)
        device = _make(kernel, r)
        made.append(r)
        device.configure(private, r.port)
        conf = f"net/ipv6/conf/{r.name}"
        for name, value in (("disable_ipv6", "0"), ("accept_ra", "0")):
            sysctl.write(f"{conf}/{name}", value)
        kernel.execute(HOST, [(f"bring {r.name} up", _raised(r))])
        _give_address(kernel, r)


def _private(r: WireGuard) -> bytes:
    private = wgkeys.read(Path(r.key_file))
    if wgkeys.public_of(private) != r.public_key:
        raise KernelRefused(f"the key in {r.key_file} is not the one whose public half is {r.public_key}")
    return private


def _check_port(r: WireGuard) -> None:
    """wireguard-go says nothing when it cannot have the port. In the host's namespace."""
    if _is_free(r.port):
        return
    _wait_for_the_last(r.name)
    if not _is_free(r.port):
        raise Conflict(
            f"cannot create {r.name}: UDP port {r.port}, which encrypted networks need, is in use on this host by "
            f"another program; `ss -lunp sport = :{r.port}` shows which: end it, or let it have another port"
        )


def _is_free(port: int) -> bool:
    for family, everywhere in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
        try:
            with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind((everywhere, port))
        except OSError as e:
            if e.errno == errno.EADDRINUSE:
                return False
            if e.errno != errno.EAFNOSUPPORT:
                raise
    return True


def _make(kernel: Kernel, r: WireGuard) -> Device:
    if _is_half_made(kernel, r):
        return UserSpace(r.name)
    message = Request(ifinfmsg)
    message["header"]["type"] = RTM_NEWLINK
    message["header"]["flags"] = NLM_F_CREATE | NLM_F_EXCL
    info = {"attrs": [("IFLA_INFO_KIND", _KIND)]}
    message["attrs"] = [("IFLA_IFNAME", r.name), ("IFLA_GROUP", MARK_GROUP), ("IFLA_LINKINFO", info)]
    (error,) = kernel.socket_in(HOST).execute([(f"create {r.name}", message)])
    if error is None:
        return InKernel(r.name)
    if error.errno != errno.EOPNOTSUPP:
        raise error
    return _start(r)


def _is_half_made(kernel: Kernel, r: WireGuard) -> bool:
    """Whether a daemon was killed between the start of the process and the first word to it: its link has no mark yet."""
    try:
        link = kernel.socket_in(HOST).ask(f"look at {r.name}", messages.link_get(name=r.name))
        info = link.get_attr("IFLA_LINKINFO")
        if not info or info.get_attr("IFLA_INFO_KIND") != _KIND_IN_USER_SPACE:
            return False
        return UserSpace(r.name).read().public_key in ("", r.public_key)
    except (OSError, NetengineError):
        return False


def _start(r: WireGuard) -> Device:
    """The program makes the link, leaves a process behind that serves it, and ends."""
    program = shutil.which(PROGRAM)
    if program is None:
        raise Unsupported(
            "encrypted networks need WireGuard, which this kernel has not (module wireguard, CONFIG_WIREGUARD): use a kernel "
            f"that has it, or install {PROGRAM} (Debian: apt install {PROGRAM})"
        )
    _wait_for_the_last(r.name)
    try:
        done = subprocess.run(
            [program, r.name],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            cwd="/",
            env={"PATH": os.defpath},  # with LOG_LEVEL set, the process would keep our pipe
            start_new_session=True,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as e:
        raise KernelRefused(f"{PROGRAM} could not be started for {r.name}: {e}") from None
    if done.returncode != 0:
        words = [line for line in done.stderr.splitlines() if line.strip() and line[0] not in "┌│└"]
        raise KernelRefused(
            f"{PROGRAM} could not make {r.name}: {'; '.join(words) or f'exit status {done.returncode}'}"
        )
    return UserSpace(r.name)


def _wait_for_the_last(name: str) -> None:
    """A process whose link was deleted a moment ago holds its socket and its port to its end."""
    deadline = time.monotonic() + _PATIENCE
    while socket_of(name).exists() and time.monotonic() < deadline:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as probe:
            try:
                probe.connect(str(socket_of(name)))
            except OSError:
                return  # nobody serves it: the file of one that was killed
        time.sleep(0.005)


def _raised(r: WireGuard) -> messages.Message:
    message = Request(ifinfmsg)
    message["header"]["type"] = RTM_NEWLINK
    message["attrs"] = [
        ("IFLA_IFNAME", r.name),
        ("IFLA_MTU", r.mtu),
        ("IFLA_GROUP", MARK_GROUP),
        messages.NO_OWN_IPV6,
    ]
    message["flags"] = message["change"] = _UP
    return message


def _give_address(kernel: Kernel, r: WireGuard) -> None:
    message = messages.address_add(kernel.index(HOST, r.name), Address(HOST, r.name, r.address))
    try:
        kernel.execute(HOST, [(f"add address {r.address} to {r.name}", message)])
    except NetlinkError as e:
        if e.errno != errno.EEXIST:
            raise


def change(kernel: Kernel, old: WireGuard, new: WireGuard) -> None:
    """Keys agreed upon with the old key pair are given up: flows wait until the peers know the new one, and are not lost."""
    device = _device(kernel, new.name)
    if old.public_key != new.public_key or old.port != new.port:
        if old.port != new.port:
            _check_port(new)
        device.configure(_private(new) if old.public_key != new.public_key else None, new.port)
    if old.address and old.address != new.address:
        address = Address(HOST, new.name, old.address)
        index = kernel.index(HOST, new.name)
        kernel.remove(HOST, [(f"delete address {old.address}", messages.address_delete(index, address))])
    sysctl.write(f"net/ipv6/conf/{new.name}/disable_ipv6", "0")
    kernel.execute(HOST, [(f"change {new.name}", _raised(new))])
    _give_address(kernel, new)


def remove(kernel: Kernel, resources: list[WireGuard]) -> None:
    kernel.remove(HOST, [(f"delete {r.name}", messages.link_delete(r.name)) for r in resources])


def _device(kernel: Kernel, name: str) -> Device:
    link = kernel.socket_in(HOST).ask(f"look at {name}", messages.link_get(name=name))
    info = link.get_attr("IFLA_LINKINFO")
    return InKernel(name) if info and info.get_attr("IFLA_INFO_KIND") == _KIND else UserSpace(name)


# -- peers ------------------------------------------------------------------------------------------------------------


def create_peers(kernel: Kernel, resources: list[WireGuardPeer], made: list[Resource]) -> None:
    for name, group in groupby(sorted(resources, key=attrgetter("link")), key=attrgetter("link")):
        items = list(group)
        _device(kernel, name).set_peers(Peer(r.public_key, r.endpoint, r.allowed) for r in items)
        made.extend(items)


def remove_peers(kernel: Kernel, resources: list[WireGuardPeer]) -> None:
    for name, group in groupby(sorted(resources, key=attrgetter("link")), key=attrgetter("link")):
        _device(kernel, name).remove_peers(r.public_key for r in group)


# -- reading back -------------------------------------------------------------------------------------------------------


def read(kernel: Kernel, links: Mapping[str, Any], want: Mapping[Key, Resource]) -> Iterator[WireGuard | WireGuardPeer]:
    """The resources that those links of ours are, by name, with their peers. One that nobody serves has no key and no peers."""
    if not links:
        return
    addresses: dict[int, str] = {}
    for message in kernel.socket_in(HOST).dump(messages.addresses_dump()):
        if message["family"] == socket.AF_INET6:
            text = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
            addresses.setdefault(message["index"], f"{text}/{message['prefixlen']}")
    for name, link in links.items():
        try:
            state = _device(kernel, name).read()
        except (OSError, NetengineError):
            state = None
        known = want.get(("wireguard", name))
        yield WireGuard(
            name,
            addresses.get(link["index"], ""),
            state.port if state else 0,
            state.public_key if state else "",
            link.get_attr("IFLA_MTU"),
            known.key_file if isinstance(known, WireGuard) else "",
            up=bool(link["flags"] & _UP),
        )
        for peer in state.peers if state else ():
            wanted = want.get(("wireguard-peer", name, peer.public_key))
            endpoint = peer.endpoint
            # A peer that proved who it is is answered where it was last heard of: perhaps another address of the same host.
            # It says something now and then: whatever else somebody sets does not stay.
            if isinstance(wanted, WireGuardPeer) and peer.handshake:
                endpoint = wanted.endpoint
            yield WireGuardPeer(name, peer.public_key, endpoint, peer.allowed)


def is_one(link: Any) -> bool:
    """Whether a link of the host is a WireGuard link of ours, in the kernel or in user space."""
    info = link.get_attr("IFLA_LINKINFO")
    kind = info.get_attr("IFLA_INFO_KIND") if info else ""
    return link.get_attr("IFLA_GROUP") == MARK_GROUP and kind in (_KIND, _KIND_IN_USER_SPACE)
