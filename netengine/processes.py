"""What tells one process from a later one with the same pid: when it was started."""

from __future__ import annotations

from pathlib import Path


def started(pid: int) -> int | None:
    """When a process was started, in clock ticks since boot (field 22 of /proc/PID/stat, proc(5)); None when there is none, or
    it has ended and nobody has taken notice."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    fields = stat.rpartition(b")")[2].split()  # from the third on: the second is a name, and may hold anything
    return None if fields[0] in (b"Z", b"X") else int(fields[19])
