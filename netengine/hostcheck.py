"""What this host lacks, which package or kernel module brings it, and what works without: said once, at start.

`gather` looks at the host (`trial.py` tries the kernel's features in namespaces of its own), `judge` turns what was seen into
findings and touches nothing. Nothing is repaired here, and the host's network namespace is not changed.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import msgspec

from netengine import firewalls, trial
from netengine.config import Config

# Numbers from linux/capability.h, and what is lost without. The first two are lost without everything.
CAPABILITIES: Mapping[str, tuple[int, str]] = {
    "NET_ADMIN": (12, ""),
    "SYS_ADMIN": (21, ""),
    "NET_BROADCAST": (11, "noticing at once what others change inside sandboxes"),
    "NET_RAW": (13, "ping and packet capture in containers"),
    "NET_BIND_SERVICE": (10, "publishing host ports below 1024"),
    "SYS_CHROOT": (18, "entering a sandbox by name, and processes in containers"),
    "SYS_PTRACE": (19, "networks of another container's process (--network container:NAME), top"),
    "SYS_RESOURCE": (24, "raising limits for containers"),
    "CHOWN": (0, "importing images, and bind mounts with another owner"),
    "DAC_OVERRIDE": (1, "reading files of other users in the image `host`"),
    "FOWNER": (3, "importing images"),
    "FSETID": (4, "set-group-id files in containers"),
    "KILL": (5, "stopping containers whose process runs as another user"),
    "SETGID": (6, "containers with --user"),
    "SETUID": (7, "containers with --user"),
    "SETPCAP": (8, "processes in containers"),
    "MKNOD": (27, "devices in containers"),
    "AUDIT_WRITE": (29, "login and sudo in containers"),
    "SETFCAP": (31, "file capabilities in imported images"),
}

# Kernel feature -> module that brings it. Debian and Ubuntu ship all of them with the ordinary kernel package; slim kernels for
# clouds and micro-VMs may not.
MODULES: Mapping[str, str] = {
    "bridge": "bridge",
    "veth": "veth",
    "nf_tables": "nf_tables",
    "nft_ct": "nft_ct",
    "nft_fib": "nft_fib_ipv4",
    "nft_nat": "nft_chain_nat",
    "nft_masq": "nft_masq",
    "nft_ipv6": "nft_fib_ipv6",
    "overlay": "overlay",
}
PROGRAMS: Mapping[str, tuple[str, str]] = {
    "runc": ("runc", "networks and sandboxes for processes that you start yourself (ip netns exec)"),
    "conmon": ("conmon", "networks and sandboxes for processes that you start yourself (ip netns exec)"),
    "nft": ("nftables", "everything, except that the commands printed by `netengine explain` cannot be tried"),
    "ip": ("iproute2", "everything, except `ip netns exec` and the commands printed by `netengine explain`"),
}
# File systems that cannot hold the upper directory of an overlay (Documentation/filesystems/overlayfs.rst).
NO_UPPER = frozenset({"overlay", "nfs", "nfs4", "cifs", "vfat", "fuse", "9p", "virtiofs", "ecryptfs"})


class Finding(msgspec.Struct, frozen=True):
    """One thing to know about this host. `fatal`: the daemon cannot start; `warn`: a part will not work; `note`: know it."""

    level: Literal["fatal", "warn", "note"]
    what: str
    remedy: str
    without: str = ""  # what works, or does not, as long as nothing is done

    def __str__(self) -> str:
        return "; ".join(part for part in (self.what, self.remedy, self.without and f"without: {self.without}") if part)


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen on the host. The defaults are a host that lacks nothing."""

    capabilities: int = (1 << 41) - 1  # CapEff of /proc/self/status
    failures: Mapping[str, str] = {}  # of `trial.run`: feature -> the kernel's words
    missing_programs: tuple[str, ...] = ()  # of PROGRAMS
    nftables_binding: bool = True  # python3-nftables can be imported
    sysctls_writable: bool = True
    cgroups_writable: bool = True
    bridge_calls_iptables: bool = False  # net.bridge.bridge-nf-call-iptables
    firewalls: firewalls.Seen = firewalls.Seen()  # rules of others that packets of containers have to pass
    default_bridge: str = "docker0"
    data_root_type: str = "ext4"  # file system that carries --data-root
    bridge_wanted: bool = True


