"""The scripts and unit files: they explain themselves, refuse what they do not know, and ask for root before they act."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = ("install", "quickstart", "test", "test-vm", "lint", "format")
FOR_PYTEST = ("test", "test-vm")  # whose unknown arguments are for pytest to know
LIBRARY = ROOT / "scripts" / "lib" / "common.bash"
UNITS = ROOT / "packaging" / "systemd"


def run(*command: object, **extra: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in command],
        env={**os.environ, **extra},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        cwd="/",
    )


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_script_explains_itself(name: str) -> None:
    done = run(ROOT / "scripts" / name, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(f"usage: scripts/{name}")
    assert done.stderr == ""


@pytest.mark.parametrize("name", [name for name in SCRIPTS if name not in FOR_PYTEST])
def test_an_unknown_argument_is_refused(name: str) -> None:
    done = run(ROOT / "scripts" / name, "--no-such-thing")
    assert done.returncode == 1
    assert "unknown argument: --no-such-thing" in done.stderr


def test_flags_that_need_another_are_refused_without_it() -> None:
    assert "--uninstall goes with --system" in run(ROOT / "scripts" / "install", "--uninstall").stderr
    assert "--all goes with --down" in run(ROOT / "scripts" / "quickstart", "--all").stderr


@pytest.mark.parametrize(
    ("words", "settings", "said"),
    [
        (["--systemd", "tests/unit"], {}, "unknown argument: tests/unit (only the suite itself"),
        (["--command", "id", "tests/unit"], {}, "unknown argument: tests/unit (only the suite itself"),
        (["--command"], {}, "--command needs the command"),
        ([], {"TEST_VM_CPUS": "many"}, "TEST_VM_CPUS is many; it must be a whole number above 0"),
        ([], {"TEST_VM_LIMIT": "0"}, "TEST_VM_LIMIT is 0; it must be a whole number above 0"),
        ([], {"NETENGINE_TEST_PATIENCE": "-1"}, "NETENGINE_TEST_PATIENCE is -1; it must be a whole number"),
    ],
)
def test_the_virtual_machine_is_refused_what_it_cannot_be(
    words: list[str], settings: dict[str, str], said: str
) -> None:
    done = run(ROOT / "scripts" / "test-vm", *words, **settings)
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr


def test_scripts_work_from_a_path_with_blanks_and_through_a_link(tmp_path: Path) -> None:
    there = tmp_path / "a path" / "with blanks"
    shutil.copytree(ROOT / "scripts", there / "scripts")
    link = tmp_path / "link"
    link.symlink_to(there / "scripts" / "install")
    assert run(link, "--help").stdout.startswith("usage: scripts/install")
    done = run("bash", "-c", f'source "{there}/scripts/lib/common.bash"; echo "$REPO"')
    assert done.stdout == f"{there}\n"


def sudo(tmp_path: Path, body: str) -> str:
    """A PATH whose sudo does as told."""
    fake = tmp_path / "sudo"
    fake.write_text(f"#!/bin/sh\n{body}\n")
    fake.chmod(0o755)
    return f"{tmp_path}:{os.environ['PATH']}"


NOT_ROOT = f'set -euo pipefail; source "{LIBRARY}"; is_root() {{ false; }}; '


def test_who_may_not_sudo_is_told_before_anything_happens(tmp_path: Path) -> None:
    done = run("bash", "-c", NOT_ROOT + 'need_root "make x"; echo went on', PATH=sudo(tmp_path, "exit 1"))
    assert done.returncode == 1
    assert done.stdout == ""
    assert "root is needed to make x: run this as root, or as a user who may sudo" in done.stderr


def test_without_sudo_on_the_machine_root_is_asked_for() -> None:
    hidden = 'have() { [ "$1" != sudo ]; }; '
    done = run("bash", "-c", NOT_ROOT + hidden + 'need_root "make x"; echo went on')
    assert done.returncode == 1
    assert "there is no sudo here" in done.stderr


def test_who_may_sudo_is_raised_without_a_word(tmp_path: Path) -> None:
    path = sudo(tmp_path, 'if [ "$1" = -n ]; then exit 0; fi; shift; echo "raised: $*"')
    done = run("bash", "-c", NOT_ROOT + 'need_root "make x"; as_root make "a b"', PATH=path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "raised: make a b\n", "")


LOCKED = """E: Could not get lock /var/lib/apt/lists/lock. It is held by process 4711 (apt-get)
E: Unable to lock directory /var/lib/apt/lists/"""


@pytest.mark.parametrize(
    ("answers", "status", "said"),
    [
        ([LOCKED, LOCKED, ""], 0, "bash: another apt-get is at work: waiting for it (at most 300 s)\n"),
        (["E: Failed to fetch http://archive.test/debian/dists/bookworm/InRelease"], 1, "E: Failed to fetch"),
    ],
)
def test_package_lists_that_another_apt_get_has_locked_are_waited_for(
    tmp_path: Path, answers: list[str], status: int, said: str
) -> None:
    for number, answer in enumerate(answers):
        (tmp_path / str(number)).write_text(answer)
    for name, body in (
        # What is to be said at the next call moves up; without a word it succeeds.
        ("apt-get", f"cd {tmp_path}; n=$(ls said 2>/dev/null | wc -l); mkdir -p said/$n; cat $n >&2; [ ! -s $n ]"),
        ("sleep", ":"),
    ):
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    script = f'set -euo pipefail; source "{LIBRARY}"; as_root() {{ "$@"; }}; update_lists'
    done = run("bash", "-c", script, PATH=f"{tmp_path}:{os.environ['PATH']}")
    assert (done.returncode, len(list((tmp_path / "said").iterdir()))) == (status, len(answers))
    assert said in done.stdout + done.stderr


def in_machine_bash(there: Path, command: str) -> subprocess.CompletedProcess[str]:
    """Run a function of the virtual machine's, for a clone that is `there`."""
    sources = f'source "{LIBRARY}"; REPO="{there}" CACHE="{there}/cache"; source "{ROOT}/scripts/vm/machine.bash"'
    return run("bash", "-c", f"set -euo pipefail; {sources}; {command}")


