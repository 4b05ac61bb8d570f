"""The only place that starts programs: argument vectors, no shell, own session, bounded in time.

What is run and why is the caller's; nothing here knows of runc or conmon.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO

from netengine.errors import KernelRefused, Unavailable

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Completed:
    """The outcome of a program that ended by itself."""

    code: int
    stdout: bytes
    stderr: bytes


def locate(program: str) -> str:
    """The absolute path of a program, or Unavailable naming it."""
    path = shutil.which(program, path=f"{os.environ.get('PATH', '')}:{_PATH}")
    if path is None:
        raise Unavailable(f"{program} is not installed: install the package {os.path.basename(program)}")
    return path


async def spawn(
    argv: Sequence[str],
    *,
    stdin: int | IO[bytes] = subprocess.DEVNULL,
    stdout: int | IO[bytes] = subprocess.DEVNULL,
    stderr: int | IO[bytes] = subprocess.DEVNULL,
    pass_fds: Sequence[int] = (),
    env: Mapping[str, str] | None = None,
    cwd: str = "/",
) -> asyncio.subprocess.Process:
    """Start a program in a session of its own, so that a signal to the daemon's terminal does not reach it.

    Its environment is PATH and `env`, its directory `cwd`: nothing of the daemon's.
    """
    try:
        return await asyncio.create_subprocess_exec(
            *argv,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            pass_fds=pass_fds,
            start_new_session=True,
            cwd=cwd,
            env={"PATH": os.environ.get("PATH") or _PATH, **(env or {})},
        )
    except FileNotFoundError:
        raise Unavailable(f"{argv[0]} is not installed") from None
    except OSError as error:
        raise KernelRefused(f"{argv[0]} cannot be started: {error.strerror}") from error


async def run(argv: Sequence[str], *, seconds: float = 30.0) -> Completed:
    """Run a program to its end. When it takes longer than `seconds`, it is killed with its children: KernelRefused."""
    child = await spawn(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        async with asyncio.timeout(seconds):
            stdout, stderr = await child.communicate()
    except TimeoutError:
        raise KernelRefused(f"{' '.join(argv[:1])} did not answer within {seconds:g} seconds and was killed") from None
    finally:
        kill_session(child)
    assert child.returncode is not None
    return Completed(child.returncode, stdout, stderr)


def kill_session(child: asyncio.subprocess.Process) -> None:
    """Kill a program that `spawn` started and what it started in turn; nothing if it has ended."""
    if child.returncode is None:
        try:
            os.killpg(child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
