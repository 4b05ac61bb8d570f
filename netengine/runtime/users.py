"""Users and groups as the container sees them: its own /etc/passwd and /etc/group, never the machine's.

The root file system is not trusted: the files are opened as if it were the root directory, so a symbolic link in it
cannot lead to a file of the machine.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from netengine.errors import Invalid
from netengine.runtime import syscalls

_LIMIT = 4 * 1024 * 1024  # bytes of a passwd file that are read
_HIGHEST = 2**31 - 1


@dataclass(frozen=True, slots=True)
class User:
    """Whom a process runs as."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


def resolve(rootfs: Path, user: str, extra_groups: Iterable[str] = ()) -> User:
    """Turn "", uid[:gid] or name[:group] into numbers. Invalid when the name is not in the container's files."""
    name, colon, group_name = user.partition(":")
    if colon and not group_name:
        raise Invalid(f"invalid user {user!r}: the group after ':' is missing")
    passwd = _entries(rootfs, "etc/passwd", 4)
    groups = _entries(rootfs, "etc/group", 3)
    uid, gid, login = 0, 0, "root"
    if name:
        found = next((entry for entry in passwd if entry[0] == name), None)
        if found is None and name.isdecimal():
            uid = _number(name, user)
            found = next((entry for entry in passwd if entry[2] == name), None)
        elif found is None:
            raise Invalid(f"unable to find user {name}: no matching entries in passwd file")
        if found is not None:
            uid, gid, login = _number(found[2], user), _number(found[3], user), found[0]
        else:
            login = ""
    if group_name:
        gid = _group(groups, group_name, user)
        members: tuple[int, ...] = ()
    else:
        members = tuple(int(g[2]) for g in groups if login and login in g[3].split(",") and g[2].isdecimal())
    more = tuple(_group(groups, extra, extra) for extra in extra_groups)
    return User(uid, gid, tuple(dict.fromkeys(members + more)))


def _group(groups: list[list[str]], name: str, user: str) -> int:
    found = next((entry for entry in groups if entry[0] == name), None)
    if found is not None:
        return _number(found[2], user)
    if name.isdecimal():
        return _number(name, user)
    raise Invalid(f"unable to find group {name}: no matching entries in group file")


def _number(text: str, user: str) -> int:
    if not text.isdecimal() or len(text) > 10 or int(text) > _HIGHEST:
        raise Invalid(f"invalid user {user!r}: uids and gids must be in range 0-{_HIGHEST}")
    return int(text)


def _entries(rootfs: Path, path: str, least: int) -> list[list[str]]:
    """The lines of a passwd-like file with at least `least` fields; none when it is absent or no regular file."""
    root = os.open(rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        descriptor = syscalls.openat2(root, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY, syscalls.RESOLVE_IN_ROOT)
    except OSError:
        return []
    finally:
        os.close(root)
    with open(descriptor, "rb") as file:
        text = file.read(_LIMIT).decode("utf-8", "replace") if os.path.isfile(f"/proc/self/fd/{descriptor}") else ""
    rows = (line.split(":") for line in text.splitlines() if line and not line.startswith("#"))
    return [[*row, ""] for row in rows if len(row) >= least]
