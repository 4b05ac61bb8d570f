"""Rules of the whole suite: who runs the tests that need root, which hosts they get, what must be left behind (nothing).

Tests under kernel/, clients/, runtime/ and faults/ need root. Started by an ordinary user who may sudo, the suite runs
itself again under sudo; otherwise those tests fail, with the reason. They never skip.
"""

from __future__ import annotations

import compileall
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

TESTS = Path(__file__).resolve().parent
REPO = TESTS.parent
if importlib.util.find_spec("httptools") is None:
    raise pytest.UsageError("netengine has new dependencies, which this environment lacks: scripts/install --test")
if str(REPO) not in sys.path:
    sys.path.insert(0, str(REPO))  # `tests.hosts` and `netengine` of this very tree, however pytest was started

from tests.daemons import Daemon  # noqa: E402
from tests.hosts import Host, wait_until, wire  # noqa: E402
from tests.kernels import skip_what_lacks  # noqa: E402
from tests.patience import AT_ONCE, SKIPS_FAIL  # noqa: E402

ROOT_DIRECTORIES = tuple(TESTS / name for name in ("kernel", "clients", "runtime", "faults", "cluster"))
LONGEST = (
    "clients/test_swarm.py",
    "docs/test_live.py",
    "clients/test_overlay.py",
    "faults/test_foreign_hands.py",
    "benchmarks/test_quick.py",
    "clients/test_name_server.py",
    "faults/test_no_memory.py",
    "clients/test_ipv6.py",
    "faults/test_coexistence.py",
    "clients/test_bad_input.py",
    "faults/test_kill.py",
    "cluster/test_member.py",
    "faults/test_kill_cluster.py",
)
"""The files that take longest, the longest first. Workers are given whole files in this order: none begins with a long one when
the others are nearly done."""
RAISED = "NETENGINE_TESTS_RAISED"  # set in the environment of the run under sudo, so that it cannot repeat
NEEDS_ROOT = (
    "this test makes network namespaces and needs root: run it as root, or as a user who may use sudo without a password "
    "(`sudo -n true` must work); it is never skipped"
)


def pytest_configure(config: pytest.Config) -> None:
    # `timeout` and CI end a run by SIGTERM: end it as Ctrl-C does, with the fixtures' clean-up.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    # The same examples in every run, however long a busy machine takes for them; with NETENGINE_TEST_RANDOM others each time.
    hypothesis.settings.register_profile(
        "suite",
        deadline=None,
        derandomize=not os.environ.get("NETENGINE_TEST_RANDOM"),
        database=None,
        suppress_health_check=[hypothesis.HealthCheck.too_slow],
    )
    hypothesis.settings.load_profile("suite")
    if AT_ONCE and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_AtOnce(config))
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False  # of pytest-xdist: by the number of tests; see LONGEST
    config.addinivalue_line("markers", "root: needs root (set on everything under kernel, clients, runtime, faults)")
    config.addinivalue_line("markers", "needs(what, ...): needs a kernel that has these; see tests/kernels.py")