def test_pages_that_the_virtual_machine_writes_come_back_unless_edited_meanwhile(tmp_path: Path) -> None:
    sent, job, cache = {"README.md": "a", "docs/one.md": "b", "docs/two.md": "c"}, tmp_path / "run", tmp_path / "cache"
    cache.mkdir()
    for place, pages in (
        (tmp_path, sent | {"README.md": "edited", "docs/two.md": "edited"}),
        (job / "source", sent),
        (job / "written", sent | {"docs/one.md": "new", "docs/two.md": "new"}),
    ):
        for name, text in pages.items():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_text(text)
    subprocess.run(["tar", "-cf", job / "kept", "-C", job / "written", "README.md", "docs"], check=True)
    done = in_machine_bash(tmp_path, f'take_pages "{job}"')
    assert (done.returncode, done.stdout) == (0, "bash: written: docs/one.md\n")
    assert (
        "docs/two.md was edited meanwhile and is left as it is: what the machine has written is in cache/two.md"
        in done.stderr
    )
    now = {name: (tmp_path / name).read_text() for name in sent}
    assert now == {"README.md": "edited", "docs/one.md": "new", "docs/two.md": "edited"}


@pytest.mark.parametrize(
    ("output", "status", "said"),
    [
        ("== 10 passed, 1 deselected in 213.45s (0:03:33) ==\n", 0, ": 10 passed, 1 deselected in 213.45s"),
        ("=== 3 passed in 1.00s ===\n=== 4 passed in 2.00s ===\n", 0, ": 3 passed in 1.00s; 4 passed in 2.00s"),
        ("!!! KeyboardInterrupt !!!\n", 124, ""),
    ],
)
def test_the_virtual_machine_ends_with_a_summary(tmp_path: Path, output: str, status: int, said: str) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "release").write_text("6.1.0\n")
    (tmp_path / "output").write_text(output)
    done = in_machine_bash(tmp_path, f'summarize "{tmp_path}" {status}')
    outcome = f"failed (exit status {status})" if status else "passed"
    first, second = done.stdout.splitlines()
    assert re.fullmatch(rf"bash: {re.escape(outcome)} on Linux 6\.1\.0 in 0 min \d+ s{re.escape(said)}", first), first
    assert (second, (tmp_path / "cache" / "last.log").read_text()) == (
        "bash: all that it printed: cache/last.log",
        output,
    )


def test_scripts_pass_shellcheck_where_it_is_installed() -> None:
    parts = (*(ROOT / "scripts" / "vm").glob("*.bash"), ROOT / "tests" / "machine" / "run")
    for path in (*(ROOT / "scripts" / name for name in SCRIPTS), *parts, LIBRARY, ROOT / ".ci" / "run"):
        assert run("bash", "-n", path).returncode == 0
    for path in (
        ROOT / "vagrant" / "provision.sh",
        *(ROOT / "scripts" / "vm" / "guest" / name for name in ("init", "job")),
    ):
        assert run("sh", "-n", path).returncode == 0
    if shutil.which("shellcheck"):
        done = run("shellcheck", "-x", "-P", ROOT, *(ROOT / "scripts" / name for name in SCRIPTS), ROOT / ".ci" / "run")
        assert done.returncode == 0, done.stdout


def unit(name: str) -> dict[str, list[str]]:
    """The settings of a unit file; systemd allows a key more than once."""
    settings: dict[str, list[str]] = {}
    for line in (UNITS / name).read_text().splitlines():
        if line and line[0] not in "#[":
            key, _, value = line.partition("=")
            settings.setdefault(key, []).append(value)
    return settings


def test_the_service_shares_the_host_s_mounts_and_containers_outlive_it() -> None:
    service = unit("netengine.service")
    assert (service["Type"], service["KillMode"], service["Delegate"]) == (["notify"], ["process"], ["yes"])
    private = re.compile(r"Private|Protect|ReadOnly|ReadWrite|Bind|Temporary|Inaccessible|Root|Dynamic|Mount|NoNewPriv")
    assert [key for key in service if private.match(key)] == []


def test_the_service_may_do_what_the_host_check_asks_for_and_little_more() -> None:
    from netengine.hostcheck import CAPABILITIES

    allowed = {
        name.removeprefix("CAP_")
        for line in unit("netengine.service")["CapabilityBoundingSet"]
        for name in line.split()
    }
    assert allowed == {*CAPABILITIES, "DAC_READ_SEARCH"}


def test_the_socket_unit_is_the_default_socket() -> None:
    from netengine.config import DEFAULT_HOST

    socket = unit("netengine.socket")
    assert socket["ListenStream"] == [DEFAULT_HOST.removeprefix("unix://")]
    assert (socket["SocketMode"], socket["SocketGroup"]) == (["0660"], ["netengine"])


def test_the_changelog_names_the_version() -> None:
    from netengine import __version__

    assert f"## [{__version__}]" in (ROOT / "CHANGELOG.md").read_text()
