"""What the runtime is told and what it tells: specifications of processes, their states, log lines, byte streams.

Data and protocols only. No I/O here, and nothing about networks: a sandbox is a path to a network namespace.
"""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

import msgspec


class Bind(msgspec.Struct, frozen=True):
    """A directory or file of the machine shown in the container. Both paths are absolute; `propagation` is mount(8)'s."""

    source: str
    target: str
    read_only: bool = False
    propagation: str = "rprivate"


class ContainerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """All that the first process of a container needs.

    `env` holds NAME=VALUE, or NAME alone to take a default away. `user` is "", uid[:gid] or name[:group], looked up in the
    container's own /etc/passwd. `netns` is the path of a network namespace; None is the daemon's own. `files` maps a path
    in the container to the file on the machine that shows there, writable. `tmpfs` maps a path to mount options.
    `pid_mode`, `ipc_mode` and `uts_mode` are "" (own) or "host". Sizes are bytes; zero is unlimited.
    """

    id: str
    name: str
    image_id: str
    args: tuple[str, ...]
    env: tuple[str, ...] = ()
    cwd: str = ""
    user: str = ""
    groups: tuple[str, ...] = ()
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    hostname: str = ""
    domainname: str = ""
    netns: str | None = None
    sysctls: dict[str, str] = {}
    privileged: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    read_only: bool = False
    no_new_privileges: bool = False
    binds: tuple[Bind, ...] = ()
    files: dict[str, str] = {}
    tmpfs: dict[str, str] = {}
    pid_mode: str = ""
    ipc_mode: str = ""
    uts_mode: str = ""
    shm_bytes: int = 64 * 1024 * 1024
    memory_bytes: int = 0
    nano_cpus: int = 0
    pids_limit: int = 0
    stop_signal: str = ""


class ExecSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One more process in a running container. What is empty is taken from the container."""

    args: tuple[str, ...]
    env: tuple[str, ...] = ()
    cwd: str = ""
    user: str = ""
    tty: bool = False
    open_stdin: bool = False
    privileged: bool = False
    detach: bool = False
    height: int = 0
    width: int = 0


class ExitStatus(msgspec.Struct, frozen=True):
    """How a container's first process ended: its exit code, or 128 + signal; 255 when nobody was left to see it."""

    code: int
    finished_at: datetime
    oom_killed: bool = False


class Running(msgspec.Struct, frozen=True):
    """The container's first process exists. Not `started`: it waits for `Runtime.start`, the user's code has not run."""

    pid: int
    started: bool = True


class Exited(msgspec.Struct, frozen=True):
    """The container ran and ended."""

    status: ExitStatus


class Absent(msgspec.Struct, frozen=True):
    """No process and no exit status: never created, or the machine was restarted since."""


State = Running | Exited | Absent


class LogLine(msgspec.Struct, frozen=True):
    """A piece of output: `stream` 1 is stdout, 2 stderr; `time_ns` since the epoch.

    `data` carries its newline; a piece without one goes on in the next piece of the same stream, which then says
    `continues`.
    """

    stream: int
    time_ns: int
    data: bytes
    continues: bool = False


class Stream(Protocol):
    """The standard streams of a process, seen from outside."""

    async def read(self) -> tuple[int, bytes] | None:
        """The next output as (1 for stdout or 2 for stderr, bytes); None at the end."""

    async def write(self, data: bytes) -> None:
        """Give input; returns when it was taken. Input for a process that is gone is dropped."""

    async def close_stdin(self) -> None:
        """End of input. Output goes on."""

    async def close(self) -> None:
        """Let go of the streams; the process is left alone."""


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """A root file system and the defaults for processes in it. `config` has the field names of Docker's image Config."""

    id: str
    repo_tags: tuple[str, ...]
    created: datetime
    size: int
    config: ImageConfig
    comment: str = ""
    builtin: bool = False


class ImageConfig(msgspec.Struct, frozen=True, kw_only=True, rename="pascal", omit_defaults=True):
    """The defaults of an image, encoded with Docker's names."""

    cmd: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    env: tuple[str, ...] = ()
    working_dir: str = ""
    user: str = ""
    exposed_ports: dict[str, dict[str, str]] = {}
    labels: dict[str, str] = {}
    volumes: dict[str, dict[str, str]] = {}
    stop_signal: str = ""