class _AtOnce:
    """Says of each test that fails why, when it does: in a run of hours nobody waits for its end, which may never come."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        terminal = self._config.pluginmanager.getplugin("terminalreporter")
        if report.failed and terminal is not None:
            terminal.ensure_newline()  # which does nothing when several workers run
            terminal.write_line(f"\n{report.nodeid} ({report.when}):\n{report.longreprtext}")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> int | None:
    """Run the whole of pytest again under sudo when tests that need root were asked for by somebody who is not root."""
    if RAISED not in os.environ and not hasattr(config, "workerinput"):
        # Daemons and commands are started some thousand times, and a third of a start is the compiler's.
        compileall.compile_dir(REPO / "netengine", quiet=1)
    if os.geteuid() == 0 or RAISED in os.environ or not _wants_root(config) or not _may_sudo():
        return None
    capture = config.pluginmanager.getplugin("capturemanager")
    if capture is not None:
        capture.stop_global_capturing()
    kept = {
        name: os.environ[name]
        for name in ("PATH", "PYTHONPATH", "VIRTUAL_ENV", "TERM", "CI", "NETENGINE_TEST_PATIENCE")
        if name in os.environ
    }
    # Root must not leave files behind in the user's tree.
    scratch = tempfile.mkdtemp(prefix="netengine-tests-")
    kept |= {RAISED: "1", "PYTHONDONTWRITEBYTECODE": "1", "HYPOTHESIS_STORAGE_DIRECTORY": f"{scratch}/hypothesis"}
    argv = ["sudo", "-n", "env", *(f"{name}={value}" for name, value in kept.items())]
    argv += [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *config.invocation_params.args]
    print("the tests that need root run under sudo", flush=True)
    status = subprocess.run(argv, cwd=config.invocation_params.dir).returncode
    subprocess.run(["sudo", "-n", "rm", "-rf", "--", scratch])
    return status


def _wants_root(config: pytest.Config) -> bool:
    """Whether the arguments reach into a directory of tests that need root."""
    if config.option.collectonly or config.option.help or config.option.version or config.option.markexpr == "not root":
        return False
    asked = [Path(config.invocation_params.dir, str(argument).split("::")[0]).resolve() for argument in config.args]
    return any(path in (root, *root.parents) or root in path.parents for path in asked for root in ROOT_DIRECTORIES)


def _may_sudo() -> bool:
    if shutil.which("sudo") is None:
        return False
    return subprocess.run(["sudo", "-n", "true"], stdin=subprocess.DEVNULL, capture_output=True).returncode == 0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if re.search(r"\{'[^:{}]*\}", item.nodeid):
            raise pytest.UsageError(
                f"{item.nodeid} has a set in its name: its order, and the name, is another in each worker"
            )
    rank = {TESTS / name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path, len(rank)))
    needs_root = {
        path: any(root in path.parents for root in ROOT_DIRECTORIES) for path in {item.path for item in items}
    }
    for item in items:
        if needs_root[item.path]:
            item.add_marker("root")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("root") is not None and os.geteuid() != 0:
        pytest.fail(NEEDS_ROOT, pytrace=False)
    skip_what_lacks(item)


# ---------------------------------------------------------------------- the log of the daemon, when a test fails

_log_marks: dict[Daemon, int] = {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, object, object]:
    _log_marks.clear()
    _log_marks.update({daemon: daemon.log.stat().st_size for daemon in Daemon.alive})
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and SKIPS_FAIL and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, where nothing may be: {report.longrepr}"
    if report.failed:
        for daemon in {*_log_marks, *Daemon.alive}:
            if daemon.log.exists():
                tail = daemon.tail(_log_marks.get(daemon, 0))
                report.sections.append((f"netengined on {daemon.host.name}", tail or "(nothing logged)"))
    return report


# ---------------------------------------------------------------------- what is left on the machine


@pytest.fixture(scope="session", autouse=True)
def _nothing_is_left(monkeypatch_session: pytest.MonkeyPatch) -> Iterator[None]:
    """When all labs are closed: no process of these tests, nothing of theirs mounted or named, none of their directories."""
    made: list[Path] = []
    make = tempfile.mkdtemp

    def make_and_note(*words: Any, **named: Any) -> str:
        made.append(Path(make(*words, **named)))
        return str(made[-1])

    monkeypatch_session.setattr(tempfile, "mkdtemp", make_and_note)
    processes, machine = _children(), _of_the_machine()
    yield
    assert [str(directory) for directory in made if directory.exists()] == [], "directories are left"
    assert _of_the_machine() - machine == set(), "something is left in the machine's own namespaces"
    wait_until(lambda: _children() <= processes, lambda: f"processes are left: {_children() - processes}")


@pytest.fixture(scope="session")
def monkeypatch_session() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def _children() -> set[str]:
    """This process's children, whichever thread started them: PIDs and command lines. One that has ended has none."""
    found = set()
    for task in Path("/proc/self/task").iterdir():
        try:
            for pid in (task / "children").read_text().split():
                if command := Path(f"/proc/{pid}/cmdline").read_text():
                    found.add(f"{pid} {command.replace(chr(0), ' ')}")
        except OSError:
            continue  # it has ended meanwhile
    return found


def _of_the_machine() -> set[str]:
    """Network namespaces with a name, and mounts of ours, where the tests themselves run: never any."""
    named = Path("/run/netns")
    mounts = {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines() if "netengine" in line}
    return mounts | ({str(entry) for entry in named.iterdir()} if named.exists() else set())


# ---------------------------------------------------------------------- hosts


@pytest.fixture
def make_host(tmp_path: Path) -> Iterator[Callable[..., Host]]:
    """Make hosts by name. At the end they are killed with all that runs in them."""
    hosts: list[Host] = []

    def make(name: str = "alpha") -> Host:
        hosts.append(Host(name, tmp_path))
        return hosts[-1]

    yield make
    for host in reversed(hosts):
        host.close()
    shutil.rmtree(tmp_path, ignore_errors=True)


@pytest.fixture
def host(make_host: Callable[..., Host]) -> Host:
    """A machine of one's own."""
    return make_host("alpha")


@pytest.fixture
def neighbour(host: Host, make_host: Callable[..., Host]) -> Host:
    """A second machine: 192.0.2.2 on the cable, `host` being 192.0.2.1."""
    other = make_host("beta")
    wire(host, other)
    return other


@pytest.fixture
def make_daemon() -> Iterator[Callable[..., Daemon]]:
    """Start daemons; at the end each cleans its host, which must then be as empty as it was."""
    made: list[tuple[Daemon, set[str], set[str]]] = []

    def make(host: Host, *flags: str, config: dict[str, object] | None = None, start: bool = True) -> Daemon:
        daemon = Daemon(host, *flags, config=config)
        made.append((daemon, host.links(), host.mounts()))
        return daemon.start() if start else daemon

    yield make
    for daemon, links, mounts in made:
        daemon.cleanup()
        host = daemon.host
        assert host.links() == links, "links are left"
        assert host.mounts() == mounts, "mounts are left"
        assert host.rules() == "", "nftables rules are left"
        assert host.namespaces() == set(), "named network namespaces are left"
        assert host.pids() == {}, "processes are left"


@pytest.fixture
def daemon(host: Host, make_daemon: Callable[..., Daemon]) -> Daemon:
    """A daemon of one's own, in a host of one's own."""
    return make_daemon(host)
