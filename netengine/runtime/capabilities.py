"""Linux capabilities: names, Docker's default set, and what a container gets. Pure, save reading our own bounding set."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from netengine.errors import Invalid


def _full_names(text: str) -> tuple[str, ...]:
    return tuple(f"CAP_{name}" for name in text.split())


# In the order of linux/capability.h: the index is the bit.
NAMES = _full_names("""
    CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE NET_BIND_SERVICE
    NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN
    SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE
    MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE
""")

DEFAULT = frozenset(
    _full_names("""
    AUDIT_WRITE CHOWN DAC_OVERRIDE FOWNER FSETID KILL MKNOD NET_BIND_SERVICE NET_RAW SETFCAP SETGID SETPCAP SETUID
    SYS_CHROOT
""")
)


def bounding() -> frozenset[str]:
    """The capabilities that this process could ever hand on (CapBnd). runc fails on any other."""
    status = Path("/proc/self/status").read_text()
    mask = int(status.split("CapBnd:", 1)[1].split(None, 1)[0], 16)
    return frozenset(name for bit, name in enumerate(NAMES) if mask >> bit & 1)


def granted(add: Iterable[str], drop: Iterable[str], *, privileged: bool, available: frozenset[str]) -> tuple[str, ...]:
    """The capabilities of a container as Docker counts them: default, then ALL, then the single ones; sorted by bit."""
    added, dropped = _normal(add, "CapAdd"), _normal(drop, "CapDrop")
    if privileged:
        wanted = frozenset(NAMES)
    else:
        base = frozenset(NAMES) if "ALL" in added else frozenset() if "ALL" in dropped else DEFAULT
        wanted = (base | (added - {"ALL"})) - (dropped - (added if "ALL" in dropped else frozenset()))
    return tuple(name for name in NAMES if name in wanted and name in available)


def _normal(names: Iterable[str], field: str) -> frozenset[str]:
    normal = set()
    for name in names:
        upper = name.upper()
        full = upper if upper == "ALL" or upper.startswith("CAP_") else f"CAP_{upper}"
        if full != "ALL" and full not in NAMES:
            raise Invalid(f'invalid {field}: unknown capability: "{full}"')
        normal.add(full)
    return frozenset(normal)
