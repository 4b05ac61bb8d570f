"""Processes inside sandboxes: create, start, wait, kill, delete, attach, exec, logs, and finding them again.

Stateless: what is true is asked of the kernel and the files under the two roots each time, so a daemon that was killed
sees the same as one that was not. No decisions on names, networks or restart policies: those are the engine's.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import secrets
import shlex
import signal as signals
import stat
from collections.abc import AsyncGenerator, Iterable
from pathlib import Path

import msgspec

from netengine.errors import Conflict, Invalid, KernelRefused, NotFound
from netengine.runtime import attach as attaching
from netengine.runtime import capabilities, logs, monitor, oci, process, rootfs, session, users
from netengine.runtime.failures import last_error, start_failure
from netengine.runtime.images import ImageStore
from netengine.runtime.layout import ContainerPaths, Layout
from netengine.runtime.model import (
    Absent,
    ContainerSpec,
    ExecSpec,
    Exited,
    ExitStatus,
    LogLine,
    Running,
    State,
    Stream,
)

log = logging.getLogger(__name__)

_PS_ARGUMENTS = re.compile(r"[-A-Za-z0-9_,=:%. ]{0,200}")


class Runtime:
    """The processes of one daemon. `data_root` is on disk, `exec_root` best on a tmpfs."""

    def __init__(
        self,
        data_root: Path,
        exec_root: Path,
        *,
        images: ImageStore,
        oci_runtime: str = "runc",
        monitor: str = "conmon",
    ) -> None:
        self._layout = Layout(data_root.absolute(), exec_root.absolute())
        self._images = images
        self._oci_runtime_name = oci_runtime
        self._monitor_name = monitor
        self._machine: oci.Machine | None = None
        self._attaching: dict[str, asyncio.Lock] = {}
        for directory in (self._layout.containers, self._layout.bundles, self._layout.runc):
            directory.mkdir(mode=0o711, parents=True, exist_ok=True)

    async def create(self, spec: ContainerSpec) -> int:
        """Mount the root file system and create the first process, which does not run the user's code before `start`.

        Returns its pid. Invalid when the specification cannot work (no such command, user, bind source), KernelRefused
        when the machine said no; then nothing is left but what was there before (the writable layer).
        """
        paths = self._layout.of(spec.id)
        if paths.bundle.exists():
            raise Conflict(f"container {spec.id} was created already: delete it first")
        image = self._images.find(spec.image_id)
        lower = self._images.rootfs(image.id)
        rootfs.check_sources(spec)
        fresh = not paths.upper.exists()
        try:
            await asyncio.to_thread(_prepare, paths, lower)
            user = users.resolve(paths.rootfs, spec.user or image.config.user, spec.groups)
            config = oci.configuration(
                spec, image.config, user, str(paths.rootfs), self._facts(), host_image=lower == Path("/")
            )
            _write_private(paths.config, msgspec.json.encode(config))
            return await monitor.create(self._monitor(), self._oci_runtime(), self._layout.runc, paths, spec)
        except BaseException:
            undo = asyncio.ensure_future(self._undo(spec.id, paths, fresh))
            await asyncio.shield(undo)
            raise

    async def _undo(self, container: str, paths: ContainerPaths, fresh: bool) -> None:
        try:
            await self.delete(container)
        finally:
            if fresh:
                await asyncio.to_thread(rootfs.remove_tree, paths.data)

    async def start(self, container: str) -> None:
        """Let the first process run. Conflict when it was started already or is not there."""
        paths = self._existing(container)
        log = paths.bundle / "start.log"
        done = await process.run(self._runc("--log", str(log), "--log-format", "json", "start", container))
        if done.code:
            raise start_failure(log, done.stderr.decode("utf-8", "replace"))

    async def wait(self, container: str) -> ExitStatus:
        """Return when the container has ended, with how. May be called at any time and by any number of tasks."""
        paths = self._layout.of(container)
        if not paths.bundle.exists() and not paths.exit.exists():
            raise NotFound(f"container {container} has no process")
        await monitor.ended(paths)
        return monitor.exit_status(paths) or monitor.unseen_exit()

    async def kill(self, container: str, signal: int) -> None:
        """Send a signal to the first process. Conflict when it is not running."""
        if not 1 <= signal < signals.NSIG:
            raise Invalid(f"invalid signal {signal}")
        held = monitor.container_pidfd(self._layout.of(container))
        if held is None:
            raise Conflict(f"container {container} is not running")
        try:
            signals.pidfd_send_signal(held[1], signal)
        except ProcessLookupError:
            raise Conflict(f"container {container} is not running") from None
        finally:
            os.close(held[1])

    async def delete(self, container: str) -> None:
        """Kill what runs, unmount, forget the process. The writable layer, log and exit status stay. Idempotent."""
        paths = self._layout.of(container)
        created = paths.state.exists()
        if created:
            done = await process.run(self._runc("delete", "--force", container))
            if done.code and paths.state.exists():
                raise KernelRefused(
                    f"OCI runtime delete failed: {done.stderr.decode('utf-8', 'replace').strip()[-2000:]}"
                )
        await monitor.destroy(paths, seconds=10.0 if created else 0.5)
        await asyncio.to_thread(_dismantle, paths)
        self._attaching.pop(container, None)

    async def remove(self, container: str) -> None:
        """Delete, and the writable layer, log and exit status too. Idempotent."""
        await self.delete(container)
        await asyncio.to_thread(rootfs.remove_tree, self._layout.of(container).data)

    async def recover(self, containers: Iterable[str]) -> dict[str, State]:
        """What became of containers since another daemon, or none, looked after them."""
        return {container: self.state(container) for container in containers}

    def state(self, container: str) -> State:
        """What is true of a container now."""
        paths = self._layout.of(container)
        status = monitor.exit_status(paths)
        if status is not None:
            return Exited(status)
        held = monitor.container_pidfd(paths)
        if held is not None:
            pid, descriptor = held
            os.close(descriptor)
            return Running(pid, started=not (paths.state / "exec.fifo").exists())
        watcher = monitor.pidfd(paths)
        if watcher is not None:  # ended this moment: the exit status is about to be written
            os.close(watcher)
            return Running(int(paths.pid.read_text()))
        status = monitor.exit_status(paths)
        if status is not None:
            return Exited(status)
        return Exited(monitor.unseen_exit()) if paths.pid.exists() else Absent()

    def leftovers(self, known: Iterable[str]) -> set[str]:
        """Containers that have files, mounts or a process here and are not `known`: `remove` them."""
        found = set()
        for directory in (self._layout.containers, self._layout.bundles, self._layout.runc):
            if directory.is_dir():
                found |= {entry.name for entry in directory.iterdir()}
        return found - set(known)

    async def cleanup(self, known: Iterable[str], aside: Path | None = None) -> None:
        """Remove all `leftovers`; with none left at all, our empty control groups too. With `aside`, a directory, the writable
        layers and logs of leftovers are moved there: for when it is not certain that nobody wants them any more."""
        known = set(known)
        for container in self.leftovers(known):
            state = self.state(container)
            await self.delete(container)
            data = self._layout.of(container).data
            if aside is not None and data.exists():
                await asyncio.to_thread(_move, data, aside / container)
            await self.remove(container)
            if isinstance(state, Running) or aside is not None:
                log.warning(
                    "container %s is not in the store: %s%s",
                    container[:12],
                    "its processes were ended" if isinstance(state, Running) else "nothing of it ran",
                    f"; its files are kept in {aside / container}" if aside is not None else "",
                )
        if not known:
            await asyncio.to_thread(_remove_cgroups)

    async def logs(
        self,
        container: str,
        *,
        follow: bool = False,
        since_ns: int | None = None,
        until_ns: int | None = None,
        tail: int | None = None,
    ) -> AsyncGenerator[LogLine, None]:
        """The output so far, of the last `tail` lines if given; `follow` goes on until the container ends.

        Times are nanoseconds since the epoch.
        """
        paths = self._layout.of(container)

        async def ended() -> None:
            await monitor.ended(paths)

        lines = logs.read(paths.log, ended=ended if follow else None, since_ns=since_ns, until_ns=until_ns, tail=tail)
        try:
            async for line in lines:
                yield line
        finally:
            await lines.aclose()

    async def attach(self, container: str) -> Stream:
        """The standard streams of the first process. Attached before `start`, nothing is missed."""
        paths = self._layout.of(container)
        descriptor = monitor.pidfd(paths)
        if descriptor is None:
            raise Conflict(f"container {container} is not running")
        os.close(descriptor)
        async with self._attaching.setdefault(container, asyncio.Lock()):
            init = monitor.container_pidfd(paths)
            return await attaching.attach(paths, int(paths.monitor_pid.read_text()), init[1] if init else None)

    async def resize(self, container: str, height: int, width: int) -> None:
        """Set the size of the first process's terminal, in rows and columns."""
        _check_size(height, width)
        monitor.resize(self._layout.of(container), height, width)

    async def exec(self, container: str, spec: ExecSpec) -> session.ExecSession:
        """Run one more process. Conflict when the container is not running, Invalid when the process cannot."""
        paths = self._layout.of(container)
        if not isinstance(self.state(container), Running) or not paths.config.exists():
            raise Conflict(f"container {container} is not running")
        config = msgspec.json.decode(paths.config.read_bytes())
        user = users.resolve(paths.rootfs, spec.user) if spec.user else None
        description = oci.exec_process(config["process"], spec, user, self._facts())
        folder = paths.bundle / f"exec-{secrets.token_hex(8)}"
        return await session.start(self._oci_runtime(), self._layout.runc, container, spec, description, folder)

    async def top(self, container: str, ps_args: str = "-ef") -> tuple[list[str], list[list[str]]]:
        """(titles, rows) of ps(1), asked with `ps_args` on the machine and reduced to the container's processes."""
        if not _PS_ARGUMENTS.fullmatch(ps_args):
            raise Invalid(f"invalid ps arguments {ps_args[:80]!r}")
        pids = await self._pids(container)
        done = await process.run([process.locate("ps"), *shlex.split(ps_args or "-ef")])
        if done.code:
            raise Invalid(f"ps {ps_args}: {done.stderr.decode('utf-8', 'replace').strip()[:500]}")
        header, *lines = done.stdout.decode("utf-8", "replace").splitlines()
        titles = header.split()
        if "PID" not in titles:
            raise Invalid("Couldn't find PID field in ps output")
        column = titles.index("PID")
        rows = [line.split(None, len(titles) - 1) for line in lines]
        return titles, [
            row for row in rows if len(row) > column and row[column].isdecimal() and int(row[column]) in pids
        ]

    async def _pids(self, container: str) -> set[int]:
        self._existing(container)
        done = await process.run(self._runc("ps", "--format", "json", container))
        if done.code:
            raise Conflict(f"container {container} is not running")
        return set(msgspec.json.decode(done.stdout, type=list[int] | None) or ())

    async def pause(self, container: str) -> None:
        """Freeze all processes of a container."""
        await self._simple("pause", container)

    async def unpause(self, container: str) -> None:
        """Let the processes of a paused container go on."""
        await self._simple("resume", container)

    async def _simple(self, verb: str, container: str) -> None:
        paths = self._existing(container)
        log = paths.bundle / f"{verb}.log"
        done = await process.run(self._runc("--log", str(log), "--log-format", "json", verb, container))
        if done.code:
            raise KernelRefused(f"OCI runtime {verb} failed: {last_error(log, done.stderr.decode('utf-8', 'replace'))}")

    def _existing(self, container: str) -> ContainerPaths:
        paths = self._layout.of(container)
        if not paths.state.exists():
            raise Conflict(f"container {container} is not running")
        return paths

    def _runc(self, *arguments: str) -> list[str]:
        return [self._oci_runtime(), "--root", str(self._layout.runc), *arguments]

    def _oci_runtime(self) -> str:
        return process.locate(self._oci_runtime_name)

    def _monitor(self) -> str:
        return process.locate(self._monitor_name)

    def _facts(self) -> oci.Machine:
        if self._machine is None:
            self._machine = oci.Machine(
                capabilities=capabilities.bounding(),
                cgroup_v2=Path("/sys/fs/cgroup/cgroup.controllers").exists(),
                oom_score_adj=int(Path("/proc/self/oom_score_adj").read_text()),
                seccomp=Path("/proc/sys/kernel/seccomp/actions_avail").exists(),
                devices=tuple(_devices(Path("/dev"))),
                masked=tuple(str(root) for root in (self._layout.data_root, self._layout.exec_root)),
            )
        return self._machine


