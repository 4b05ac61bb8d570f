"""`dns stats` and `dns query`: the name server of sandboxes, as seen from outside. Nothing here asks a name server itself."""

from __future__ import annotations

from netengine.cli.flags import Command, Invocation, text
from netengine.cli.listing import Listing
from netengine.errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from netengine.cli.engine import Json


def duration(microseconds: int) -> str:
    """As short as it can be read: 58µs, 1.9ms, 2.5s. "-" when nothing was measured."""
    if microseconds <= 0:
        return "-"
    if microseconds < 1000:
        return f"{microseconds}µs"
    if microseconds < 1_000_000:
        return f"{microseconds / 1000:.3g}ms"
    return f"{microseconds / 1_000_000:.3g}s"


def _count(key: str) -> Callable[[Json], int]:
    return lambda row: int(row.get(key) or 0)


def _latency(key: str) -> Callable[[Json], str]:
    return lambda row: duration(int((row.get("latency_us") or {}).get(key) or 0))


_STATS = Listing(
    {
        "Container": ("CONTAINER", lambda row: row.get("Container") or str(row.get("Sandbox", ""))[:12]),
        "Sandbox": ("SANDBOX", lambda row: str(row.get("Sandbox", ""))[:12]),
        "Asked": ("ASKED", _count("asked")),
        "Answered": ("ANSWERED", _count("answered")),
        "Forwarded": ("FORWARDED", _count("forwarded")),
        "Failed": ("FAILED", _count("failed")),
        "Refused": ("REFUSED", _count("refused")),
        "Dropped": ("DROPPED", _count("dropped")),
        "P50": ("P50", _latency("p50")),
        "P99": ("P99", _latency("p99")),
    },
    columns=("Container", "Asked", "Answered", "Forwarded", "Failed", "Refused", "Dropped", "P50", "P99"),
    quiet="Container",
)


def _stats(call: Invocation) -> int:
    rows = call.engine.get("/netengine/dns/stats").get("Sandboxes") or ()
    _STATS.show(sorted(rows, key=_STATS.fields["Container"][1]), call.options)
    return 0


def _query(call: Invocation) -> int:
    asking = call.options.text("from")
    if not asking:
        raise Invalid("which container asks? Say so: --from CONTAINER. See 'netengine dns query --help'")
    name, kind = _question(call.arguments[0], call.options.text("type").upper())
    found = call.engine.get("/netengine/dns/query", {"name": name, "from": asking, "type": kind})
    rcode, records = str(found.get("Rcode", "")), found.get("Records") or ()
    for record in records:
        print(_shown(record))
    if not records:
        print(f"{rcode}, no records" if rcode == "NOERROR" else rcode)
    for line in found.get("Lines") or ():
        print(f"# {_shown(line)}")
    return 0 if rcode == "NOERROR" else 1


def _question(name: str, kind: str) -> tuple[str, str]:
    """Name and type; of an address, what its reverse look-up asks (RFC 1035 3.5, RFC 3596 2.5)."""
    if kind in ("", "PTR"):
        from ipaddress import ip_address

        try:
            return ip_address(name).reverse_pointer, "PTR"
        except ValueError:
            pass
    return name, kind or "A"


def _shown(words: object) -> str:
    """On one line, and without what would drive a terminal: a record's text may come from any server of the world."""
    line = str(words)
    return line if line.isprintable() else line.encode("unicode_escape").decode("ascii")


STATS = Command(
    "dns stats",
    "Show what each container asked the name server, and how fast it was answered",
    _stats,
    flags=(text("format", "FORMAT", "Format output: table, json, or a Go template"),),
    notes="""
        Counted since the container got its name server. ANSWERED from names of containers, FORWARDED to other servers; FAILED:
        no server answered; REFUSED: too many questions under way; DROPPED: not a question. P50 and P99: half, and 99 in 100, of
        the questions were answered within that time.
    """,
    examples=(
        ("netengine dns stats", ""),
        ("netengine dns stats --format '{{.Container}} {{.Failed}}'", "for scripts"),
    ),
)
QUERY = Command(
    "dns query",
    "Ask a name as a container would, and show which server answered what, and why",
    _query,
    arguments="NAME|ADDRESS",
    flags=(
        text("from", "CONTAINER", "Container whose view of names is asked for"),
        text("type", "TYPE", "Type of the record: A, AAAA, MX, ... (default A; of an address PTR)"),
    ),
    notes="""
        Prints the records, or the response code when there are none, then the reasons as comments. The exit status is 0 when
        the response code is NOERROR, as for a known name without a record of that type, and 1 otherwise.
    """,
    examples=(
        ("netengine dns query db --from web", "where web finds db"),
        ("netengine dns query 172.18.0.2 --from web", "whose address that is"),
        ("netengine dns query example.com --from web --type MX", "a name that others know"),
    ),
)
