"""`netengine logs`: what a container has written, and what it goes on writing."""

from __future__ import annotations

import sys

from netengine.cli.flags import Command, Invocation, switch, text
from netengine.cli.transport import quote
from netengine.errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from netengine.cli.engine import Query

RAW, FRAMED = "application/vnd.docker.raw-stream", "application/vnd.docker.multiplexed-stream"


def _logs(call: Invocation) -> int:
    from netengine.cli import moments, streams

    options = call.options
    tail = options.text("tail", "all")
    if tail != "all" and not tail.removeprefix("-").isdigit():
        raise Invalid(f"invalid --tail {tail!r}: give a number of lines, or all")
    path = f"/containers/{quote(call.arguments[0])}"
    query: Query = {
        "stdout": True,
        "stderr": True,
        "follow": options.switch("follow"),
        "timestamps": options.switch("timestamps"),
        "details": options.switch("details"),
        "tail": tail,
        "since": moments.timestamp(options.text("since")),
        "until": moments.timestamp(options.text("until")),
    }
    with call.engine.open("GET", f"{path}/logs", query) as response:
        kind = response.content_type()
        framed = kind == FRAMED if kind in (RAW, FRAMED) else not call.engine.get(f"{path}/json")["Config"].get("Tty")
        sys.stdout.flush()
        streams.copy_out(response.blocks(), framed)
    return 0


LOGS = Command(
    "logs",
    "Fetch the logs of a container",
    _logs,
    arguments="CONTAINER",
    completes="container",
    flags=(
        switch("details", "Show extra details provided to logs"),
        switch("f follow", "Follow log output"),
        text("since", "TIME", "Show logs since a time (2026-01-31T10:00:00Z) or for a while (42m)"),
        text("n tail", "LINES", "Number of lines to show from the end of the logs", "all"),
        switch("t timestamps", "Show timestamps"),
        text("until", "TIME", "Show logs before a time or a while ago (42m)"),
    ),
    examples=(
        ("netengine logs -f --tail 10 web", "the last ten lines, and then as they come"),
        ("netengine logs -t --since 5m web", "the last five minutes, with times"),
    ),
)
