"""The order of the house, read from the source without running it: who may import whom, and what only few modules may do."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
SOURCE = REPO / "netengine"
MODULES = sorted(SOURCE.rglob("*.py"))

LEAVES = {"errors", "__version__", "failpoints"}
ALLOWED: dict[str, set[str]] = {
    # Packages, top to bottom. A name with a dot allows that module alone, not its package.
    "cli": {"lab", "errors", "__version__"},
    "lab": {"processes", "errors"},
    "api": {"http", "engine", "observe", "runtime", "model", "ipam", "drivers", "config", *LEAVES},
    "engine": {
        "dns.client",
        "cluster",
        "hostcheck",
        "firewalls",
        "drivers",
        "ipam",
        "store",
        "runtime",
        "observe",
        "kernel",
        "model",
        "config",
        *LEAVES,
    },
    "observe": {"kernel", "model", "errors"},
    "drivers": {"kernel.resources", "model", "errors"},
    "runtime": {"processes", "errors"},
    "dns": {"unprivileged", "errors"},
    "ipam": {"errors"},
    "cluster": {"http", "store", "model", "processes", "failpoints", "errors"},
    "store": {"http", "errors", "failpoints"},
    "http": set(),
    "kernel": {"relay.protocol", "unprivileged", "errors", "failpoints"},
    # The two processes without privileges stand on the same loop, and give up root in the same way.
    "relay": {"dns.loop", "dns.privileges", "errors"},
    # Single modules, top to bottom.
    "daemon": {
        "api",
        "config",
        "detach",
        "directives",
        "hostcheck",
        "listeners",
        "notify",
        "pidfile",
        "daemonlog",
        *LEAVES,
    },
    "hostcheck": {"config", "firewalls", "trial", "errors"},
    "firewalls": set(),
    "unprivileged": {"errors"},
    "trial": {"errors"},
    "listeners": {"config", "errors"},
    "pidfile": {"errors"},
    "config": {"addressvalues", "directives", "storeaddress", "values", "errors"},
    "directives": {"addressvalues", "storeaddress", "values", "errors"},
    "addressvalues": {"values", "errors"},
    "storeaddress": {"values", "errors"},
    "values": {"errors"},
    "model": set(),
    "errors": set(),
    "failpoints": set(),
    "processes": set(),
    "detach": set(),
    "notify": set(),
    "daemonlog": set(),
    "__init__": set(),
}

OVER_400_LINES: dict[str, str] = {}
"""With the reason."""

PROCESS_STARTERS = {
    "runtime/process.py": "starts runc and conmon",
    "dns/client.py": "only names the type of the process that it speaks to",
    "kernel/relays.py": "only names the type of the process that it speaks to",
    "runtime/session.py": "only names the constants of pipes",
    "lab/hosts.py": "starts hosts of the lab and the daemons on them",
    "cluster/etcdprocess.py": "starts etcd on managers",
    "firewalls.py": "asks nft which chains of others there are",
    "unprivileged.py": "starts the name server and the relay",
    "trial.py": "asks nft, the program, what it can do",
    "kernel/wireguard.py": "starts wireguard-go where the kernel has no WireGuard",
}


def name_of(path: Path) -> str:
    return str(path.relative_to(SOURCE))


def house_part(path: Path) -> str:
    """The package, or the single module, that a file belongs to."""
    first = path.relative_to(SOURCE).parts[0]
    return first.removesuffix(".py")


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


@cache
def imported(path: Path) -> tuple[tuple[int, str], ...]:
    """(line, dotted name) of all that a module imports, wherever in it; `from a import b` is a.b where that is a module."""
    return tuple(_imported(path))


def _imported(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}:{node.lineno}: a relative import hides its direction"
            module = node.module or ""
            for alias in node.names:
                inner = SOURCE.parent / module.replace(".", "/") / alias.name
                is_module = inner.is_dir() or inner.with_suffix(".py").exists() or alias.name == "__version__"
                yield node.lineno, f"{module}.{alias.name}" if is_module else module


def own_imports(path: Path) -> Iterator[tuple[int, str]]:
    """What a module imports of netengine, without the leading `netengine.`."""
    for line, name in imported(path):
        if name == "netengine":
            yield line, "__version__"
        elif name.startswith("netengine."):
            yield line, name.removeprefix("netengine.")


def is_allowed(target: str, allowed: set[str]) -> bool:
    return any(target == a or target.startswith(f"{a}.") for a in allowed)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_downwards(path: Path) -> None:
    part = house_part(path)
    assert part in ALLOWED, f"say in this test what {part} may import"
    for line, target in own_imports(path):
        inside = target == part or target.startswith(f"{part}.")
        assert inside or is_allowed(target, ALLOWED[part]), f"{name_of(path)}:{line} imports netengine.{target}"


@pytest.mark.parametrize(("library", "part"), [("pyroute2", "kernel"), ("nftables", "kernel"), ("httptools", "http")])
def test_one_part_alone_imports_the_libraries_of_its_trade(library: str, part: str) -> None:
    users = {house_part(path) for path in MODULES for _, name in imported(path) if name.split(".")[0] == library}
    assert users == {part}


def test_pure_modules_have_no_way_to_touch_anything() -> None:
    forbidden = {"os", "socket", "subprocess", "pathlib", "shutil", "time", "random", "secrets", "asyncio", "ctypes"}
    pure = {"dns/wire.py", "dns/zones.py"}
    for path in (p for p in MODULES if house_part(p) in ("drivers", "ipam", "observe") or name_of(p) in pure):
        used = {name.split(".")[0] for _, name in imported(path)} & forbidden
        if name_of(path) == "ipam/mac.py":
            used -= {"secrets"}  # a random MAC address is what the module is for
        assert not used, f"{name_of(path)} is pure and imports {used}"


def test_processes_are_started_in_a_few_named_places() -> None:
    users = {name_of(p) for p in MODULES for _, name in imported(p) if name.split(".")[0] == "subprocess"}
    assert users == set(PROCESS_STARTERS)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_task_is_dropped(path: Path) -> None:
    """asyncio keeps weak references only: a task whose result nobody holds may vanish half-way, with its error."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            called = ast.unparse(node.value.func).rpartition(".")[2]
            assert called not in ("create_task", "ensure_future"), f"{name_of(path)}:{node.lineno} drops its task"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_every_module_says_what_it_is_for(path: Path) -> None:
    assert (ast.get_docstring(parsed(path)) or "").strip()


