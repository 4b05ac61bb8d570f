"""The kernel of one host: makes it equal to a set of resources, and undoes what it did when it cannot.

`Kernel` works on the network namespace of the thread that calls `open`. One thread at a time may use it, and that one where a
namespace is entered or made: `setns` and `unshare` are a thread's own. What is built and in which order is `kernel.plan`'s
business; reading the kernel back is `kernel.observe`'s.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import TypeVar

from netengine import failpoints
from netengine.errors import KernelRefused, NetengineError
from netengine.kernel import hostports, ifindex, insides, kinds, messages, namespaces
from netengine.kernel.announce import announce_again
from netengine.kernel.conntrack import Conntrack
from netengine.kernel.descriptors import move_up
from netengine.kernel.namesockets import NameSockets
from netengine.kernel.netlink import NetlinkError, NetlinkSocket, is_gone
from netengine.kernel.nftables import Nft
from netengine.kernel.plan import Change, Plan, plan
from netengine.kernel.relays import Relays
from netengine.kernel.resources import (
    HOST,
    Address,
    Element,
    HostPort,
    LinkUp,
    NameService,
    Protocol,
    Resource,
    Route,
    Veth,
    Vxlan,
)

log = logging.getLogger(__name__)

R = TypeVar("R", bound=Resource)

_BRIEF = Veth | LinkUp | Address | Route | Element | HostPort | NameService
_BRIEF_MOST = 64
"""What the kernel has done in less than a millisecond, or two, without entering a namespace: so many of these kinds."""


class Kernel:
    """The host's kernel, as the daemon sees and changes it.

    `run_dir` keeps the namespaces' files (`run_dir`/NAME); `alias_dir` gets symbolic links to them under the containers'
    names, where iproute2 looks (/run/netns).
    """

    def __init__(self, run_dir: Path, alias_dir: Path = Path("/run/netns")) -> None:
        self.run_dir = run_dir
        self.alias_dir = alias_dir
        self.home = -1
        self._nft: Nft | None = None
        self.conntrack: Conntrack | None = None
        self.sockets: dict[str, NetlinkSocket] = {}
        self.numbers: dict[int, str] = {}
        """The names of namespaces by what the host's calls them in events (nsid). See `insides`."""
        self.held: dict[HostPort, socket.socket | None] = {}
        self._reaper: NetlinkSocket | None = None
        self._control: socket.socket | None = None
        """For what is asked of the host's links by ioctl."""
        self.graves: list[object] = []
        """What is out of use and waits to be let go of: names of links, and handles. See `reap`."""
        self.buried: set[tuple[str, int]] = set()
        """Those of them inside sandboxes, by namespace and interface index: what was said of them before is of no interest."""
        self.unfinished = False
        """Something was not removed or not put back, so that the kernel is not as anybody wants it. Whoever looks at everything
        next sets it back."""
        self.names = NameSockets(self)
        self.name_ports: dict[str, tuple[int, int]] = {}
        """Where rules of name services were last seen to lead, for whoever asks right after: reading them takes as long as
        making them did."""
        self.names_removed = 0
        """How often rules of a name service were deleted by us; what others delete is heard as one more than that."""
        self.herald: socket.socket | None = None
        """The packet socket of `gratuitous`, once there was something to say."""
        self.relays = Relays(run_dir.parent / "relay.sock")
        self.inherited: dict[HostPort, socket.socket] = {}
        """Sockets of an earlier daemon's ports, which the relay kept."""

    def open(self) -> None:
        """Take the calling thread's network namespace as the host's and open the sockets in it."""
        self.run_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
        self.home = move_up(namespaces.open_current())
        self.sockets[HOST] = NetlinkSocket()
        self._reaper = NetlinkSocket()
        self._control = ifindex.control_socket()
        self._nft = Nft()
        self.conntrack = Conntrack()
        self.inherited = self.relays.inherit()
        self.reap()  # what an earlier life left
        insides.number_all(self)

    def reap(self) -> None:
        """Delete the links that were taken out of use. Takes some 20 ms, however many they are, most of it without the kernel's
        RTNL lock: so this has a socket of its own, and may be called from another thread whatever this one does."""
        if self._reaper is None:
            raise RuntimeError("Kernel.open was not called")
        doomed, buried = len(self.graves), frozenset(self.buried)  # more may be added meanwhile
        for error in self._reaper.execute([("delete links out of use", messages.graves_delete())]):
            if error is not None and not is_gone(error):
                raise error
        del self.graves[:doomed]
        self.buried.difference_update(buried)

    def close(self) -> None:
        """Let go of sockets and ports. What is in the kernel stays."""
        if self.graves:
            self.reap()
        if self._reaper is not None:
            self._reaper.close()
            self._reaper = None
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._nft is not None:
            self._nft.close()
            self._nft = None
        for held in self.held.values():
            if held is not None:
                held.close()
        self.held.clear()
        if self.herald is not None:
            self.herald.close()
            self.herald = None
        for inherited in self.inherited.values():
            inherited.close()
        self.inherited.clear()
        self.relays.close()
        self.names.close_all()
        for ns in list(self.sockets):
            self.sockets.pop(ns).close()
        if self.conntrack is not None:
            self.conntrack.close()
            self.conntrack = None
        if self.home >= 0:
            os.close(self.home)
            self.home = -1

    # -- applying ---------------------------------------------------------------------------------------------------

    def apply(self, want: Iterable[Resource], have: Iterable[Resource]) -> Plan:
        """Turn a kernel that has `have` into one that has `want`; answer what was done.

        All or nothing: when a creation or change fails, what was made is removed again, what was removed is made again,
        and the error goes to the caller. Deletions do not stop at the first error.
        """
        steps = plan(want, have)
        made: list[Resource] = []
        changed: list[Change] = []
        try:
            errors = self._delete(steps.delete)
            for kind, group in kinds.batches(steps.create):
                failpoints.reach(f"kernel: create {kind.__name__}")
                kinds.CREATE[kind](self, group, made)
            for change in steps.change:
                failpoints.reach(f"kernel: change {type(change.new).__name__}")
                changed.append(change)  # before it is tried: one that fails may have done a part
                kinds.change(self, change)
            for kind, group in kinds.batches((*steps.again, *steps.late)):
                failpoints.reach(f"kernel: create {kind.__name__}")
                kinds.CREATE[kind](self, group, made)
        except (OSError, NetengineError) as e:
            # A port that was only going to be changed may have lost its bridge to the deletions.
            changed += [c for c in steps.change if isinstance(c.old, Veth | Vxlan) and c not in changed]
            self._undo(made, changed, steps.delete + steps.implied)
            if isinstance(e, NetengineError):
                raise
            raise KernelRefused(f"the kernel refused: {e.strerror or e}") from e
        if errors:
            self.unfinished = True
            raise KernelRefused("not everything could be removed: " + "; ".join(errors))
        return steps

    def is_brief(self, want: frozenset[Resource], have: frozenset[Resource]) -> bool:
        """Whether `apply` takes so little time that it is not worth another thread. Nothing of it enters a namespace, which the
        main thread must not: /proc/PID/ns is by that one."""
        some = want ^ have
        return len(some) <= _BRIEF_MOST and all(isinstance(r, _BRIEF) and self._is_brief(r) for r in some)

    def _is_brief(self, r: Resource) -> bool:
        match r:
            case Veth():  # one that is deleted at once takes 16 ms
                return bool(r.master) and r.ns in self.sockets
            case LinkUp() | Address() | Route():
                return r.ns in self.sockets
            case NameService():
                return self.names.is_prepared(r)
            case Element():  # flows of UDP are looked for in the whole table of connections
                return "udp" not in r.parts
        return True

    def _undo(self, made: Sequence[Resource], changed: Sequence[Change], deleted: Sequence[Resource]) -> None:
        """Changes come last: what they change back to may be among what is put back, a veth's old bridge say."""
        for problem in self._delete(plan((), made).delete):
            self.unfinished = True
            log.error("while undoing: %s", problem)
        try:
            for kind, group in kinds.batches(plan(deleted, ()).create):
                kinds.CREATE[kind](self, group, [])
        except (OSError, NetengineError) as e:
            self.unfinished = True
            log.error("while putting back what was removed: %s", e)
        for change in reversed(changed):
            try:
                kinds.change(self, Change(change.new, change.old))
            except (OSError, NetengineError) as e:
                self.unfinished = True
                log.error("while undoing a change of %s: %s", change.old, e)

    def _delete(self, resources: Sequence[Resource]) -> list[str]:
        """Remove all of them, best effort; answer what could not be removed. What is not there is as good as removed."""
        errors: list[str] = []
        for kind, group in groupby(resources, key=type):
            failpoints.reach(f"kernel: delete {kind.__name__}")
            try:
                kinds.DELETE[kind](self, list(group))
            except (OSError, NetengineError) as e:
                errors.append(e.strerror if isinstance(e, OSError) and e.strerror else str(e))
        return errors

    # -- sockets and namespaces ---------------------------------------------------------------------------------------

    def ns_path(self, ns: str) -> Path:
        """The file that keeps namespace `ns` alive."""
        return self.run_dir / ns

    @contextmanager
    def inside(self, ns: str) -> Iterator[None]:
        """The calling thread is inside namespace `ns` for the block."""
        if ns == HOST:
            yield
            return
        fd = os.open(self.ns_path(ns), os.O_RDONLY | os.O_CLOEXEC)
        try:
            with namespaces.entered(fd, self.home):
                yield
        finally:
            os.close(fd)

    def socket_in(self, ns: str) -> NetlinkSocket:
        """The rtnetlink socket of a namespace, opened when first needed and kept: entering costs more than sending."""
        found = self.sockets.get(ns)
        if found is None:
            with self.inside(ns):
                found = self.sockets[ns] = NetlinkSocket()
        return found

    def index(self, ns: str, link: str) -> int:
        """The interface index of a link. Raises OSError, with ENODEV when there is none of that name."""
        if ns == HOST and self._control is not None:
            return ifindex.of(self._control, link)
        with self.inside(ns), ifindex.control_socket() as control:
            return ifindex.of(control, link, ns)

    def has_namespace(self, ns: str) -> bool:
        """Whether the namespace's file is there and mounted. From any thread."""
        return namespaces.is_alive(self.ns_path(ns))

    def lost_namespaces(self, names: Iterable[str]) -> list[str]:
        """Those of many namespaces whose file is gone or not mounted. From any thread."""
        return namespaces.not_alive(self.run_dir, names)

    def keep_namespace(self, ns: str, pid: int = 0) -> bool:
        """Give namespace `ns` its file back when something has unmounted or unlinked that; answer whether that was so.

        What still holds the namespace leads to it: our own socket in it, or else process `pid`.
        """
        path = self.ns_path(ns)
        if namespaces.is_alive(path):
            return False
        held = self.sockets.get(ns)
        try:
            fd = held.namespace() if held is not None else os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            namespaces.keep(fd, path)
        finally:
            os.close(fd)
        return True

    def has_ipv6(self) -> bool:
        """Whether the kernel speaks IPv6 and can filter and translate it. A link of it may still have IPv6 disabled."""
        return Path("/proc/thread-self/net/if_inet6").exists() and self.nft.supports("ip6")

    @property
    def nft(self) -> Nft:
        if self._nft is None:
            raise RuntimeError("Kernel.open was not called")
        return self._nft

    def execute(self, ns: str, batch: messages.Batch) -> None:
        """Send a batch; raise the first error after all answers are in."""
        for error in self.socket_in(ns).execute(batch):
            if error is not None:
                raise error

    def announce(self, links: Iterable[tuple[str, str, str]]) -> None:
        """Announce the addresses of links again: (namespace, link, MAC) of each. What is gone meanwhile is left out."""
        for ns, items in groupby(sorted(links), key=lambda item: item[0]):
            if ns in self.sockets:
                announce_again([(link, mac) for _, link, mac in items], self.sockets[ns])

    def remove(self, ns: str, batch: messages.Batch) -> None:
        """Send a batch of deletions; what is already gone counts as done."""
        if ns and not namespaces.is_alive(self.ns_path(ns)):
            return
        for error in self.socket_in(ns).execute(batch):
            if error is not None and not is_gone(error):
                raise error

    def create_each(self, ns: str, groups: Sequence[tuple[R, messages.Batch]], made: list[Resource]) -> None:
        """One batch for several resources, each a few messages; `made` gets those whose every message was accepted."""
        outcome = iter(self.socket_in(ns).execute([m for _, batch in groups for m in batch]))
        first: NetlinkError | None = None
        for resource, batch in groups:
            errors = [next(outcome) for _ in batch]
            if errors[0] is None or errors[0].lost:
                made.append(resource)
            first = first or next((e for e in errors if e is not None), None)
        if first is not None:
            raise first

    # -- ports --------------------------------------------------------------------------------------------------------

    def reserve(self, address: str, protocol: Protocol, port: int) -> HostPort:
        """Take a port of the host; port 0 lets the kernel choose a free one. Raises hostports.PortTaken, KernelRefused."""
        wanted = HostPort(address, protocol, port)
        if wanted in self.inherited:
            self.held[wanted] = self.inherited.pop(wanted)
            return wanted
        port_, held = hostports.bind(address, protocol, port, taken=self.held)
        self.held[port_] = held
        return port_

    def reserve_all(self, asks: Iterable[hostports.PortAsk]) -> list[list[HostPort]]:
        """The ports of each ask: all, or none. Raises KernelRefused."""
        return hostports.take(asks, self.reserve, self.release)

    def reserve_each(self, ports: Iterable[HostPort]) -> list[NetengineError | None]:
        """Take ports of the host, as many of them as can be had; answer what is in the way of each."""
        out: list[NetengineError | None] = []
        for port in ports:
            try:
                self.reserve(port.address, port.protocol, port.port)
                out.append(None)
            except NetengineError as e:
                out.append(e)
        return out

    def release(self, ports: Iterable[HostPort]) -> None:
        """Give ports back; ones that are not held are ignored."""
        for port in ports:
            held = self.held.pop(port, None)
            if held is not None:
                held.close()

    def held_ports(self) -> set[HostPort]:
        return set(self.held)

    # -- sockets of name services, aliases ------------------------------------------------------------------------------

    def take_name_sockets(self, ns: str) -> list[socket.socket]:
        """The sockets made for a namespace's name service, to be handed to the name server; [] when there are none new. From
        any thread."""
        return self.names.take(ns)

    def owns_alias(self, path: Path) -> bool:
        """Whether a file in the alias directory is a symbolic link to one of our namespaces."""
        return path.is_symlink() and path.readlink().parent == self.run_dir
