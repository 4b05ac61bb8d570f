"""Values under /proc/sys. The kernel shows each thread the values of the network namespace it is in."""

from __future__ import annotations

import re
from pathlib import Path

from netengine.errors import Invalid

_PATH = re.compile(r"net(/[A-Za-z0-9_.:@-]+)+")
_ROOT = Path("/proc/sys")


def path_of(name: str) -> str:
    """The path below /proc/sys of a sysctl given as `net.ipv4.ip_forward` or `net/ipv4/ip_forward`.

    In the dotted form a slash stands for a dot within an interface name, as in sysctl(8). Raises Invalid for anything that
    is not below `net`.
    """
    given = name
    dot, slash = name.find("."), name.find("/")
    if dot != -1 and (slash == -1 or dot < slash):
        name = name.translate(str.maketrans("./", "/."))
    if not _PATH.fullmatch(name) or any(part in (".", "..") for part in name.split("/")):
        raise Invalid(f"sysctl {given[:80]!r} is not a network sysctl: give net.… as in net.ipv4.ip_forward")
    return name


def read(path: str) -> str | None:
    """The value as text, runs of white space made one space; None where the kernel has no such value."""
    try:
        return " ".join((_ROOT / path).read_text().split())
    except OSError:
        return "1" if _says_no_ipv6(path) else None


def write(path: str, value: str) -> None:
    """Set the value. Raises OSError when the kernel has no such value or refuses it."""
    if value == "1" and _says_no_ipv6(path):
        return
    # One write(2): the kernel parses each write on its own.
    with open(_ROOT / path, "wb", buffering=0) as f:
        f.write(value.encode())


def _says_no_ipv6(path: str) -> bool:
    """Whether the value is a switch that takes IPv6 off a link that has none: because the kernel has none at all, or because
    the link's MTU is less than IPv6 needs, 1,280 (addrconf_notify, net/ipv6/addrconf.c). It is off then."""
    if not (path.startswith("net/ipv6/conf/") and path.endswith("/disable_ipv6")) or (_ROOT / path).exists():
        return False
    return not (_ROOT / "net/ipv6").exists() or (_ROOT / path.replace("ipv6", "ipv4", 1)).parent.is_dir()
