"""What happens to members of etcd, as stories: `python -m tests.cluster.member_stories NAME DIRECTORY [WORD...]`.

Each is run inside a host of test_member.py, as a daemon would be, so that whatever it starts is of that host and ends with it.
Three managers are at 127.0.0.1 to 127.0.0.3, each with its own files.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from netengine.cluster import certificates, member, members, tls, users
from netengine.cluster.certificates import Authority
from netengine.cluster.etcdprocess import EtcdProcess
from netengine.cluster.identity import Files
from netengine.cluster.member import EtcdMember
from netengine.errors import Conflict, Forbidden, Invalid, NetengineError, Unavailable
from netengine.store.etcd import Entry, Etcd
from tests.cluster.nodes import CLUSTER, node_files
from tests.hosts import wait_until
from tests.patience import patient

PASSWORD = "p" * 32


class Manager:
    """One of the three, and its part of the disk."""

    def __init__(self, directory: Path, number: int, authority: Authority | None = None) -> None:
        self.node, self.address = f"m{number}", f"127.0.0.{number}"
        self.place = directory / self.node
        self.files = Files(self.place / self.node)
        if authority is not None:
            self.files = node_files(self.place, authority, self.node, "manager", [self.address])
        self.process = EtcdProcess(self.files.directory / "etcd", self.place / "run")
        self.member = EtcdMember(self.files, self.process, self.node, self.address)

    def client(self, *others: Manager, user: bool = True) -> Etcd:
        urls = [one.member.urls.client for one in (self, *others)]
        who = {"name": users.user_of(self.node), "password": PASSWORD} if user else {}
        context = tls.client_context(self.files)
        return Etcd(urls, context, server_name=tls.MANAGER_NAME, time_limit=patient(5), **who)


def managers(directory: Path, authority: Authority | None, count: int = 3) -> list[Manager]:
    return [Manager(directory, number + 1, authority) for number in range(count)]


def root() -> Authority:
    return certificates.create_authority(CLUSTER)


async def begun(directory: Path, count: int, authority: Authority | None = None) -> list[Manager]:
    """A cluster of that many managers."""
    all_of_them = managers(directory, authority or root(), count)
    first, *others = all_of_them
    await first.member.create()
    async with first.client(user=False) as nobody:
        await users.begin(nobody, first.node, PASSWORD)
    async with first.client() as etcd:
        for other in others:
            await users.admit(etcd, other.node, PASSWORD, manager=True)
            await other.member.join(etcd)
    return all_of_them


async def eventually(what: str, ask: Callable[[], Awaitable[object]], seconds: float = 30) -> None:
    """Until it answers something true. NetengineErrors are answers that are not."""
    last: object = None
    try:
        async with asyncio.timeout(patient(seconds)):
            while True:
                try:
                    if last := await ask():
                        return
                except NetengineError as error:
                    last = error
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"{what}: not within {seconds:g} s: {last}") from None


async def writes(etcd: Etcd, key: str = "/k") -> bool:
    await etcd.put(key, b"1")
    return True


def refused(error: BaseException, kind: type[BaseException], words: str) -> None:
    assert isinstance(error, kind) and words in str(error), error


async def raised(work: Awaitable[object]) -> BaseException:
    try:
        await work
    except NetengineError as error:
        return error
    raise AssertionError("nothing was raised")


# -- the stories --------------------------------------------------------------------------------------------------------------


async def three(directory: Path) -> None:
    """One, then three; each dies in turn and comes back by itself; one leaves and comes again; one loses what it had kept."""
    one, two, three = await begun(directory, 3)
    async with one.client(two, three) as etcd:
        found = await etcd.members()
        assert {m.name for m in found} == {"m1", "m2", "m3"} and not any(m.is_learner for m in found)
        await members.promote(etcd, found[2].id)  # whose first answer was lost, say
        await etcd.put("/kept", b"1")
        for victim in (one, two, three):
            before = victim.member.pid
            os.kill(before, signal.SIGKILL)
            await eventually("writes go on without it", lambda: writes(etcd))
            await eventually("it is started again", partial(_pid_other_than, victim, before))
            await victim.member.ready()
        # It leaves, and comes again with a directory that is damaged.
        await three.member.leave(etcd)
        assert {m.name for m in await etcd.members()} == {"m1", "m2"} and not three.process.directory.exists()
        assert three.member.pid == 0
        (three.process.directory / "data").mkdir(parents=True)
        (three.process.directory / "data/member").write_bytes(b"\xff" * 100)
        await three.member.join(etcd)
        async with three.client() as there:
            entry = await there.get("/kept")
            assert isinstance(entry, Entry) and entry.value == b"1"
        # What it had kept is gone: it does not begin a cluster of its own.
        os.kill(three.member.pid, signal.SIGKILL)
        wait_until(lambda: three.process.find() is None, "it is gone")
        shutil.rmtree(three.process.directory / "data/member/wal")
        await eventually(
            "it says why it does not run", partial(_says, three, "demote this manager, then promote it again")
        )
        assert three.member.pid == 0 and len(await etcd.members()) == 3


async def _pid_other_than(manager: Manager, pid: int) -> bool:
    return manager.member.pid not in (0, pid)


async def _says(manager: Manager, words: str) -> bool:
    return words in manager.member.problem


async def unsafe(directory: Path) -> None:
    """With one of three dead, another may not leave."""
    one, two, three = await begun(directory, 3)
    members.CHANGE_SECONDS = 2.0
    await two.member.close()
    os.kill(two.member.pid, signal.SIGKILL)
    async with one.client() as etcd:
        await eventually("the others have noticed", lambda: _refuses(one, three, etcd))
        assert three.member.pid and three.process.directory.exists(), "it goes on as it was"
        assert await writes(etcd)


async def removed(directory: Path) -> None:
    """One of two is taken out by the other: it says so, and does not go on alone."""
    one, two = await begun(directory, 2)
    async with one.client() as etcd:
        found = await two.member.member(etcd)
        assert found is not None
        await members.remove(etcd, found)
        await members.remove(etcd, found)
        await eventually("it says why it does not run", partial(_says, two, "permanently removed from the cluster"))
        assert await writes(etcd) and await two.member.member(etcd) is None
        refused(await raised(two.member.ready(1)), Unavailable, "does not answer within 1 s")
        await two.member.destroy()


async def six(directory: Path) -> None:
    """IPv6 addresses, and one that is not the loopback's."""
    manager = Manager(directory, 1)
    files = node_files(directory, root(), "m1", "manager", ["::1"])
    here = EtcdMember(files, manager.process, "m1", "::1")
    await here.create()
    context = tls.client_context(files)
    async with Etcd([here.urls.client], context, server_name=tls.MANAGER_NAME) as etcd:
        assert await writes(etcd)
    async with Etcd([here.urls.client], context) as etcd:
        assert await writes(etcd), "its certificate has its address"
    await here.destroy()


