"""Every transcript in the documents is what a real host shows."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.daemons import ENVIRONMENT, EXEC_ROOT, SOCKET, Daemon, docker_cli
from tests.docs.live import Run, Session, Stable, rewrite, sessions
from tests.docs.pages import PAGES, REPO, WRITE, name_of
from tests.hosts import Host, wait_until, wire

LIVE = [page for page in PAGES if sessions(page)]
_REFUSED = 7  # curl's exit status when nobody listens: the server in the container is not up yet
_PATIENCE = 15.0  # seconds


@pytest.fixture
def shell(make_host: Callable[..., Host], tmp_path: Path) -> Iterator[Run]:
    """A daemon on host alpha, machine beta behind a cable, and a shell on either."""
    alpha, beta = make_host("alpha"), make_host("beta")
    wire(alpha, beta)
    daemon = Daemon(alpha)
    daemon.start()
    stable = Stable({str(daemon.data_root): "/var/lib/netengine", str(tmp_path): "/tmp"})
    env = ENVIRONMENT | {
        # Where etcd is not installed, the one that `scripts/install --test` has unpacked.
        "PATH": f"{_programs(daemon, tmp_path / 'bin')}:{ENVIRONMENT['PATH']}:{REPO / '.cache/peers/usr/bin'}",
        "DOCKER_HOST": f"unix://{SOCKET}",
        "DOCKER_CONFIG": str(tmp_path / "docker-config"),
        "COLUMNS": "100",
        "NO_COLOR": "1",
    }

    def run(name: str, command: str) -> str:
        host = alpha if name == "alpha" else beta
        deadline = time.monotonic() + _PATIENCE
        while True:
            done = host.run(["bash", "-o", "pipefail", "-c", f"cd {tmp_path}; exec 2>&1; {command}"], env=env)
            if done.returncode != _REFUSED or "curl" not in command or time.monotonic() > deadline:
                return stable(done.stdout)

    yield run
    # The page may have ended the daemon and started another, which is no process of the fixture's.
    daemon.process = None
    Daemon.alive.remove(daemon)
    pidfile = alpha.path(f"{EXEC_ROOT}/netengined.pid")
    alpha.run(["bash", "-c", f"kill -TERM $(cat {EXEC_ROOT}/netengined.pid)"])
    wait_until(lambda: not pidfile.exists(), "the daemon's end")
    daemon.cleanup()


def _programs(daemon: Daemon, directory: Path) -> Path:
    """The commands under test by the names that a user types, with the directories of this test."""
    directory.mkdir()
    (directory.parent / "docker-config").mkdir()
    docker = shutil.which("docker") or docker_cli(daemon)._argv[0]
    for name, argv in (
        ("netengined", daemon.argv),
        ("netengine", [sys.executable, "-m", "netengine.cli.main"]),
        ("python", [sys.executable]),  # one that has docker-py
        ("docker", [docker]),
    ):
        file = directory / name
        file.write_text(f'#!/bin/sh\nexec {shlex.join(argv)} "$@"\n')
        file.chmod(0o755)
    for name in ("etcd", "wireguard-go", "wg"):
        if not shutil.which(name):  # not this machine's: what `scripts/install --test` has unpacked
            (directory / name).symlink_to(REPO / ".cache/peers/usr/bin" / name)
    return directory


def _tools(run: Run) -> str:
    """The programs whose layout the transcripts show: other versions lay the same out differently."""
    nft, ip = (re.search(r"\d+\.\d+(\.\d+)?", run("alpha", command)) for command in ("nft --version", "ip -V"))
    assert nft is not None and ip is not None
    return f"nftables {nft[0]}, iproute2 {ip[0]}"


def _marks(page: Path) -> list[pytest.MarkDecorator]:
    """A page that shows kinds of links which not every kernel has says so: `<!-- needs: ipvlan, vlan -->`."""
    needs = re.search(r"<!-- needs: (.+) -->", page.read_text())
    return [pytest.mark.needs(*needs[1].split(", "))] if needs else []


@pytest.mark.root
@pytest.mark.parametrize("page", [pytest.param(page, marks=_marks(page)) for page in LIVE], ids=name_of)
def test_transcripts_are_what_a_host_shows(page: Path, shell: Run, write_docs: bool) -> None:
    shown_by = re.compile(r"<!-- shown by (.+) -->")
    tools = _tools(shell)
    named = shown_by.search(page.read_text())
    results: list[tuple[Session, list[str]]] = [(block, block.run(shell)) for block in sessions(page)]
    if write_docs:
        rewrite(page, results)
        page.write_text(shown_by.sub(f"<!-- shown by {tools} -->", page.read_text()))
    elif named is None or named[1] == tools:
        for block, now in results:
            assert now == block.lines, (
                f"{name_of(page)}:{block.start} is not what a host shows; if that is right: {WRITE}"
            )
    else:
        for block, now in results:
            assert "command not found" not in "\n".join(now), f"{name_of(page)}:{block.start}"


_PYTHON = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
EXAMPLES = [(page, code) for page in PAGES for code in _PYTHON.findall(page.read_text())]


@pytest.mark.root
@pytest.mark.parametrize(("page", "code"), EXAMPLES, ids=[name_of(page) for page, _ in EXAMPLES])
def test_python_examples_run(page: Path, code: str, shell: Run) -> None:
    assert shell("alpha", f"python -c {shlex.quote(code)} && echo done") == "done\n"


def test_the_pages_that_must_be_live_are() -> None:
    assert {REPO / "README.md", REPO / "docs/bridge.md", REPO / "docs/ruleset.md"} <= set(LIVE)
