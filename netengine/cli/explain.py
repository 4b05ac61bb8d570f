"""`netengine explain`: the kernel resources behind a network or a container, as a shell script that would build the same."""

from __future__ import annotations

import os
import sys

from netengine.cli.flags import Command, Invocation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from netengine.cli.engine import Json

_COMMENT, _PLAIN = "\033[32m", "\033[0m"


def script(found: Json) -> list[str]:
    """The answer as lines of shell: each reason as a comment above the commands it is for, once while it stays the same."""
    lines = [f"# {found['Kind']} {_one_line(found['Name'])} ({found['Id'][:12]})"]
    before = None
    for step in found.get("Steps") or ():
        why = _one_line(step.get("Why") or "")
        if why and why != before:
            lines += ["", f"# {why}"]
        before = why
        lines.append(step["Command"])
    if len(lines) == 1:
        lines.append("# nothing of it exists in the kernel now")
    return lines


def _one_line(text: str) -> str:
    """A comment must not end before its text does: the next line of it would be run."""
    return " ".join(str(text).split())


def _explain(call: Invocation) -> int:
    found = call.engine.get("/netengine/explain", {"ref": call.arguments[0]})
    coloured = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    for line in script(found):
        print(f"{_COMMENT}{line}{_PLAIN}" if coloured and line.startswith("#") else line)
    return 0


EXPLAIN = Command(
    "explain",
    "Print the ip, nft and sysctl commands behind a network or container",
    _explain,
    arguments="NETWORK|CONTAINER",
    completes="network container",
    notes="""
        The output is a shell script: the commands that would build the same by hand, each with its reason as a comment.
    """,
    examples=(
        ("netengine explain app", "what a network is made of"),
        ("netengine explain web > web.sh", "keep it, read it, run it on a machine without netengine"),
    ),
)
