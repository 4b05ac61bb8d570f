"""The machine as its administrator sees it: units, the journal, the docker CLI on the default socket. No namespaces."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

from tests.daemons import SOCKET
from tests.hosts import REPO
from tests.patience import patient

SERVICE = "netengine.service"
STATE = Path("/var/lib/netengine-test-vm.json")
"""What the first boot saw, for the second to compare with."""


def run(*argv: str, check: bool = True, env: dict[str, str] | None = None) -> str:
    """Standard output of a command without the last newline; with `check`, a failure fails the test."""
    done = subprocess.run(
        argv,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=patient(60),
    )
    assert not check or done.returncode == 0, f"{' '.join(argv)}: exit {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout.rstrip("\n")


def docker(*words: str, check: bool = True) -> str:
    program = shutil.which("docker") or str(REPO / ".cache/docker/usr/bin/docker")
    return run(program, *words, check=check, env={"DOCKER_HOST": f"unix://{SOCKET}"})


def inspect(name: str) -> Any:
    (found,) = json.loads(docker("inspect", name))
    return found


def unit(name: str, *properties: str) -> list[str]:
    """Properties of a unit, in the order asked for."""
    shown = dict(line.split("=", 1) for line in run("systemctl", "show", name, "-p", ",".join(properties)).splitlines())
    return [shown[key] for key in properties]


def journal(*words: str) -> list[dict[str, Any]]:
    """The service's records of this boot, oldest first."""
    lines = run("journalctl", "--boot", "--unit", SERVICE, "--output", "json", "--no-pager", *words).splitlines()
    return [json.loads(line) for line in lines]


def fetch(url: str) -> str:
    """The body that is served there. Raises OSError."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=patient(3)) as answer:
        return str(answer.read().decode())


def answers(url: str) -> bool:
    try:
        fetch(url)
    except OSError:
        return False
    return True
