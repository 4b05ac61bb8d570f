"""The kernel of one host: makes it equal to a set of resources, and undoes what it did when it cannot.

`Kernel` works on the network namespace of the thread that calls `open`, and every other method must be called from that same
thread: netlink and nftables sockets, `setns` and `unshare` belong to it. What is built and in which order is `kernel.plan`'s
business; reading the kernel back is `kernel.observe`'s.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

from netengine import failpoints
from netengine.errors import KernelRefused, NetengineError
from netengine.kernel import hostports, messages, nameservice, namespaces, sysctl
from netengine.kernel.announce import announce
from netengine.kernel.conntrack import Conntrack
from netengine.kernel.descriptors import move_up
from netengine.kernel.netlink import NetlinkError, NetlinkSocket, is_gone
from netengine.kernel.nftables import Nft, commands
from netengine.kernel.plan import Change, Plan, plan
from netengine.kernel.resources import (
    HOST,
    Address,
    Bridge,
    Element,
    HostPort,
    LinkUp,
    NameService,
    Namespace,
    NamespaceAlias,
    Protocol,
    Resource,
    Route,
    Sysctl,
    Table,
    Veth,
)

log = logging.getLogger(__name__)

R = TypeVar("R", bound=Resource)
Batch = list[tuple[str, messages.Message]]

_NAMESPACE_DEFAULTS = (
    # A link without IPv6 neither sends router solicitations nor gets a link-local address. `lo` keeps ::1.
    ("net/ipv6/conf/default/disable_ipv6", "1"),
    # A link that comes up with an address announces it.
    ("net/ipv4/conf/default/arp_notify", "1"),
    # As Docker: port 80 and ping without privileges, since no other program shares this namespace.
    ("net/ipv4/ip_unprivileged_port_start", "0"),
    ("net/ipv4/ping_group_range", "0 2147483647"),
)
"""What a new namespace of ours, and every link in it, starts with."""


class Kernel:
    """The host's kernel, as the daemon sees and changes it.

    `run_dir` keeps the namespaces' files (`run_dir`/NAME); `alias_dir` gets symbolic links to them under the containers'
    names, where iproute2 looks (/run/netns).
    """

    def __init__(self, run_dir: Path, alias_dir: Path = Path("/run/netns")) -> None:
        self.run_dir = run_dir
        self.alias_dir = alias_dir
        self._home = -1
        self._nft: Nft | None = None
        self._conntrack: Conntrack | None = None
        self._sockets: dict[str, NetlinkSocket] = {}
        self._held: dict[HostPort, socket.socket | None] = {}
        self._name_sockets: dict[str, list[socket.socket]] = {}

    def open(self) -> None:
        """Take the calling thread's network namespace as the host's and open the sockets in it."""
        self.run_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
        self._home = move_up(namespaces.open_current())
        self._sockets[HOST] = NetlinkSocket()
        self._nft = Nft()
        self._conntrack = Conntrack()

    def close(self) -> None:
        """Let go of sockets and ports. What is in the kernel stays."""
        for held in self._held.values():
            if held is not None:
                held.close()
        self._held.clear()
        for ns in list(self._name_sockets):
            self._close_name_sockets(ns)
        for ns in list(self._sockets):
            self._sockets.pop(ns).close()
        if self._conntrack is not None:
            self._conntrack.close()
            self._conntrack = None
        if self._home >= 0:
            os.close(self._home)
            self._home = -1

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
            for kind, group in groupby(steps.create, key=type):
                failpoints.reach(f"kernel: create {kind.__name__}")
                _CREATE[kind](self, list(group), made)
            for change in steps.change:
                failpoints.reach(f"kernel: change {type(change.new).__name__}")
                self._change(change)
                changed.append(change)
        except (OSError, NetengineError) as e:
            self._undo(made, changed, steps.delete + steps.implied)
            if isinstance(e, NetengineError):
                raise
            raise KernelRefused(f"the kernel refused: {e.strerror or e}") from e
        if errors:
            raise KernelRefused("not everything could be removed: " + "; ".join(errors))
        return steps

    def _undo(self, made: Sequence[Resource], changed: Sequence[Change], deleted: Sequence[Resource]) -> None:
        """Changes come last: what they change back to may be among what is put back, a veth's old bridge say."""
        for problem in self._delete(plan((), made).delete):
            log.error("while undoing: %s", problem)
        try:
            for kind, group in groupby(plan(deleted, ()).create, key=type):
                _CREATE[kind](self, list(group), [])
        except (OSError, NetengineError) as e:
            log.error("while putting back what was removed: %s", e)
        for change in reversed(changed):
            try:
                self._change(Change(change.new, change.old))
            except (OSError, NetengineError) as e:
                log.error("while undoing a change of %s: %s", change.old, e)

    def _delete(self, resources: Sequence[Resource]) -> list[str]:
        """Remove all of them, best effort; answer what could not be removed. What is not there is as good as removed."""
        errors: list[str] = []
        for kind, group in groupby(resources, key=type):
            failpoints.reach(f"kernel: delete {kind.__name__}")
            try:
                _DELETE[kind](self, list(group))
            except (OSError, NetengineError) as e:
                errors.append(str(e))
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
            with namespaces.entered(fd, self._home):
                yield
        finally:
            os.close(fd)

    def socket_in(self, ns: str) -> NetlinkSocket:
        """The rtnetlink socket of a namespace, opened when first needed and kept: entering costs more than sending."""
        found = self._sockets.get(ns)
        if found is None:
            with self.inside(ns):
                found = self._sockets[ns] = NetlinkSocket()
        return found

    def index(self, ns: str, link: str) -> int:
        """The interface index of a link. Raises OSError ENODEV."""
        with self.inside(ns):
            try:
                return socket.if_nametoindex(link)
            except OSError as e:
                where = f"namespace {ns[:12]}" if ns else "the host"
                raise OSError(errno.ENODEV, f"there is no link {link} in {where}") from e

    def has_namespace(self, ns: str) -> bool:
        """Whether the namespace's file is there and mounted. From any thread."""
        return namespaces.is_alive(self.ns_path(ns))

    def keep_namespace(self, ns: str, pid: int = 0) -> bool:
        """Give namespace `ns` its file back when something has unmounted or unlinked that; answer whether that was so.

        What still holds the namespace leads to it: our own socket in it, or else process `pid`.
        """
        path = self.ns_path(ns)
        if namespaces.is_alive(path):
            return False
        held = self._sockets.get(ns)
        try:
            fd = held.namespace() if held is not None else os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            namespaces.keep(fd, path)
        finally:
            os.close(fd)
        return True

    @property
    def nft(self) -> Nft:
        if self._nft is None:
            raise RuntimeError("Kernel.open was not called")
        return self._nft

    def _execute(self, ns: str, batch: Batch) -> None:
        """Send a batch; raise the first error after all answers are in."""
        for error in self.socket_in(ns).execute(batch):
            if error is not None:
                raise error

    def _remove(self, ns: str, batch: Batch) -> None:
        """Send a batch of deletions; what is already gone counts as done."""
        if ns and not namespaces.is_alive(self.ns_path(ns)):
            return
        for error in self.socket_in(ns).execute(batch):
            if error is not None and not is_gone(error):
                raise error

    def _create_each(self, ns: str, groups: Sequence[tuple[R, Batch]], made: list[Resource]) -> None:
        """One batch for several resources, each a few messages; `made` gets those whose every message was accepted."""
        outcome = iter(self.socket_in(ns).execute([m for _, batch in groups for m in batch]))
        first: NetlinkError | None = None
        for resource, batch in groups:
            errors = [next(outcome) for _ in batch]
            if errors[0] is None:
                made.append(resource)
            first = first or next((e for e in errors if e is not None), None)
        if first is not None:
            raise first

    # -- ports --------------------------------------------------------------------------------------------------------

    def reserve(self, address: str, protocol: Protocol, port: int) -> HostPort:
        """Take a port of the host; port 0 lets the kernel choose a free one. Raises hostports.PortTaken, KernelRefused."""
        port_, held = hostports.bind(address, protocol, port, taken=self._held)
        self._held[port_] = held
        return port_

    def release(self, ports: Iterable[HostPort]) -> None:
        """Give ports back; ones that are not held are ignored."""
        for port in ports:
            held = self._held.pop(port, None)
            if held is not None:
                held.close()

    def held_ports(self) -> set[HostPort]:
        return set(self._held)

    # -- creation, by kind --------------------------------------------------------------------------------------------

    def _create_ports(self, resources: list[HostPort], made: list[Resource]) -> None:
        for r in resources:
            if r not in self._held:
                self.reserve(r.address, r.protocol, r.port)
                made.append(r)

    def _create_namespaces(self, resources: list[Namespace], made: list[Resource]) -> None:
        for r in resources:
            path = self.ns_path(r.name)
            if path.exists() and not namespaces.is_alive(path):
                path.unlink()
            fd = namespaces.create(path, self._home)
            made.append(r)
            try:
                with namespaces.entered(fd, self._home):
                    self._sockets[r.name] = NetlinkSocket()
                    for name, value in _NAMESPACE_DEFAULTS:
                        if sysctl.read(name) is not None:
                            sysctl.write(name, value)
            finally:
                os.close(fd)

    def _create_tables(self, resources: list[Table], made: list[Resource]) -> None:
        for r in resources:
            self.nft.load(r)
            made.append(r)

    def _create_bridges(self, resources: list[Bridge], made: list[Resource]) -> None:
        groups: list[tuple[Bridge, Batch]] = [
            (
                r,
                [
                    (f"create bridge {r.name}", messages.bridge_add(r)),
                    (f"mark bridge {r.name} as {r.mark}", messages.alternative_name(r.name, r.mark)),
                    (f"bring bridge {r.name} up", messages.link_set(r.name, mtu=r.mtu)),
                ],
            )
            for r in resources
        ]
        self._create_each(HOST, groups, made)

    def _create_veths(self, resources: list[Veth], made: list[Resource]) -> None:
        descriptors: list[int] = []
        groups: list[tuple[Veth, Batch]] = []
        try:
            for r in resources:
                fd = os.open(self.ns_path(r.ns), os.O_RDONLY | os.O_CLOEXEC)
                descriptors.append(fd)
                master = self.index(HOST, r.master)
                batch: Batch = [(f"create veth {r.name} of bridge {r.master}", messages.veth_add(r, master, fd))]
                batch.append((f"bring {r.name} up", messages.port_up(r)))
                groups.append((r, batch))
            self._create_each(HOST, groups, made)
        finally:
            for fd in descriptors:
                os.close(fd)

    def _create_ups(self, resources: list[LinkUp], made: list[Resource]) -> None:
        for ns, items in _by_ns(resources):
            groups: list[tuple[LinkUp, Batch]] = [
                (r, [(f"bring {r.link} up", messages.link_up(r.link))]) for r in items
            ]
            self._create_each(ns, groups, made)
            if ns != HOST:
                announce([r.link for r in items if r.link != "lo"], self.socket_in(ns), self.socket_in(HOST))

    def _create_name_services(self, resources: list[NameService], made: list[Resource]) -> None:
        for r in resources:
            with self.inside(r.ns):
                self._close_name_sockets(r.ns)
                self._name_sockets[r.ns] = nameservice.open_sockets(r.own_servers)
            made.append(r)

    def take_name_sockets(self, ns: str) -> list[socket.socket]:
        """The sockets made for a namespace's name service, to be handed to the name server; [] when there are none new."""
        return self._name_sockets.pop(ns, [])

    def _close_name_sockets(self, ns: str) -> None:
        for opened in self._name_sockets.pop(ns, []):
            opened.close()

    def _create_sysctls(self, resources: list[Sysctl], made: list[Resource]) -> None:
        for r in resources:
            self._write_sysctl(r)
            made.append(r)

    def _write_sysctl(self, r: Sysctl) -> None:
        with self.inside(r.ns):
            try:
                sysctl.write(r.path, r.value)
            except OSError as e:
                raise KernelRefused(f"cannot set sysctl {r.path.replace('/', '.')} to {r.value!r}: {e.strerror}") from e

    def _create_addresses(self, resources: list[Address], made: list[Resource]) -> None:
        for ns, items in _by_ns(resources):
            groups: list[tuple[Address, Batch]] = [
                (r, [(f"add address {r.interface} to {r.link}", messages.address_add(self.index(ns, r.link), r))])
                for r in items
            ]
            self._create_each(ns, groups, made)

    def _create_routes(self, resources: list[Route], made: list[Resource]) -> None:
        for ns, items in _by_ns(resources):
            groups: list[tuple[Route, Batch]] = [
                (
                    r,
                    [
                        (
                            f"add route {r.destination} via {r.gateway or r.link}",
                            messages.route_add(self.index(ns, r.link), r),
                        )
                    ],
                )
                for r in items
            ]
            self._create_each(ns, groups, made)

    def _create_elements(self, resources: list[Element], made: list[Resource]) -> None:
        self.nft.run(commands("add", resources))
        made.extend(resources)
        self._forget_flows(resources)

    def _forget_flows(self, resources: Iterable[Element]) -> None:
        """Flows to UDP ports that have just been published, or are no longer, are translated anew."""
        ports = {int(r.parts[-1]) for r in resources if r.container in ("ports", "address-ports") and "udp" in r.parts}
        if ports and self._conntrack is not None:
            self._conntrack.forget_udp(ports)

    def _create_aliases(self, resources: list[NamespaceAlias], made: list[Resource]) -> None:
        self.alias_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
        for r in resources:
            path = self.alias_dir / r.alias
            try:
                path.symlink_to(self.ns_path(r.ns))
            except FileExistsError:
                if not self.owns_alias(path):
                    # Somebody else's namespace has the name. The sandbox works without; it is entered by its own path.
                    log.warning(
                        "%s exists and is not netengine's: namespace %s is at %s only",
                        path,
                        r.alias,
                        self.ns_path(r.ns),
                    )
                    continue
                path.unlink()
                path.symlink_to(self.ns_path(r.ns))
            made.append(r)

    def owns_alias(self, path: Path) -> bool:
        """Whether a file in the alias directory is a symbolic link to one of our namespaces."""
        return path.is_symlink() and path.readlink().parent == self.run_dir

    # -- change and deletion, by kind ---------------------------------------------------------------------------------

    def _change(self, change: Change) -> None:
        match change.old, change.new:
            case Bridge() as old, Bridge() as new:
                what = f"change bridge {new.name}"
                batch: Batch = [(what, messages.link_set(new.name, mac=new.mac, mtu=new.mtu))]
                if old.mark != new.mark:
                    batch.append((what, messages.alternative_name(new.name, new.mark)))
                self._execute(HOST, batch)
            case Veth(), Veth() as new:
                self._change_veth(new)
            case Route() as old, Route() as new:
                self._delete_routes([old])
                self._create_routes([new], [])
            case Sysctl(), Sysctl() as new:
                self._write_sysctl(new)
            case Element() as old, Element() as new:
                self.nft.run(commands("delete", [old]) + commands("add", [new]))
                self._forget_flows([new])
            case NameService(), NameService() as new:
                self._create_name_services([new], [])
            case NamespaceAlias(), NamespaceAlias() as new:
                self._create_aliases([new], [])
            case old, new:
                raise TypeError(f"cannot change {old} into {new}")

    def _change_veth(self, new: Veth) -> None:
        what = f"change veth {new.name}"
        master = self.index(HOST, new.master)
        batch: Batch = [(what, messages.link_set(new.name, mtu=new.mtu, master=master)), (what, messages.port_up(new))]
        self._execute(HOST, batch)
        self._execute(new.ns, [(what, messages.link_set(new.peer, mtu=new.mtu))])

    def _delete_name_services(self, resources: list[NameService]) -> None:
        for r in resources:
            self._close_name_sockets(r.ns)
            if namespaces.is_alive(self.ns_path(r.ns)):
                with self.inside(r.ns):
                    nameservice.remove_rules()

    def _delete_namespaces(self, resources: list[Namespace]) -> None:
        for r in resources:
            self._close_name_sockets(r.name)
            held = self._sockets.pop(r.name, None)
            if held is not None:
                held.close()
            namespaces.release(self.ns_path(r.name))

    def _delete_tables(self, resources: list[Table]) -> None:
        for r in resources:
            self.nft.unload(r)

    def _delete_links(self, resources: list[Bridge] | list[Veth]) -> None:
        self._remove(HOST, [(f"delete {r.name}", messages.link_delete(r.name)) for r in resources])

    def _delete_addresses(self, resources: list[Address]) -> None:
        self._delete_by_index(resources, messages.address_delete)

    def _delete_routes(self, resources: list[Route]) -> None:
        self._delete_by_index(resources, messages.route_delete)

    def _delete_by_index(self, resources: list[Any], build: Callable[[int, Any], messages.Message]) -> None:
        for ns, items in _by_ns(resources):
            batch: Batch = []
            for r in items:
                try:
                    batch.append((f"delete {r}", build(self.index(ns, r.link), r)))
                except OSError as e:
                    if not is_gone(e):
                        raise
            self._remove(ns, batch)

    def _delete_elements(self, resources: list[Element]) -> None:
        try:
            self.nft.run(commands("delete", resources))
        except KernelRefused:
            # One that is missing fails the whole transaction: somebody flushed. Take them one by one.
            for r in resources:
                try:
                    self.nft.run(commands("delete", [r]))
                except KernelRefused as e:
                    log.debug("%s was already gone: %s", r, e)
        self._forget_flows(resources)

    def _delete_aliases(self, resources: list[NamespaceAlias]) -> None:
        for r in resources:
            path = self.alias_dir / r.alias
            if self.owns_alias(path) and path.readlink() == self.ns_path(r.ns):
                path.unlink(missing_ok=True)

    def _keep(self, resources: list[Resource]) -> None:
        """Nothing to remove: it goes with what it belongs to, or stays as it is."""


