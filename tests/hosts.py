"""Machines for tests: a `Host` is a set of namespaces (network, mount, PID, UTS, IPC) that plays one.

A host has its own interfaces, firewall, sysctls, /run, process tree and host name, and shares the file system otherwise.
Whatever runs in it dies with it, and it dies with the test process, even when that is killed. The machine's own network
namespace is never configured. Nothing here knows netengine; see daemons.py.
"""

from __future__ import annotations

import ctypes
import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, TypeVar

from tests.patience import patient

T = TypeVar("T")
Socket = socket.socket

REPO = Path(__file__).resolve().parent.parent
CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)

# PID 1 of a host. It mounts what must be the host's own, then waits for the test process to close the pipe.
# Its disk is 1 GiB of memory, so that no test can fill the machine's. SIGCHLD is ignored, so that the kernel reaps what is
# orphaned to PID 1: conmon and the containers of a daemon that was killed. /sys must be mounted anew, or /sys/class/net
# would show the machine's links; the control groups below it are carried over.
_INIT = r"""
import ctypes, fcntl, os, signal, socket, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
def mount(source, target, kind, flags, data=""):
    if libc.mount(source.encode(), target.encode(), kind.encode(), flags, data.encode()) != 0:
        sys.exit(f"cannot mount {kind or source} on {target}: {os.strerror(ctypes.get_errno())}")
NOSUID, NODEV, NOEXEC, BIND, REC = 2, 4, 8, 4096, 16384
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
signal.signal(signal.SIGINT, signal.SIG_IGN)
mount("tmpfs", "/run", "tmpfs", NOSUID | NODEV, "mode=755")
mount("tmpfs", sys.argv[2], "tmpfs", NOSUID, "mode=755,size=1g")
os.mkdir("/run/cgroup")
mount("/sys/fs/cgroup", "/run/cgroup", "", BIND | REC)
mount("sysfs", "/sys", "sysfs", NOSUID | NODEV | NOEXEC)
mount("/run/cgroup", "/sys/fs/cgroup", "", BIND | REC)
libc.umount2(b"/run/cgroup", 2)
os.rmdir("/run/cgroup")
socket.sethostname(sys.argv[1])
for name, value in (("ip_forward", "0"), ("conf/all/rp_filter", "0"), ("conf/default/rp_filter", "0")):
    with open("/proc/sys/net/ipv4/" + name, "w") as file:
        file.write(value)
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
    fcntl.ioctl(control, 0x8914, struct.pack("16sH14x", b"lo", 1 | 64))  # SIOCSIFFLAGS: IFF_UP, IFF_RUNNING
for program in sys.argv[3:]:
    if os.path.exists(program):
        mount("/dev/null", program, "", BIND)
os.write(1, b"ready\n")
sys.stdin.buffer.read()
"""

# A test host has no Docker engine, whatever the machine has: netengine would make room for it.
ELSEWHERE = ("/usr/sbin/dockerd", "/usr/bin/dockerd", "/usr/local/bin/dockerd", "/usr/local/sbin/dockerd")


ANSWER = 10.0
"""Seconds for an answer that must come: from a process, on a machine that does other things too."""


def wait_until(condition: Callable[[], T], what: str | Callable[[], str], timeout: float = 30.0) -> T:
    """Ask `condition` until its answer is true, and return that. Fails after `timeout` seconds with `what` was awaited.

    Between two looks it waits for as long as a look takes: a look that costs a process must not take the processor from what is
    waited for.
    """
    timeout = patient(timeout)
    deadline = time.monotonic() + timeout
    while True:
        began = time.monotonic()
        answer = condition()
        if answer:
            return answer
        now = time.monotonic()
        if now > deadline:
            raise AssertionError(f"not within {timeout:g} s: {what if isinstance(what, str) else what()}")
        time.sleep(max(0.005, min(now - began, 0.25)))


