"""The monitor (conmon): it starts the OCI runtime, keeps the container's streams and log, and writes its exit code.

It has a session of its own and is no child of the daemon after its start, so containers outlive the daemon. This module
knows conmon's arguments, its pipe, its control fifo and its exit file; what runs inside is oci.py's.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from netengine import processes
from netengine.errors import Conflict, KernelRefused
from netengine.runtime import process, syscalls
from netengine.runtime.channel import Channel, readable
from netengine.runtime.failures import create_failure
from netengine.runtime.layout import ContainerPaths
from netengine.runtime.model import ContainerSpec, ExitStatus

CREATE_SECONDS = 60.0
_UNSEEN = 255  # the exit code when the monitor was killed before it could tell


class _Report(msgspec.Struct):
    """What conmon writes to its sync pipe: the pid, or -1 and why. The field is `data` from API version 1 on."""

    pid: int | None = None
    data: int | None = None
    message: str = ""


async def create(monitor: str, oci_runtime: str, root: Path, paths: ContainerPaths, spec: ContainerSpec) -> int:
    """Create the container from its bundle and return the pid of its first process, which waits for the start."""
    arguments = [
        monitor, "--api-version", "1",
        "--cid", spec.id, "--cuuid", spec.id, "--name", spec.name or spec.id,
        "--runtime", oci_runtime,
        "--runtime-arg", "--root", "--runtime-arg", str(root),
        "--runtime-arg", "--log", "--runtime-arg", str(paths.runtime_log),
        "--runtime-arg", "--log-format", "--runtime-arg", "json",
        "--bundle", str(paths.bundle), "--full-attach",
        "--container-pidfile", str(paths.pid), "--conmon-pidfile", str(paths.monitor_pid),
        "--exit-dir", str(paths.exits), "--log-path", f"k8s-file:{paths.log}",
        "--log-level", "error", "--no-sync-log",
    ]  # fmt: skip
    if spec.tty:
        arguments.append("--terminal")
    if spec.open_stdin:
        arguments.append("--stdin")
        if not spec.stdin_once:
            arguments.append("--leave-stdin-open")
    sync, theirs = os.pipe2(os.O_CLOEXEC)
    answers = Channel(sync)
    complaints = paths.bundle / "monitor.log"
    messages = os.open(complaints, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        try:
            child = await process.spawn(
                arguments,
                stderr=messages,
                pass_fds=(theirs,),
                env={"_OCI_SYNCPIPE": str(theirs)},
                cwd=str(paths.bundle),
            )
        finally:
            os.close(theirs)
            os.close(messages)
        try:
            async with asyncio.timeout(CREATE_SECONDS):
                line = await _line(answers)
                await child.wait()
        except TimeoutError:
            raise KernelRefused(
                f"OCI runtime create failed: {oci_runtime} did not answer within {CREATE_SECONDS:g} seconds"
            ) from None
        finally:
            process.kill_session(child)
    finally:
        answers.close()
    try:
        report = msgspec.json.decode(line, type=_Report, strict=False)
    except msgspec.DecodeError:
        raise create_failure(paths.runtime_log, complaints.read_text(errors="replace")) from None
    pid = report.pid if report.pid is not None else report.data
    if pid is None or pid <= 0:
        raise create_failure(paths.runtime_log, report.message)
    return pid


async def _line(answers: Channel) -> bytes:
    line = b""
    while not line.endswith(b"\n"):
        chunk = await answers.read()
        if not chunk:
            break
        line += chunk
    return line


def pidfd(paths: ContainerPaths) -> int | None:
    """A descriptor of the live monitor process, or None. A pid that another program has got since is told apart."""
    return _open(paths.monitor_pid, paths.data.name)


def _open(pid_file: Path, mark: str) -> int | None:
    try:
        pid = int(pid_file.read_text())
        descriptor = os.pidfd_open(pid)
    except (FileNotFoundError, ValueError, ProcessLookupError):
        return None
    # Looked at after the descriptor is held: the number cannot change hands between the two.
    try:
        ours = os.fsencode(mark) in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        ours = False
    if not ours:
        os.close(descriptor)
        return None
    return syscalls.keep_high(descriptor)


def container_pidfd(paths: ContainerPaths) -> tuple[int, int] | None:
    """(pid, descriptor) of the container's live first process, or None."""
    try:
        pid = int(paths.pid.read_text())
        descriptor = os.pidfd_open(pid)
    except (FileNotFoundError, ValueError, ProcessLookupError):
        return None
    if not _is_init(pid, paths):
        os.close(descriptor)
        return None
    return pid, syscalls.keep_high(descriptor)