def test_modules_are_small() -> None:
    long = {name_of(path) for path in MODULES if len(path.read_text().splitlines()) > 400}
    assert long == set(OVER_400_LINES)


def test_who_is_in_no_cluster_does_not_pay_for_certificates() -> None:
    """`cryptography` takes some 5 MB of the daemon's memory: it is imported when the first certificate is made or read."""
    code = "import sys, netengine.daemon, netengine.api.server; sys.exit('cryptography' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPO, timeout=60).returncode == 0


@pytest.mark.parametrize("name", ["control", "joining", "managers", "member", "identity", "tokens", "users", "session"])
def test_the_parts_of_a_cluster_can_be_named_without_certificates(name: str) -> None:
    code = f"import sys, netengine.cluster.{name}; sys.exit('cryptography' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=REPO, timeout=60).returncode == 0


def test_few_modules_import_the_library_of_certificates() -> None:
    users = {name_of(path) for path in MODULES for _, name in imported(path) if name.split(".")[0] == "cryptography"}
    assert users == {"cluster/certificates.py", "cluster/pem.py", "kernel/wgkeys.py"}


def test_an_idle_daemon_has_no_more_of_its_libraries_than_it_needs() -> None:
    """What is imported is held for ever, and every start waits for it."""
    spared = (
        "pyroute2.ndb",
        "pyroute2.iproute",
        "pyroute2.dhcp",
        "cryptography",
        "scapy",
        "email",
        "xml",
        "http.client",
    )
    code = f"import sys, netengine.api.server\nprint([m for m in sys.modules if m.startswith({spared!r})])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
