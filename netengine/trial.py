"""Trials of kernel features, each for real, in a child process that has left for namespaces of its own.

Asking for a feature makes the kernel load its module; whether that worked is only known by using it. Nothing here changes
the namespace that the daemon was started in. Must run before any thread exists (it forks). What a failure means to the user
is said in `hostcheck.py`.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Mapping

DEADLINE_SECONDS = 20.0  # for all trials: loading a dozen modules from a slow disk takes a few

CLONE_NEWNS, CLONE_NEWNET = 0x00020000, 0x40000000  # linux/sched.h
MS_PRIVATE, MS_REC = 1 << 18, 1 << 14  # linux/mount.h
RTM_NEWLINK, NLMSG_ERROR = 16, 2  # linux/rtnetlink.h, linux/netlink.h
NLM_F_REQUEST, NLM_F_ACK, NLM_F_EXCL, NLM_F_CREATE = 0x1, 0x4, 0x200, 0x400
IFLA_LINKINFO, IFLA_INFO_KIND = 18, 1

# What each nftables feature is tried with; all at once first, since each run of nft costs several milliseconds.
NFT_RULES: Mapping[str, str] = {
    "nf_tables": "table ip trial { chain a { type filter hook forward priority 0; }; }",
    "nft_ct": "table ip trial { chain b { type filter hook forward priority 0; ct state established accept; }; }",
    "nft_fib": "table ip trial { chain c { type filter hook prerouting priority 0; fib daddr type local accept; }; }",
    "nft_nat": (
        "table ip trial { map m { type inet_service : ipv4_addr . inet_service; };"
        " chain d { type nat hook prerouting priority -100; dnat ip to tcp dport map @m; }; }"
    ),
    "nft_masq": "table ip trial { chain e { type nat hook postrouting priority 100; masquerade; }; }",
    "nft_ipv6": (
        "table ip6 trial { map m { type inet_service : ipv6_addr . inet_service; };"
        " chain f { type filter hook prerouting priority -300; fib daddr type local accept; };"
        " chain g { type nat hook prerouting priority -100; dnat ip6 to tcp dport map @m; };"
        " chain h { type nat hook postrouting priority 100; masquerade; }; }"
    ),
}
LINKS = ("bridge", "veth")

_libc = ctypes.CDLL(None, use_errno=True)


def run(nft: str | None) -> dict[str, str]:
    """Why each feature does not work, by name; a name that is absent works, or could not be tried (nft without `nft`).

    Names: those of `NFT_RULES` and `LINKS`, `netns`, `overlay`, and `trial` when the child itself failed.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reader)
            os.write(writer, json.dumps(_try_all(nft)).encode())
        except BaseException as error:
            os.write(writer, json.dumps({"trial": str(error)}).encode())
        finally:
            os._exit(0)
    os.close(writer)
    try:
        answer = _read(reader)
    finally:
        os.close(reader)
        os.kill(child, signal.SIGKILL)  # not reaped yet, so the number is still the child's
        os.waitpid(child, 0)
    if not answer:
        return {"trial": f"no answer within {DEADLINE_SECONDS:.0f} s"}
    failures: dict[str, str] = json.loads(answer)
    return failures


def _read(reader: int) -> bytes:
    deadline, answer = time.monotonic() + DEADLINE_SECONDS, b""
    while select.select([reader], [], [], max(0.0, deadline - time.monotonic()))[0]:
        part = os.read(reader, 65536)
        if not part:
            return answer
        answer += part
    return b""


def _try_all(nft: str | None) -> dict[str, str]:
    failures: dict[str, str] = {}

    def attempt(name: str, trial: Callable[[], None]) -> bool:
        try:
            trial()
        except (OSError, subprocess.SubprocessError) as error:
            failures[name] = getattr(error, "strerror", None) or str(error)
            return False
        return True

    if not attempt("netns", lambda: _unshare(CLONE_NEWNET)):
        return failures  # everything below would happen to the host
    for kind in LINKS:
        attempt(kind, lambda kind=kind: _add_link(kind))  # type: ignore[misc]
    if nft is not None and not _accepts(nft, "\n".join(NFT_RULES.values())):
        for feature, rules in NFT_RULES.items():
            attempt(feature, lambda rules=rules: _load(nft, rules))  # type: ignore[misc]
    attempt("overlay", _mount_overlay)
    return failures


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _unshare(flags: int) -> None:
    _check(_libc.unshare(flags), "unshare")


def _mount(source: str, target: str, kind: str, flags: int, data: str) -> None:
    result = _libc.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), data.encode())
    _check(result, f"mount {kind or 'flags'}")


def _mount_overlay() -> None:
    """On a tmpfs: whether the data directory's own file system can carry one is another question."""
    _unshare(CLONE_NEWNS)
    _mount("none", "/", "", MS_REC | MS_PRIVATE, "")  # before anything else: no mount may travel back to the host
    _mount("none", "/tmp", "tmpfs", 0, "size=1m")
    for name in ("lower", "upper", "work", "merged"):
        os.mkdir(f"/tmp/{name}")
    _mount("none", "/tmp/merged", "overlay", 0, "lowerdir=/tmp/lower,upperdir=/tmp/upper,workdir=/tmp/work")


def _attribute(kind: int, payload: bytes) -> bytes:
    length = 4 + len(payload)
    return struct.pack("=HH", length, kind) + payload + bytes(-length % 4)


def _add_link(kind: str) -> None:
    """RTM_NEWLINK by hand, rtnetlink(7): a netlink library is not loaded for two messages before the daemon has started."""
    info = _attribute(IFLA_LINKINFO, _attribute(IFLA_INFO_KIND, kind.encode()))
    body = struct.pack("=BxHiII", socket.AF_UNSPEC, 0, 0, 0, 0)  # no name: the kernel makes one up
    flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL
    message = struct.pack("=IHHII", 16 + len(body) + len(info), RTM_NEWLINK, flags, 1, 0) + body + info
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as sock:
        sock.settimeout(DEADLINE_SECONDS)
        sock.bind((0, 0))
        sock.send(message)
        answer = sock.recv(65536)
    kind_of_answer, error = struct.unpack_from("=4xH10xi", answer)
    if kind_of_answer != NLMSG_ERROR or error != 0:
        raise OSError(-error, os.strerror(-error))


def _nft(nft: str, rules: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([nft, "-f", "-"], input=rules, capture_output=True, text=True, timeout=DEADLINE_SECONDS / 2)


def _accepts(nft: str, rules: str) -> bool:
    return _nft(nft, rules).returncode == 0


def _load(nft: str, rules: str) -> None:
    done = _nft(nft, rules)
    if done.returncode != 0:
        raise OSError(0, done.stderr.strip().partition("\n")[0])