def children(pid: int) -> list[int]:
    """The child processes of a process, by the machine's PIDs."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


class Process:
    """A long-running process in a host. `pid` is its PID on the machine (not that of nsenter, its parent)."""

    def __init__(self, popen: subprocess.Popen[bytes]) -> None:
        self.popen = popen
        wait_until(lambda: children(popen.pid) or popen.poll() is not None, f"a child of {popen.args!r}")
        self.pid = next(iter(children(popen.pid)), 0)

    def send(self, number: int) -> None:
        if self.pid and self.popen.poll() is None:
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                pass

    def wait(self, timeout: float = 15.0) -> int:
        return self.popen.wait(patient(timeout))

    def stop(self, number: int = signal.SIGKILL) -> int:
        """Send a signal, wait for the end, close the pipes; the exit status (negative: the signal)."""
        self.send(number)
        status = self.wait()
        for pipe in (self.popen.stdin, self.popen.stdout, self.popen.stderr):
            if pipe is not None:
                pipe.close()
        return status


def family_of(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


class Namespace:
    """A network namespace seen from outside: sockets made in it, used from here."""

    def __init__(self, path: Path, name: str) -> None:
        self.name = name
        self._file = path.open()
        self._inside = ThreadPoolExecutor(1, f"in {name}", self._enter)

    def _enter(self) -> None:
        if _libc.setns(self._file.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"setns into {self.name}")

    def inside(self, function: Callable[[], T]) -> T:
        """Call a function on a thread that is in the namespace."""
        return self._inside.submit(function).result()

    def socket(self, kind: int = socket.SOCK_STREAM, family: int = socket.AF_INET, timeout: float = ANSWER) -> Socket:
        """A socket of the namespace, to be used from any thread: a socket stays in the namespace it was made in."""
        made = self.inside(lambda: socket.socket(family, kind))
        made.settimeout(patient(timeout))
        return made

    def connect(self, address: str, port: int, timeout: float = ANSWER) -> Socket:
        """A TCP connection from here. Raises OSError."""
        made = self.socket(family=family_of(address), timeout=timeout)
        try:
            made.connect((address, port))
        except OSError:
            made.close()
            raise
        return made

    def listen(self, port: int, address: str = "0.0.0.0") -> Socket:
        """A TCP server of the namespace; accept() waits for a connection that must come."""
        made = self.inside(lambda: socket.create_server((address, port), family=family_of(address)))
        made.settimeout(patient(ANSWER))
        return made

    def fetch(self, address: str, port: int, path: str = "/", timeout: float = ANSWER) -> str:
        """The body that an HTTP server answers here. Raises OSError when it cannot be reached."""
        connection = http.client.HTTPConnection(address, port, timeout=patient(timeout))
        connection.sock = self.connect(address, port, timeout)
        try:
            connection.request("GET", path)
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    def ask(self, address: str, port: int, words: bytes = b"ping", timeout: float = ANSWER) -> str:
        """Send one UDP datagram and return the answer. Raises OSError when none comes."""
        with self.socket(socket.SOCK_DGRAM, family_of(address), timeout) as sock:
            sock.connect((address, port))
            sock.send(words)
            return sock.recv(4096).decode()

    def reaches(self, address: str, port: int, timeout: float = 0.4) -> bool:
        """Whether a TCP connection can be made; the time-out is short because a dropped packet gives no answer."""
        try:
            self.connect(address, port, timeout).close()
        except OSError:
            return False
        return True

    def sysctl(self, key: str, value: str | None = None) -> str:
        """Read (or write, then read) a sysctl of the namespace: "net.ipv4.ip_forward"."""
        path = Path("/proc/sys", *key.split("."))

        def access() -> str:
            if value is not None:
                path.write_text(value)
            return path.read_text().strip()

        return self.inside(access)

    def links(self) -> set[str]:
        return {name for _, name in self.inside(socket.if_nameindex)}

    def await_burials(self, seconds: float = 30.0) -> None:
        """A link that was taken out of use is renamed, and deleted a moment after the answer that said so."""
        wait_until(
            lambda: not any(name.startswith("xveth") for name in self.links()), "links out of use are deleted", seconds
        )

    def close(self) -> None:
        self._inside.shutdown()
        self._file.close()


class Host(Namespace):
    """A machine of a test. `directory` is its own place in the (shared) file system."""

    def __init__(self, name: str, directory: Path, hidden: Sequence[str] = ELSEWHERE) -> None:
        """`hidden` are programs of the machine that the host does not have."""
        self.name = name
        self.directory = directory
        self.processes: list[Process] = []
        # A path of the host, where a file system of its own is mounted; from outside see `path`.
        self.disk = directory / f"{name}-disk"
        self.disk.mkdir()
        argv = ["unshare", "--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc"]
        argv += [
            "--propagation",
            "private",
            "--",
            sys.executable,
            "-I",
            "-S",
            "-c",
            _INIT,
            name,
            str(self.disk),
            *hidden,
        ]
        self._unshare = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert self._unshare.stdout is not None and self._unshare.stderr is not None
        if self._unshare.stdout.readline() != b"ready\n":
            self._unshare.kill()
            words = self._unshare.stderr.read().decode()
            raise AssertionError(f"cannot make the namespaces of a test host (root and CAP_SYS_ADMIN needed): {words}")
        (self.pid,) = children(self._unshare.pid)
        super().__init__(Path(f"/proc/{self.pid}/ns/net"), name)

    # ------------------------------------------------------------------ the file system

    def path(self, path: str) -> Path:
        """A path of the host as the test process sees it."""
        return Path(f"/proc/{self.pid}/root{path}")

    # ------------------------------------------------------------------ processes

    def argv(self, argv: Sequence[str | Path]) -> list[str]:
        enter = ["nsenter", "--target", str(self.pid), "--net", "--mount", "--uts", "--ipc", "--pid"]
        return [*enter, f"--wd={REPO}", "--", *map(str, argv)]

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        stdin: str | bytes | IO[bytes] = b"",
        env: Mapping[str, str] | None = None,
        timeout: float = 30,
        check: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; output as text. With `check` an exit status other than 0 fails the test."""
        given: dict[str, Any] = {}
        if isinstance(stdin, (str, bytes)):
            given["input"] = stdin.encode() if isinstance(stdin, str) else stdin
        else:
            given["stdin"] = stdin
        done = subprocess.run(
            self.argv(argv), capture_output=True, env={**os.environ, **(env or {})}, timeout=patient(timeout), **given
        )
        result = subprocess.CompletedProcess(
            list(map(str, argv)),
            done.returncode,
            done.stdout.decode("utf-8", "replace"),
            done.stderr.decode("utf-8", "replace"),
        )
        if check and result.returncode != 0:
            raise AssertionError(
                f"{' '.join(result.args)}: exit {result.returncode}\n{result.stdout}{result.stderr}".rstrip()
            )
        return result

    def popen(self, argv: Sequence[str | Path], *, env: Mapping[str, str] | None = None, **options: Any) -> Process:
        """Start a command and leave it running; it ends with the host at the latest."""
        options.setdefault("stdin", subprocess.DEVNULL)
        options.setdefault("stdout", subprocess.PIPE)
        options.setdefault("stderr", subprocess.STDOUT)
        process = Process(subprocess.Popen(self.argv(argv), env={**os.environ, **(env or {})}, **options))
        self.processes.append(process)
        return process

    def ip(self, *words: str) -> str:
        return self.run(["ip", *words], check=True).stdout

    # ------------------------------------------------------------------ what is there

    def rules(self) -> str:
        """All of nftables, without counters."""
        return self.run(["nft", "--stateless", "list", "ruleset"], check=True).stdout

    def namespaces(self) -> set[str]:
        """The names under /run/netns: what `ip netns` lists."""
        try:
            return {entry.name for entry in self.path("/run/netns").iterdir()}
        except FileNotFoundError:
            return set()

    def mounts(self) -> set[str]:
        """All mount points of the host."""
        lines = Path(f"/proc/{self.pid}/mountinfo").read_text().splitlines()
        return {line.split()[4] for line in lines}

    def pids(self) -> dict[int, str]:
        """The command lines of all processes in the host by their PID on the machine; its own init is left out."""
        found = {}
        own = os.readlink(f"/proc/{self.pid}/ns/pid")
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == self.pid:
                continue
            try:
                if os.readlink(entry / "ns/pid") == own:
                    found[int(entry.name)] = (entry / "cmdline").read_text().replace("\0", " ").strip()
            except OSError:
                continue
        return found

    # ------------------------------------------------------------------ the end

    def close(self) -> None:
        """Kill everything in the host and let go of its namespaces."""
        for process in self.processes:
            process.stop()
        super().close()
        assert self._unshare.stdin is not None
        self._unshare.stdin.close()
        try:
            self._unshare.wait(patient(10))
        finally:
            self._unshare.kill()
            for pipe in (self._unshare.stdout, self._unshare.stderr):
                if pipe is not None:
                    pipe.close()


def wire(one: Host, other: Host, link: str = "up0", network: str = "192.0.2", network6: str = "2001:db8::") -> None:
    """Connect two hosts by a cable: link `link` on both, addresses `network`.1/24 and .2/24 (TEST-NET-1, RFC 5737),
    `network6`1/64 and 2/64 (RFC 3849)."""
    there = f"/proc/{other.pid}/ns/net"
    words = ["link", "add", link, "type", "veth", "peer", "name", link, "netns", str(other.pid)]
    enter = ["nsenter", f"--net=/proc/{one.pid}/ns/net", "ip"]
    subprocess.run([*enter, *words], check=True)
    for host in (one, other):
        # Without a link-local address that it may use, a host cannot ask for the neighbour of a packet that it forwards.
        host.sysctl(f"net.ipv6.conf.{link}.accept_dad", "0")
    for namespace, number in ((f"/proc/{one.pid}/ns/net", 1), (there, 2)):
        for words in (
            ["addr", "add", f"{network}.{number}/24", "dev", link],
            ["addr", "add", f"{network6}{number}/64", "dev", link, "nodad"],
            ["link", "set", link, "up"],
        ):
            subprocess.run(["nsenter", f"--net={namespace}", "ip", *words], check=True)