def _prepare(paths: ContainerPaths, lower: Path) -> None:
    for directory in (paths.data, paths.bundle):
        directory.mkdir(mode=0o710, parents=True, exist_ok=True)
    paths.exits.mkdir(mode=0o700, exist_ok=True)
    paths.exit.unlink(missing_ok=True)
    rootfs.mount(paths, lower)


def _dismantle(paths: ContainerPaths) -> None:
    rootfs.unmount(paths)
    rootfs.remove_tree(paths.bundle)
    rootfs.remove_tree(paths.work)


def _write_private(path: Path, content: bytes) -> None:
    """Write a file that only root may read: the environment holds secrets."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(content)


def _check_size(height: int, width: int) -> None:
    if not (0 < height < 65536 and 0 < width < 65536):
        raise Invalid(f"invalid terminal size {height}x{width}")


def _devices(directory: Path) -> list[oci.Json]:
    """The device nodes of the machine, for privileged containers; ptys and what every container has anyway excepted."""
    found: list[oci.Json] = []
    for path, folders, names in os.walk(directory):
        if path == str(directory):
            folders[:] = [name for name in folders if name not in ("pts", "shm", "mqueue", "fd")]
        for name in names:
            try:
                status = os.lstat(f"{path}/{name}")
            except FileNotFoundError:
                continue
            kind = "c" if stat.S_ISCHR(status.st_mode) else "b" if stat.S_ISBLK(status.st_mode) else ""
            if kind and name not in ("console", "ptmx"):
                major, minor = os.major(status.st_rdev), os.minor(status.st_rdev)
                mode = stat.S_IMODE(status.st_mode)
                owner = {"fileMode": mode, "uid": status.st_uid, "gid": status.st_gid}
                found.append({"path": f"{path}/{name}", "type": kind, "major": major, "minor": minor, **owner})
    return found


def _move(directory: Path, to: Path) -> None:
    """Within one file system."""
    to.parent.mkdir(mode=0o700, exist_ok=True)
    directory.rename(to)


def _remove_cgroups() -> None:
    """Remove the control groups that hold those of our containers; one that is not empty refuses, and stays."""
    top = Path("/sys/fs/cgroup")
    for parent in (top, *top.iterdir()) if top.is_dir() else ():
        try:
            os.rmdir(parent / "netengine")
        except OSError:
            pass