def check(config: Config) -> list[Finding]:
    """All findings on this host, the gravest first. Forks, so call it before any thread exists."""
    return judge(gather(config))


def surroundings(config: Config) -> list[Finding]:
    """Findings that may come and go while the daemon runs: firewalls, foreign chains, what is mounted how. Forks no trial."""
    return judge(
        Facts(
            sysctls_writable=os.access("/proc/sys/net/ipv4/ip_forward", os.W_OK),
            cgroups_writable=_cgroups_writable(),
            bridge_calls_iptables=firewalls.text_of("/proc/sys/net/bridge/bridge-nf-call-iptables").strip() == "1",
            firewalls=firewalls.look(config.ip_forward),
            default_bridge=config.bridge or firewalls.default_bridge(),
            data_root_type=file_system(firewalls.text_of("/proc/self/mountinfo"), config.data_root),
            bridge_wanted=config.bridge != "none",
        )
    )


def gather(config: Config) -> Facts:
    """Look at the host; changes nothing outside a child's own namespaces."""
    capabilities = _effective_capabilities(firewalls.text_of("/proc/self/status"))
    programs = {name: shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin") for name in PROGRAMS}
    may_try = all(capabilities >> CAPABILITIES[name][0] & 1 for name in ("NET_ADMIN", "SYS_ADMIN"))
    return Facts(
        capabilities=capabilities,
        failures=trial.run(programs["nft"]) if may_try else {},
        missing_programs=tuple(name for name, path in programs.items() if path is None),
        nftables_binding=importlib.util.find_spec("nftables") is not None,
        sysctls_writable=os.access("/proc/sys/net/ipv4/ip_forward", os.W_OK),
        cgroups_writable=_cgroups_writable(),
        bridge_calls_iptables=firewalls.text_of("/proc/sys/net/bridge/bridge-nf-call-iptables").strip() == "1",
        firewalls=firewalls.look(config.ip_forward),
        default_bridge=config.bridge or firewalls.default_bridge(),
        data_root_type=file_system(firewalls.text_of("/proc/self/mountinfo"), config.data_root),
        bridge_wanted=config.bridge != "none",
    )


def judge(facts: Facts) -> list[Finding]:
    """Findings from facts: pure."""
    found = [*_capabilities(facts), *_kernel(facts), *_programs(facts), *_surroundings(facts)]
    return sorted(found, key=lambda finding: ("fatal", "warn", "note").index(finding.level))


def _capabilities(facts: Facts) -> list[Finding]:
    missing = {name: lost for name, (bit, lost) in CAPABILITIES.items() if not facts.capabilities >> bit & 1}
    remedy = "start the daemon as root of the host, or add it to CapabilityBoundingSet= of netengine.service"
    return [
        Finding(
            "warn" if lost else "fatal",
            f"the capability CAP_{name} is missing",
            remedy,
            f"all but {lost}" if lost else "nothing",
        )
        for name, lost in missing.items()
    ]


def _kernel(facts: Facts) -> list[Finding]:
    found: list[Finding] = []
    for feature, words in facts.failures.items():
        if feature == "trial":
            found.append(
                Finding("warn", f"the kernel's features could not be tried ({words})", "see the errors that follow")
            )
        elif feature == "netns":
            remedy = "use a kernel with CONFIG_NET_NS, outside of a container that forbids unshare(2)"
            found.append(Finding("fatal", f"no network namespace can be made ({words})", remedy, "nothing"))
        else:
            found.append(_feature(feature, words, facts))
    return found


def _feature(feature: str, words: str, facts: Facts) -> Finding:
    module = MODULES[feature]
    remedy = (
        f"load the kernel module {module} (modprobe {module}); it comes with the distribution's kernel package"
        " (Debian: linux-image-amd64; Ubuntu's cloud kernels: linux-modules-extra-$(uname -r))"
    )
    what = f"the kernel lacks {feature} ({words})"
    if feature == "nft_ipv6":
        return Finding("warn", what, remedy, "IPv4; networks with IPv6 are refused")
    if feature == "overlay":
        return Finding("warn", what, remedy, "networks and sandboxes; no containers from images")
    if feature in trial.LINKS and not facts.bridge_wanted:
        return Finding("warn", what, remedy, "the networks host and none; no bridge networks")
    without = 'nothing by default; with "bridge": "none" in daemon.json the networks host and none'
    return Finding("fatal", what, remedy, without if feature in trial.LINKS else "nothing")


def _programs(facts: Facts) -> list[Finding]:
    found = [
        Finding("warn", f"{program} is not installed", f"apt-get install {PROGRAMS[program][0]}", PROGRAMS[program][1])
        for program in facts.missing_programs
    ]
    if not facts.nftables_binding:
        remedy = (
            "apt-get install python3-nftables, and run netengine from a virtual environment made by /usr/bin/python3 -m venv"
            " --system-site-packages (scripts/install does both)"
        )
        found.append(Finding("fatal", "python's module nftables cannot be imported", remedy, "nothing"))
    return found


def _surroundings(facts: Facts) -> list[Finding]:
    found: list[Finding] = []
    if not facts.sysctls_writable:
        remedy = "mount /proc/sys read-write (in a container: run it privileged)"
        found.append(Finding("warn", "/proc/sys/net is read-only", remedy, "networks whose sysctls are right already"))
    if not facts.cgroups_writable:
        remedy = "mount cgroup2 on /sys/fs/cgroup, read-write"
        found.append(Finding("warn", "no writable cgroups", remedy, "networks and sandboxes; containers may not start"))
    if facts.data_root_type in NO_UPPER:
        what = f"the data directory lies on {facts.data_root_type}, which cannot carry an overlay"
        remedy = "choose a --data-root on ext4, xfs, btrfs or tmpfs"
        found.append(Finding("warn", what, remedy, "networks and sandboxes; no containers from images"))
    if facts.bridge_calls_iptables:
        what = "net.bridge.bridge-nf-call-iptables is 1 (module br_netfilter): bridged packets pass the host's ip rules too"
        remedy = "sysctl -w net.bridge.bridge-nf-call-iptables=0, unless another program (Kubernetes, Docker) needs it"
        without = "everything; packets between containers of one bridge cost more, and foreign rules may drop them"
        found.append(Finding("warn", what, remedy, without))
    for one in firewalls.judge(facts.firewalls, facts.default_bridge):
        without = (
            "everything over IPv4" if one.only_ipv6 else "networks and sandboxes, cut off from where those rules stand"
        )
        found.append(Finding("note" if one.only_ipv6 else "warn", one.what, f"type: {one.remedy}", without))
    return found


def file_system(mountinfo: str, path: Path) -> str:
    """The type of the file system that carries `path`, which need not exist yet, from proc_pid_mountinfo(5)."""
    best, kind = -1, ""
    for line in mountinfo.splitlines():
        left, _, right = line.partition(" - ")
        fields = left.split()
        if len(fields) < 5 or not right:
            continue
        point = Path(fields[4].encode().decode("unicode_escape"))  # blanks are written \040
        depth = len(point.parts)
        if (point == path or point in path.parents) and depth >= best:  # the last mount on a point covers the others
            best, kind = depth, right.split()[0]
    return kind


def _effective_capabilities(status: str) -> int:
    lines = [line for line in status.splitlines() if line.startswith("CapEff:")]
    return int(lines[0].split()[1], 16) if lines else 0


def _cgroups_writable() -> bool:
    root = Path("/sys/fs/cgroup")
    unified = root / "cgroup.controllers"
    return os.access(root, os.W_OK) if unified.exists() else os.access(root / "devices", os.W_OK)
