"""A manager's member of etcd: what it is told, how it comes into the cluster and leaves it, and that it runs.

The process (etcdprocess.py) outlives the daemon; whoever supervises it adopts it at start, and starts it again, ever more
slowly, when it dies. etcd reads its certificate anew for each connection, so that a renewal needs no restart; its roots it
reads at its start only, and a rotation ends with one restart of each member after the other.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
from dataclasses import dataclass
from ipaddress import ip_address

from netengine import failpoints
from netengine.cluster import members, tls
from netengine.cluster.etcdprocess import EtcdProcess, Running
from netengine.cluster.identity import Files
from netengine.errors import Conflict, Invalid, NetengineError, NotFound, Unavailable
from netengine.http.client import CallError, Client
from netengine.store.etcd import Etcd, Member

log = logging.getLogger(__name__)

CLIENT_PORT, PEER_PORT = 2379, 2380
START_SECONDS = 30.0
"""In which a member must answer that has been started; on a quiet machine it takes one."""
CATCH_UP_SECONDS = 120.0
"""In which a new member must have read what the others have."""
_FIRST_BACKOFF, _LAST_BACKOFF = 0.5, 30.0
_WELL_AFTER = 60.0  # seconds of running after which the next death is seen as the first
_DATA = "data"
_LOOK_SECONDS = 60.0

_AGAIN = ("--initial-cluster-state=existing",)
_SETTINGS = (
    "--logger=zap",
    "--log-outputs=stderr",
    "--log-level=warn",
    "--heartbeat-interval=100",
    "--election-timeout=1000",
    "--pre-vote",  # a member that comes back from a partition does not depose the leader
    "--strict-reconfig-check",
    "--quota-backend-bytes=2147483648",
    "--snapshot-count=10000",
    "--auto-compaction-mode=periodic",
    "--auto-compaction-retention=1h",
    "--bcrypt-cost=4",  # passwords are 192 random bits: there is nothing to slow down
    "--cert-file=node.pem",
    "--key-file=node.pem",
    # With roots, certificates are demanded and verified. --client-cert-auth would take their names for users besides, and then
    # the gateway refuses whoever has a name (HTTP 400).
    "--trusted-ca-file=ca.pem",
    "--peer-cert-file=node.pem",
    "--peer-key-file=node.pem",
    "--peer-trusted-ca-file=ca.pem",
    "--peer-client-cert-auth",
    # A worker's certificate does not make a peer; and a manager may speak from another address than the one it is reached at.
    f"--peer-cert-allowed-hostname={tls.MANAGER_NAME}",
    "--experimental-peer-skip-client-san-verification",
)


@dataclass(frozen=True, slots=True)
class Urls:
    client: str
    peer: str


def urls_of(address: str) -> Urls:
    """Where the member of the manager with that advertise address is reached."""
    host = f"[{address}]" if ip_address(address).version == 6 else address
    return Urls(f"https://{host}:{CLIENT_PORT}", f"https://{host}:{PEER_PORT}")


class EtcdMember:
    """The member on this host, of the node `node` with that advertise address. Use on the event loop."""

    def __init__(self, files: Files, process: EtcdProcess, node: str, address: str) -> None:
        self.urls = urls_of(address)
        self.problem = ""
        """Why it does not run, for people; "" while it does."""
        self._told = ""
        self._files = files
        self._process = process
        self._node = node
        self._address = address
        self._task: asyncio.Task[None] | None = None

    # -- into the cluster ---------------------------------------------------------------------------------------------

    async def create(self) -> None:
        """The first member of a new cluster, with nothing in its store. Nothing of it is left when this fails.

        Raises Conflict (a port is taken), Invalid (the address is not one of this host), Unavailable.
        """
        check_ports(self._address)
        await self._begin(f"{self._node}={self.urls.peer}", "new")
        try:
            await self.ready()
        except BaseException:
            await self.destroy()
            raise
        self._supervise()

    async def join(self, etcd: Etcd) -> int:
        """Another member of the cluster that `etcd` is a client of, with the rights of a manager. Its id.

        It learns first and gets its vote when it has caught up, so that the majority is never larger than those who can be in
        it. What an earlier member of this node left, here or there, is thrown away. Nothing is left when this fails.
        """
        check_ports(self._address)
        await self._process.end()
        await self.forget(etcd)
        try:
            new, everyone = await members.add(etcd, self.urls.peer)
        except Unavailable as error:
            raise Unavailable(
                f"the cluster cannot take in another manager now: {error.message}; all that it has must be up: demote or "
                "remove those that are down"
            ) from error
        try:
            initial = ",".join(
                f"{self._node if m.id == new.id else m.name or f'{m.id:x}'}={m.peer_urls[0]}" for m in everyone
            )
            failpoints.reach("cluster: a member is added")
            await self._begin(initial, "existing")
            await self._promoted(etcd, new)
            failpoints.reach("cluster: a member has its vote")
        except BaseException:
            await self.destroy()
            with contextlib.suppress(NetengineError):
                await etcd.remove_member(new.id)
            raise
        self._supervise()
        return new.id

    async def resume(self) -> None:
        """After the daemon's start: adopt the member that runs, or start it with what it has kept. Does not wait for it."""
        if not self.has_data():
            raise NotFound(f"{self._process.directory} has no member's data: this manager must join again")
        if self._process.find() is None:
            self._write_certificates()
            self._start()
        self._supervise()

    async def recover(self) -> None:
        """Make a cluster of this member alone, with all that it has kept: `swarm init --force-new-cluster`, after a majority
        was lost for good. The address may be another than before. Raises Unavailable."""
        if not self.has_data():
            raise Unavailable(
                f"{self._process.directory} has no data of a member: there is nothing to start a cluster from"
            )
        await self.close()
        await self._process.end()
        check_ports(self._address)
        self._write_certificates()
        self._start("--force-new-cluster")
        await self.ready()
        await self._process.end()  # never again with that flag: it would throw out members that have joined since
        self._start()
        await self.ready()
        self._supervise()

    # -- out of it ----------------------------------------------------------------------------------------------------

    async def leave(self, etcd: Etcd) -> None:
        """Take this member out of the cluster, then end it and remove what it kept. Refused, with nothing changed, where too
        few others are up to go on without it: Unavailable."""
        own = await self.member(etcd)
        if own is not None:
            await members.remove(etcd, own)
        await self.destroy()

    async def forget(self, etcd: Etcd) -> None:
        """Remove members that this node left in the cluster's list."""
        for one in await etcd.members():
            if one.name == self._node or self.urls.peer in one.peer_urls:
                await members.remove(etcd, one)

    async def member(self, etcd: Etcd) -> Member | None:
        """What the cluster knows of this member."""
        for one in await etcd.members():
            if one.name == self._node or self.urls.peer in one.peer_urls:
                return one
        return None

    async def destroy(self) -> None:
        """End it, and remove what it kept, whatever the others say: they may still count it."""
        await self.close()
        await self._process.end()
        await asyncio.to_thread(self._process.wipe)

    # -- while it runs ------------------------------------------------------------------------------------------------

    async def renewed(self) -> None:
        """The files of certificate and roots have changed. A new certificate is used at once; for new roots, see `restart`."""
        await asyncio.to_thread(self._write_certificates)

    async def restart(self) -> None:
        """With what the files say now: after the roots have changed. One member at a time, or the store is away meanwhile."""
        await self.close()
        await self._process.end()
        self._write_certificates()
        self._start()
        self._supervise()
        await self.ready()

    async def close(self) -> None:
        """Stop looking after it; it goes on."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    def has_data(self) -> bool:
        """Whether it has been a member: it has a log."""
        return any((self._process.directory / _DATA / "member/wal").glob("*.wal"))

    @property
    def pid(self) -> int:
        """0 when it does not run."""
        running = self._process.find()
        return running.pid if running else 0

    async def ready(self, seconds: float = START_SECONDS) -> None:
        """Wait until it answers and knows a leader. Raises Unavailable, at once when it has ended."""
        context = tls.client_context(self._files)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        client = Client(keep_seconds=0)
        while True:
            with contextlib.suppress(CallError, TimeoutError):
                url = f"{self.urls.client}/health"
                async with (
                    asyncio.timeout(2.0),
                    client.call("GET", url, tls=context, server_name=tls.MANAGER_NAME) as answer,
                ):
                    if answer.status == 200:
                        return
            if self._process.find() is None and self._task is None:
                raise self._ended()
            if loop.time() > deadline:
                words = self._process.last_words()
                raise Unavailable(
                    f"etcd was started and does not answer within {seconds:g} s{': ' + words if words else ''}"
                )
            await asyncio.sleep(0.05)

    def _ended(self) -> Unavailable:
        return Unavailable(
            f"etcd has ended: {self._process.last_words() or f'it does not say why; see {self._process.log_path}'}"
        )

    async def _promoted(self, etcd: Etcd, new: Member) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + CATCH_UP_SECONDS
        while True:
            try:
                await members.promote(etcd, new.id)
                return
            except (Unavailable, NotFound) as error:
                if self._process.find() is None:
                    raise self._ended() from error
                if loop.time() > deadline:
                    raise Unavailable(
                        f"the new member of etcd has not caught up with the others within {CATCH_UP_SECONDS:g} s: can this "
                        f"host be reached by the managers on ports {CLIENT_PORT} and {PEER_PORT}? ({error.message})"
                    ) from error
            await asyncio.sleep(0.1)

    # -- the process --------------------------------------------------------------------------------------------------

    async def _begin(self, initial: str, state: str) -> None:
        """Start it with nothing."""
        await self.close()
        await self._process.end()
        await asyncio.to_thread(self._process.wipe)
        self._write_certificates()
        self._start(
            f"--initial-cluster={initial}", f"--initial-cluster-state={state}", f"--initial-cluster-token={self._node}"
        )

    def _write_certificates(self) -> None:
        """Copies for the process, which may not read the node's own."""
        self._process.prepare()
        key, certificate = self._files.key_and_certificate()
        self._process.put("ca.pem", self._files.roots().encode())
        self._process.put("node.pem", (key + certificate).encode())

    def _start(self, *how: str) -> Running:
        """`how` it comes into a cluster, when it is in none yet: without, one that has lost its log must not begin one anew."""
        where = [f"--listen-client-urls={self.urls.client}", f"--advertise-client-urls={self.urls.client}"]
        where += [f"--listen-peer-urls={self.urls.peer}", f"--initial-advertise-peer-urls={self.urls.peer}"]
        return self._process.start(
            [f"--name={self._node}", f"--data-dir={_DATA}", *where, *_SETTINGS, *(how or _AGAIN)]
        )

    def _supervise(self) -> None:
        if self._task is None:
            self._task = asyncio.create_task(self._keep(), name="etcd member")

    async def _keep(self) -> None:
        """See to it that it runs. Lasts until cancelled."""
        backoff, loop = _FIRST_BACKOFF, asyncio.get_running_loop()
        while True:
            running = self._process.find()
            if running is not None:
                self._say("")
                began = loop.time()
                await self._watched(running)
                if loop.time() - began > _WELL_AFTER:
                    backoff, self._told = _FIRST_BACKOFF, ""
                self._say(f"etcd has ended: {self._process.last_words() or 'it was killed'}")
            await asyncio.sleep(backoff)
            backoff = min(2 * backoff, _LAST_BACKOFF)
            try:
                if not self.has_data():
                    raise Unavailable(
                        f"what etcd kept in {self._process.directory} is gone: demote this manager, then promote it again"
                    )
                self._write_certificates()
                self._start()
            except NetengineError as error:
                self._say(error.message)

    def _say(self, problem: str) -> None:
        if problem and problem != self._told:
            log.warning("%s", problem)
            self._told = problem
        self.problem = problem

    async def _watched(self, running: Running) -> None:
        """Until it has ended; its log is kept short meanwhile."""
        while True:
            try:
                async with asyncio.timeout(_LOOK_SECONDS):
                    await self._process.ended(running)
                return
            except TimeoutError:
                self._process.trim_log()


def check_ports(address: str) -> None:
    """Before anything is changed: whether etcd could listen. Raises Conflict, Invalid."""
    family = socket.AF_INET6 if ip_address(address).version == 6 else socket.AF_INET
    for port in (CLIENT_PORT, PEER_PORT):
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    raise Conflict(
                        f"port {port} of {address} is in use, and etcd needs it on a manager: see `ss -ltnp`; an etcd that the "
                        "package has started ends with `systemctl disable --now etcd`"
                    ) from error
                raise Invalid(f"{address} is not an address of this host: {error.strerror}") from error
