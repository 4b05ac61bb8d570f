"""Figures in Docker's words: "About a minute ago", "Up 3 seconds", "1.2GB", "0.0.0.0:8080->80/tcp". Pure."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from netengine.cli.engine import Json

_HOUR = 3600
_DAY = 24 * _HOUR

_SPANS = ((365 * _DAY, "years", 2), (30 * _DAY, "months", 2), (7 * _DAY, "weeks", 2), (_DAY, "days", 2))
"""Length in seconds of a unit, its name, and how many of them a span must last to be told in it."""


def span(seconds: float) -> str:
    """How long something lasted, to one unit, in the words of `docker ps`."""
    if seconds < 1:
        return "Less than a second"
    whole = int(seconds)
    if whole < 60:
        return "1 second" if whole == 1 else f"{whole} seconds"
    minutes = whole // 60
    if minutes < 60:
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    hours = int(seconds / _HOUR + 0.5)
    for unit, name, least in _SPANS:
        if hours * _HOUR >= least * unit:
            return f"{hours * _HOUR // unit} {name}"
    return "About an hour" if hours == 1 else f"{hours} hours"


def size(count: float, digits: int = 3) -> str:
    """Bytes in decimal units, to so many significant digits: 0B, 1.23kB, 117MB."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000:
            return f"{count:.{digits}g}{unit}"
        count /= 1000
    return f"{count:.{digits}g}PB"


def binary_size(count: float) -> str:
    """Bytes in binary units, as `docker info` tells memory: 7.663GiB."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if count < 1024:
            return f"{count:.4g}{unit}"
        count /= 1024
    return f"{count:.4g}PiB"


def host_port(address: str, port: object) -> str:
    """`1.2.3.4:80`, and `[::1]:80` for IPv6."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def ports(published: Iterable[Json]) -> str:
    """The PORTS column: `0.0.0.0:8080->80/tcp, 443/tcp`. Neighbours whose host port equals the container's join into ranges."""
    runs: dict[tuple[str, str], list[tuple[int, int]]] = {}
    mapped: list[str] = []
    order = sorted(
        published,
        key=lambda port: (port["PrivatePort"], port.get("IP") or "", port.get("PublicPort") or 0, port["Type"]),
    )
    for port in order:
        address, inner, outer = port.get("IP") or "", int(port["PrivatePort"]), int(port.get("PublicPort") or 0)
        if address and outer != inner:
            mapped.append(f"{host_port(address, outer)}->{inner}/{port['Type']}")
            continue
        ranges = runs.setdefault((address, port["Type"]), [])
        if ranges and ranges[-1][1] + 1 == inner:
            ranges[-1] = (ranges[-1][0], inner)
        else:
            ranges.append((inner, inner))
    texts = []
    for (address, kind), ranges in runs.items():
        for first, last in ranges:
            text = f"{first}" if first == last else f"{first}-{last}"
            texts.append(f"{host_port(address, text)}->{text}/{kind}" if address else f"{text}/{kind}")
    return ", ".join(texts + mapped)


def shortened(text: str, width: int) -> str:
    """Cut to `width` characters, the last of them an ellipsis."""
    return text if len(text) <= width else text[: width - 1] + "…"


def short_id(text: str) -> str:
    """The 12 characters that ids are shown by, without the digest's name."""
    return text.partition(":")[2][:12] if text.startswith("sha256:") else text[:12]
