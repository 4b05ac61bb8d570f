"""The system call filter of containers that are not privileged: what a container has no business with is refused.

A list of what is refused, not of what is allowed: new system calls of the kernel work, as a private network namespace
is the point here, not a sandbox for hostile code. What a capability would open again is left open with it.
"""

from __future__ import annotations

_EPERM, _ENOSYS = 1, 38

# Reaches the kernel's or other containers' state and is not namespaced.
_ALWAYS = (
    "add_key", "keyctl", "request_key", "userfaultfd", "kexec_file_load", "kexec_load", "vm86", "vm86old", "uselib",
    "nfsservctl",
)  # fmt: skip
_UNLESS = {
    "CAP_SYS_ADMIN": (
        "bpf", "fanotify_init", "fsconfig", "fsmount", "fsopen", "fspick", "lookup_dcookie", "mount", "mount_setattr",
        "move_mount", "open_tree", "perf_event_open", "pivot_root", "quotactl", "quotactl_fd", "setns", "swapoff", "swapon",
        "umount", "umount2", "unshare",
    ),
    "CAP_DAC_READ_SEARCH": ("open_by_handle_at",),
    "CAP_SYS_BOOT": ("reboot",),
    "CAP_SYS_MODULE": ("delete_module", "finit_module", "init_module"),
    "CAP_SYS_RAWIO": ("ioperm", "iopl"),
    "CAP_SYS_TIME": ("clock_settime", "clock_settime64", "settimeofday"),
}  # fmt: skip
_CLONE_NEW = 0x7E020000  # every CLONE_NEW* flag


def profile(capabilities: tuple[str, ...]) -> dict[str, object]:
    """`linux.seccomp` of the OCI configuration for a process with these capabilities."""
    refused = list(_ALWAYS)
    for capability, calls in _UNLESS.items():
        if capability not in capabilities:
            refused += calls
    rules: list[dict[str, object]] = [{"names": refused, "action": "SCMP_ACT_ERRNO", "errnoRet": _EPERM}]
    if "CAP_SYS_ADMIN" not in capabilities:
        masked = [{"index": 0, "value": bit, "valueTwo": bit, "op": "SCMP_CMP_MASKED_EQ"} for bit in _bits(_CLONE_NEW)]
        rules += [
            {"names": ["clone"], "action": "SCMP_ACT_ERRNO", "errnoRet": _EPERM, "args": [rule]} for rule in masked
        ]
        # The flags of clone3 are behind a pointer that a filter cannot follow; ENOSYS makes libc fall back to clone.
        rules.append({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": _ENOSYS})
    return {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}


def _bits(mask: int) -> list[int]:
    return [1 << bit for bit in range(mask.bit_length()) if mask >> bit & 1]