async def _refuses(one: Manager, three: Manager, etcd: Etcd) -> bool:
    try:
        found = await three.member.member(etcd)
        assert found is not None
        # Removing a member that is up, of three with one dead, would leave two of which one is dead.
        await members.remove(etcd, found)
    except Unavailable as error:
        return "too few of the other managers are up" in error.message
    raise AssertionError("a member was taken out and the majority lost")


async def alone(directory: Path) -> None:
    """Of three, two are gone for good: the third makes a cluster of its own, with everything that was in the store."""
    one, two, three = await begun(directory, 3)
    async with one.client() as etcd:
        await etcd.put("/kept", b"1")
    for gone in (two, three):
        await gone.member.destroy()
    async with one.client() as etcd:
        refused(await raised(etcd.put("/k", b"1")), Unavailable, "a majority of the managers must be up")
        await one.member.recover()
        assert [m.name for m in await etcd.members()] == ["m1"]
        entry = await etcd.get("/kept")
        assert entry is not None and entry.value == b"1"
        await two.member.join(etcd)
        os.kill(one.member.pid, signal.SIGKILL)  # and it does not throw the other out when it is started again
        await eventually("it is started again", lambda: writes(etcd))
        assert {m.name for m in await etcd.members()} == {"m1", "m2"}


async def start(directory: Path) -> None:
    """A daemon that starts a cluster of one and is killed."""
    (one,) = await begun(directory, 1)
    async with one.client() as etcd:
        await etcd.put("/kept", b"1")
    print(one.member.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


async def adopt(directory: Path, pid: str, lost: str = "") -> None:
    """The next daemon. With `lost` the one before was killed before it could say which process it had started."""
    (one,) = managers(directory, None, 1)
    if lost:
        (one.place / "run/etcd.pid").unlink()
    await one.member.resume()
    assert one.member.pid == int(pid), f"adopted, not started anew: {one.member.pid} is not {pid}"
    async with one.client() as etcd:
        assert await etcd.get("/kept")
        os.kill(one.member.pid, signal.SIGKILL)
        await eventually("supervised", lambda: writes(etcd))
        assert one.member.pid not in (0, int(pid))
    status = Path(f"/proc/{one.member.pid}/status").read_text()
    assert "Uid:\t0" not in status and "NoNewPrivs:\t1" in status and "CapEff:\t0000000000000000" in status
    assert "CapBnd:\t0000000000000000" in status
    print(one.member.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


async def end(directory: Path) -> None:
    """Of a host that leaves; a pid that is somebody else's by now is left alone."""
    (one,) = managers(directory, None, 1)
    pid = one.member.pid
    assert pid
    await one.member.destroy()
    assert not Path(f"/proc/{pid}/cwd").exists() and not one.process.directory.exists()
    (one.place / "run/etcd.pid").write_text(f"{os.getpid()} 1\n")
    assert one.member.pid == 0
    await one.member.destroy()


async def renewal(directory: Path) -> None:
    """A certificate is renewed, and the root is rotated, while clients write and watch."""
    old = root()
    all_of_them = one, two, _ = await begun(directory, 3, old)
    new = certificates.succeed(old, certificates.create_authority(CLUSTER))
    async with one.client(two) as etcd:
        start_at = await etcd.put("/w/0", b"")
        seen: list[tuple[str, int]] = []

        async def watch() -> None:
            async for changes, _ in etcd.watch("/w/", start_at):
                seen.extend((change.entry.key, change.entry.modified) for change in changes)

        watching = asyncio.create_task(watch())
        written = 0

        async def keep_writing() -> None:
            nonlocal written
            while True:
                written += 1
                await etcd.put(f"/w/{written}", b"")
                await asyncio.sleep(0.02)

        writing = asyncio.create_task(keep_writing())
        for authority, trust in ((old, old.trust), (new, new.trust), (new, certificates.settle(new).trust)):
            for manager in all_of_them:
                manager.files.replace_trust(trust)
                key = certificates.make_key()
                request = certificates.make_request(key)
                chain = certificates.issue(authority, request, manager.node, "manager", CLUSTER, [manager.address])
                manager.files.replace_certificate(key, chain)
                await manager.member.renewed()
                etcd.renew(tls.client_context(one.files))
            if trust != old.trust:
                for manager in all_of_them:
                    await manager.member.restart()
                    await manager.member.ready()
            assert not writing.done(), writing.exception()
            before = written
            await eventually("writing goes on", partial(_more, lambda: written, before))
        writing.cancel()
        wanted = {f"/w/{n}" for n in range(1, written)}
        await eventually("the watch has seen all", lambda: _all_in(wanted, seen))
        # Each change once. A key may have two: a write whose answer was lost with its connection is tried anew.
        assert len(seen) == len(set(seen))
        watching.cancel()
        # A node of the old root is a stranger now, and one of the new root is none.
        stranger = node_files(directory / "stranger", old, "m9", "manager", trust=new.trust)
        async with Etcd([one.member.urls.client], tls.client_context(stranger), "node-m1", PASSWORD) as etcd_of_old:
            refused(await raised(etcd_of_old.get("/k")), Unavailable, "etcd does not answer")


async def _more(now: Callable[[], int], than: int) -> bool:
    return now() > than + 5


async def _all_in(wanted: set[str], seen: list[tuple[str, int]]) -> bool:
    return wanted <= {key for key, _ in seen}


async def rights(directory: Path) -> None:
    """What a worker may do at etcd, what it may not, and what ends when it is removed. Who is not a manager is no peer."""
    authority = root()
    (one,) = await begun(directory, 1, authority)
    worker = node_files(directory / "worker", authority, "w1", "worker")
    other = certificates.create_authority(CLUSTER)
    url = one.member.urls.client
    shared = "/netengine/v1/shared/"
    async with one.client() as etcd:
        await users.admit(etcd, "w1", PASSWORD, manager=False)
        await users.admit(etcd, "w1", PASSWORD, manager=False)
        await etcd.put(f"{shared}cluster", b"{}")
        await etcd.put("/netengine/v1/secret/ca", b"{}")
        context = tls.client_context(worker)
        async with Etcd([url], context, "node-w1", PASSWORD, server_name=tls.MANAGER_NAME) as mine:
            assert await mine.get(f"{shared}cluster")
            lease = await mine.grant(15)
            await mine.put(f"{shared}alive/w1", b"{}", lease)
            await mine.put(f"{shared}status/w1", b"{}")
            await mine.put(f"{shared}endpoints/w1/net/10.0.0.2", b"{}")
            await mine.delete(f"{shared}endpoints/w1/", prefix=True)
            for forbidden in (
                mine.get("/netengine/v1/secret/ca"),
                mine.read("/netengine/"),
                mine.put(f"{shared}cluster", b"x"),
                mine.put(f"{shared}nodes/w1", b"x"),
                mine.put(f"{shared}endpoints/w2/net/10.0.0.2", b"x"),
                mine.add_user("w2", "x"),
                mine.give_role("node-w1", "root"),
                mine.remove_member((await etcd.members())[0].id),
            ):
                refused(await raised(forbidden), Forbidden, "permission denied")
            # What no key's permissions are asked for: a copy of everything, and a watch.
            refused(await raised(mine._call("/v3/maintenance/snapshot", {})), NetengineError, "permission denied")
            refused(await raised(mine._call("/v3/maintenance/hash", {})), NetengineError, "permission denied")
            overheard: list[object] = []
            listening = asyncio.create_task(_overhear(mine, "/netengine/v1/secret/", overheard))
            for number in range(20):
                await etcd.put("/netengine/v1/secret/ca", str(number).encode())
                await asyncio.sleep(0.05)
            listening.cancel()
            assert not overheard
            listening = asyncio.create_task(_overhear(etcd, "/netengine/v1/secret/", overheard))
            await eventually("a manager hears it", partial(_any, overheard))
            listening.cancel()
            await users.set_manager(etcd, "w1", True)
            assert await mine.get("/netengine/v1/secret/ca")
            await users.set_manager(etcd, "w1", False)
            await users.set_manager(etcd, "w1", False)
            refused(await raised(mine.get("/netengine/v1/secret/ca")), Forbidden, "permission denied")
            await users.dismiss(etcd, "w1")
            await users.dismiss(etcd, "w1")
            assert isinstance(await raised(mine.get(f"{shared}cluster")), Forbidden | Unavailable)
        for files, user in (
            (worker, ""),
            (worker, "node-m1"),
            (one.files, ""),
            (node_files(directory / "x", other, "m1", "manager", trust=authority.trust), "node-m1"),
        ):
            async with Etcd([url], tls.client_context(files), user, "wrong" if user else "", time_limit=2) as stranger:
                assert isinstance(await raised(stranger.get(f"{shared}cluster")), NetengineError)
                assert isinstance(await raised(stranger._call("/v3/maintenance/snapshot", {})), NetengineError)
    for context in (tls.joining_context(authority.trust), tls.blind_context()):
        async with Etcd([url], context, "node-m1", PASSWORD, server_name=tls.MANAGER_NAME, time_limit=2) as nobody:
            refused(await raised(nobody.get(f"{shared}cluster")), Unavailable, "etcd does not answer")
    assert await _is_peer(one.files) and not await _is_peer(worker)


async def _any(found: list[object]) -> bool:
    return bool(found)


async def _overhear(etcd: Etcd, prefix: str, into: list[object]) -> None:
    async for changes, _ in etcd.watch(prefix, 0):
        into.extend(changes)


async def _is_peer(files: Files) -> bool:
    """Whether etcd speaks with it as with one of its own, on the peer port."""
    try:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", member.PEER_PORT, ssl=tls.client_context(files), server_hostname=tls.MANAGER_NAME
        )
        writer.write(b"GET /members HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n")
        answer = await reader.read()
        writer.close()
    except OSError:
        return False
    return answer.startswith(b"HTTP/1.1 200")


async def refusals(directory: Path) -> None:
    """What cannot work is said before anything is changed, and leaves nothing."""
    (one,) = managers(directory, root(), 1)
    server = await asyncio.start_server(lambda r, w: w.close(), "127.0.0.1", member.PEER_PORT)
    refused(await raised(one.member.create()), Conflict, "port 2380 of 127.0.0.1 is in use, and etcd needs it")
    server.close()
    await server.wait_closed()
    elsewhere = EtcdMember(one.files, one.process, "m1", "203.0.113.9")
    refused(await raised(elsewhere.create()), Invalid, "203.0.113.9 is not an address of this host")
    missing = EtcdProcess(one.process.directory, one.place / "run", "etcd-that-is-not-there")
    without = EtcdMember(one.files, missing, "m1", one.address)
    refused(await raised(without.create()), Unavailable, "apt-get install etcd-server")
    one.files.replace_certificate(certificates.make_key(), one.files.key_and_certificate()[1])  # a key of another
    assert isinstance(await raised(one.member.create()), NetengineError)
    assert one.member.pid == 0 and not one.process.directory.exists()


def main() -> None:
    name, directory, *words = sys.argv[1:]
    os.environ["PATH"] = os.environ.get("PATH", os.defpath)

    async def bounded() -> None:
        async with asyncio.timeout(patient(150)):
            await globals()[name](Path(directory), *words)

    asyncio.run(bounded())


if __name__ == "__main__":
    main()