class _RuntimeState(msgspec.Struct):
    init_process_pid: int
    init_process_start: int


def _is_init(pid: int, paths: ContainerPaths) -> bool:
    """Is this the process that runc started (its start time in clock ticks is in runc's state), and not a zombie?"""
    try:
        state = msgspec.json.decode((paths.state / "state.json").read_bytes(), type=_RuntimeState)
    except (OSError, msgspec.MsgspecError):
        return False
    return state.init_process_pid == pid and state.init_process_start == processes.started(pid)


@asynccontextmanager
async def _held(descriptor: int) -> AsyncIterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)


async def ended(paths: ContainerPaths) -> None:
    """Return when the container and its monitor have ended. Woken by the kernel, also for another daemon's containers."""
    monitor = pidfd(paths)
    if monitor is not None:
        async with _held(monitor):
            await readable(monitor)
    if paths.exit.exists():
        return
    orphan = container_pidfd(paths)  # the monitor was killed: watch the container itself
    if orphan is not None:
        async with _held(orphan[1]):
            await readable(orphan[1])


def exit_status(paths: ContainerPaths) -> ExitStatus | None:
    """The exit status that the monitor left; None when it has not (yet)."""
    try:
        code = int(paths.exit.read_text())
        finished = paths.exit.stat().st_mtime_ns
    except (FileNotFoundError, ValueError):
        return None
    at = datetime.fromtimestamp(finished // 10**9, UTC).replace(microsecond=finished % 10**9 // 1000)
    return ExitStatus(code, at, (paths.bundle / "oom").exists() or _oom_kills(paths.data.name))


def _oom_kills(container: str) -> bool:
    """Did the kernel kill for memory in the container's control group? It lasts until the OCI runtime's delete.

    The monitor misses a kill that ends the container at once.
    """
    for file in (f"memory/netengine/{container}/memory.oom_control", f"netengine/{container}/memory.events"):
        try:
            lines = Path("/sys/fs/cgroup", file).read_text().splitlines()
        except OSError:
            continue
        return any(line.startswith("oom_kill ") and line != "oom_kill 0" for line in lines)
    return False


def unseen_exit() -> ExitStatus:
    """For a container that ended while its monitor was dead."""
    return ExitStatus(_UNSEEN, datetime.now(UTC))


async def destroy(paths: ContainerPaths, seconds: float) -> None:
    """Wait for the monitor to write its exit file and go, after its container was killed; then kill it."""
    monitor = pidfd(paths)
    if monitor is None:
        return
    async with _held(monitor):
        try:
            async with asyncio.timeout(seconds):
                await readable(monitor)
        except TimeoutError:
            pid = int(paths.monitor_pid.read_text())
            for number in _session(pid):
                try:
                    os.kill(number, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            await readable(monitor)


def _session(leader: int) -> list[int]:
    """The processes of the session that the monitor leads: itself, and an OCI runtime that hangs."""
    members = []
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            try:
                if os.getsid(int(entry)) == leader:
                    members.append(int(entry))
            except OSError:
                pass
    return members


def resize(paths: ContainerPaths, height: int, width: int) -> None:
    """Tell the monitor the size of the terminal, in rows and columns, through its control fifo."""
    try:
        control = os.open(paths.bundle / "ctl", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        raise Conflict(f"container {paths.data.name} is not running") from None
    try:
        os.write(control, b"1 %d %d\n" % (height, width))
    finally:
        os.close(control)
