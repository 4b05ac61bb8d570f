"""Members of etcd as managers have them: real processes under TLS, that are killed, leave, come back, and renew certificates.

The stories are in member_stories.py. Each runs in a host of its own, and all at once: most of their time etcd makes them wait
(five seconds between two changes of its members).
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator

import pytest

from tests.cluster.etcd_members import etcd_program
from tests.hosts import REPO, Host, Process

STORIES = ("three", "unsafe", "alone", "renewal", "rights", "refusals", "removed", "six")


def begin(host: Host, story: str, *words: str) -> Process:
    path = f"{os.path.dirname(etcd_program())}:{os.environ['PATH']}"
    argv = [sys.executable, "-m", "tests.cluster.member_stories", story, str(host.disk), *words]
    return host.popen(argv, env={"PATH": path, "PYTHONPATH": str(REPO)})


def outcome(process: Process, status: int = 0) -> str:
    """What a story has said. It ends by itself, in time (see its main)."""
    said, _ = process.popen.communicate()
    text = str(said.decode())
    assert process.popen.returncode == status, text
    return text.strip().rpartition("\n")[2]  # what it logs comes before


@pytest.fixture(scope="module")
def stories(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Process]]:
    """Those that were asked for, begun."""
    wanted = [
        i.callspec.params["story"] for i in request.session.items if getattr(i, "originalname", "") == "test_story"
    ]
    directory = tmp_path_factory.mktemp("managers")
    hosts = {name: Host(name, directory) for name in dict.fromkeys(wanted) if name in STORIES}
    try:
        yield {name: begin(host, name) for name, host in hosts.items()}
    finally:
        for host in hosts.values():
            host.close()


@pytest.mark.parametrize("story", STORIES)
def test_story(stories: dict[str, Process], story: str) -> None:
    outcome(stories[story])


def test_a_member_outlives_its_daemon_and_is_adopted_by_the_next(make_host: Callable[..., Host]) -> None:
    host = make_host("adopting")
    pid = outcome(begin(host, "start"), -signal.SIGKILL)
    pid = outcome(begin(host, "adopt", pid), -signal.SIGKILL)
    pid = outcome(begin(host, "adopt", pid, "lost"), -signal.SIGKILL)
    outcome(begin(host, "end"))
