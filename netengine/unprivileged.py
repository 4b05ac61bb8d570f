"""Starting a process of netengine's own that gives up root by itself: the name server, the relay.

Only how it is started is said here, once for all of them: no working directory to import from, a bare environment, a session of
its own, a log that is no link. What it is told is its client's business.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from netengine.errors import NetengineError


def start(
    module: str,
    arguments: Sequence[str],
    log_path: Path,
    *,
    what: str,
    refused: type[NetengineError],
    pass_fds: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """`python -m MODULE ARGUMENT...`, both of its streams going to `log_path`. Raises `refused` when it cannot be executed."""
    # -P: the working directory is no place to import from. The package is where ours is.
    argv = [sys.executable, "-P", "-m", module, *arguments]
    source = str(Path(__file__).resolve().parents[1])
    environment = {"PATH": os.defpath, "PYTHONPATH": source, "PYTHONDONTWRITEBYTECODE": "1", "LANG": "C.UTF-8"}
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            env=environment,
            umask=0o077,
            start_new_session=True,
            pass_fds=pass_fds,
        )
    except OSError as error:
        raise refused(f"{what} could not be started with {argv[0]}: {error.strerror}") from None
    finally:
        os.close(log)
