"""etcd as a process: how it is started without privileges, found again by another daemon, and ended.

It outlives the daemon. A file under the run directory says which process it is, by its pid and the moment it was started at, so
that a pid that was given to somebody else is never taken for it; and a daemon that was killed before it could write that file
finds the process by the directory that it works in. What etcd is told lives in member.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import pwd
import select
import shutil
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from netengine import failpoints, processes
from netengine.cluster.identity import write_whole
from netengine.errors import Unavailable

log = logging.getLogger(__name__)

PROGRAM = "etcd"
_USER = "etcd"  # made by Debian's package
_NOBODY = 65534
_LOG_LIMIT = 4 << 20  # bytes; the run directory is in memory
_END_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Running:
    """`started` is in clock ticks since the machine's start, as the kernel counts it."""

    pid: int
    started: int


class EtcdProcess:
    """The process that works in `directory`; its pid file and its log are in `run`."""

    def __init__(self, directory: Path, run: Path, program: str = PROGRAM) -> None:
        self.directory = directory
        self.log_path = run / "etcd.log"
        self._pid_path = run / "etcd.pid"
        self._program = program
        self._child: subprocess.Popen[bytes] | None = None
        self._log_start = 0
        """Where in the log its present run begins, as far as is known."""

    # -- its files ----------------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """The directory, which the process owns. Raises Unavailable, also when etcd is not installed."""
        self.executable()
        owner = _owner()
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.directory.chmod(0o700)
            os.chown(self.directory, *owner)
            self.log_path.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        except OSError as error:
            raise Unavailable(f"{self.directory} cannot be made: {error.strerror}") from error

    def put(self, name: str, content: bytes) -> None:
        """A file in its directory, that it owns, replaced as a whole."""
        try:
            write_whole(self.directory / name, content, _owner())
        except OSError as error:
            raise Unavailable(f"{self.directory / name} cannot be written: {error.strerror}") from error

    def wipe(self) -> None:
        """Everything it kept. Only when it does not run."""
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self.directory)

    def executable(self) -> str:
        found = shutil.which(self._program)
        if found is None:
            raise Unavailable(
                f"a manager keeps the cluster's state in etcd, and there is no program {self._program!r} on this host: install "
                "the package etcd-server (apt-get install etcd-server), then try again"
            )
        return found

    # -- its life -----------------------------------------------------------------------------------------------------

    def start(self, arguments: Sequence[str]) -> Running:
        """Raises Unavailable when it cannot be executed."""
        uid, gid = _owner()
        # It works in its directory and knows only names in there: the directories above are closed to its user.
        argv = [
            "setpriv",
            f"--reuid={uid}",
            f"--regid={gid}",
            "--clear-groups",
            "--bounding-set=-all",
            "--inh-caps=-all",
        ]
        argv += ["--no-new-privs", "--", self.executable(), *arguments]
        environment = {"PATH": os.defpath, "LANG": "C.UTF-8"}
        log_file = self._open_log()
        self._log_start = os.fstat(log_file).st_size
        try:
            child = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log_file,
                stderr=log_file,
                cwd=self.directory,
                env=environment,
                umask=0o077,
                start_new_session=True,
            )
        except OSError as error:
            raise Unavailable(f"etcd could not be started: {error.strerror}") from error
        finally:
            os.close(log_file)
        failpoints.reach("cluster: etcd is started")
        running = Running(child.pid, processes.started(child.pid) or 0)
        write_whole(self._pid_path, f"{running.pid} {running.started}\n".encode())
        self._child = child
        return running

    def find(self) -> Running | None:
        """The process, if it runs."""
        self._reap()
        try:
            pid, started = (int(word) for word in self._pid_path.read_text().split())
        except (OSError, ValueError):
            return self._search()
        running = Running(pid, started)
        return running if processes.started(pid) == started else self._search()

    async def ended(self, running: Running) -> None:
        """Wait until it has ended."""
        loop = asyncio.get_running_loop()
        try:
            descriptor = os.pidfd_open(running.pid)
        except ProcessLookupError:
            return
        try:
            if processes.started(running.pid) == running.started:
                gone = asyncio.Event()
                loop.add_reader(descriptor, gone.set)
                try:
                    await gone.wait()
                finally:
                    loop.remove_reader(descriptor)
        finally:
            os.close(descriptor)
            self._reap()

    async def end(self) -> None:
        """End it: by SIGTERM, after five seconds by SIGKILL. Nothing happens when it does not run."""
        await asyncio.to_thread(self.end_now)

    def end_now(self) -> None:
        running = self.find()
        if running is not None:
            for number, seconds in ((signal.SIGTERM, _END_SECONDS), (signal.SIGKILL, 2 * _END_SECONDS)):
                if _signal(running, number, seconds):
                    break
            else:
                log.warning("etcd (pid %d) cannot be ended", running.pid)
        self._reap()
        self._pid_path.unlink(missing_ok=True)

    def _reap(self) -> None:
        if self._child is not None and self._child.poll() is not None:
            self._child = None

    def _search(self) -> Running | None:
        """Among all processes, the one that works in the directory."""
        try:
            here = os.stat(self.directory)
        except OSError:
            return None
        for entry in os.scandir("/proc"):
            if not entry.name.isdigit():
                continue
            try:
                if not os.path.samestat(os.stat(f"/proc/{entry.name}/cwd"), here):
                    continue
                program = os.path.basename(os.readlink(f"/proc/{entry.name}/exe"))
            except OSError:
                continue
            started = processes.started(int(entry.name))
            if program == os.path.basename(self._program) and started is not None:
                return Running(int(entry.name), started)
        return None

    # -- its log ------------------------------------------------------------------------------------------------------

    def _open_log(self) -> int:
        self.trim_log()
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        try:
            return os.open(self.log_path, flags, 0o600)
        except OSError as error:
            raise Unavailable(f"{self.log_path} cannot be written: {error.strerror}") from error

    def trim_log(self) -> None:
        """It is emptied when it has become long: whoever writes appends."""
        with contextlib.suppress(OSError):
            if self.log_path.stat().st_size > _LOG_LIMIT:
                os.truncate(self.log_path, 0)
                self._log_start = 0

    def last_words(self) -> str:
        """Why it has ended, by its log, for a message; "" when it does not say."""
        try:
            with self.log_path.open("rb") as file:
                file.seek(max(self._log_start, os.fstat(file.fileno()).st_size - 16384))
                lines = file.read().decode("utf-8", "replace").splitlines()
        except OSError:
            return ""
        plain = ""
        for line in reversed(lines):
            try:
                said = msgspec.json.decode(line, type=_Line)
            except msgspec.DecodeError:  # of setpriv, of the Go runtime; and warnings of etcd's parts
                if not line.startswith("WARNING:"):
                    plain = plain or line.strip()[:500]
                continue
            if said.level in ("error", "fatal", "panic") or said.msg == "server error":
                return f"{said.msg}: {said.error}"[:500].rstrip(": ")
        return plain


class _Line(msgspec.Struct):
    """Of etcd's log."""

    level: str
    msg: str
    error: str = ""


def _owner() -> tuple[int, int]:
    """Who the process is: the user of Debian's package, or nobody where that is not there."""
    try:
        user = pwd.getpwnam(_USER)
    except KeyError:
        return _NOBODY, _NOBODY
    return (user.pw_uid, user.pw_gid) if user.pw_uid else (_NOBODY, _NOBODY)


def _signal(running: Running, number: int, seconds: float) -> bool:
    """Send a signal and wait; whether the process has ended."""
    try:
        descriptor = os.pidfd_open(running.pid)
    except ProcessLookupError:
        return True
    try:
        if processes.started(running.pid) != running.started:
            return True
        signal.pidfd_send_signal(descriptor, number)
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(seconds * 1000))
    except ProcessLookupError:
        return True
    finally:
        os.close(descriptor)