def _by_ns(resources: Iterable[Any]) -> Iterator[tuple[str, list[Any]]]:
    for ns, items in groupby(sorted(resources, key=lambda r: r.ns), key=lambda r: r.ns):
        yield ns, list(items)


_CREATE: dict[type, Callable[[Kernel, Any, list[Resource]], None]] = {
    HostPort: Kernel._create_ports,
    Namespace: Kernel._create_namespaces,
    Table: Kernel._create_tables,
    Bridge: Kernel._create_bridges,
    Veth: Kernel._create_veths,
    LinkUp: Kernel._create_ups,
    NameService: Kernel._create_name_services,
    Sysctl: Kernel._create_sysctls,
    Address: Kernel._create_addresses,
    Route: Kernel._create_routes,
    Element: Kernel._create_elements,
    NamespaceAlias: Kernel._create_aliases,
}

_DELETE: dict[type, Callable[[Kernel, Any], None]] = {
    HostPort: Kernel.release,
    Namespace: Kernel._delete_namespaces,
    Table: Kernel._delete_tables,
    Bridge: Kernel._delete_links,
    Veth: Kernel._delete_links,
    LinkUp: Kernel._keep,
    NameService: Kernel._delete_name_services,
    Sysctl: Kernel._keep,
    Address: Kernel._delete_addresses,
    Route: Kernel._delete_routes,
    Element: Kernel._delete_elements,
    NamespaceAlias: Kernel._delete_aliases,
}
