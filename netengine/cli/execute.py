"""`netengine exec`: another process in a running container, with its own streams and exit status."""

from __future__ import annotations

import os

from netengine.cli import streams
from netengine.cli.console import complain
from netengine.cli.containerspec import environment
from netengine.cli.flags import Command, Invocation, many, switch, text
from netengine.cli.run import NOT_STARTED, start_status
from netengine.cli.transport import Unreachable, quote
from netengine.errors import Invalid, NetengineError


def _exec(call: Invocation) -> int:
    options, engine = call.options, call.engine
    name, *command = call.arguments
    detached, tty = options.switch("detach"), options.switch("tty")
    stdin = options.switch("interactive") and not detached
    if tty and stdin and not os.isatty(0):
        raise Invalid("the input device is not a TTY: leave out -t, or run this in a terminal")
    answer = engine.post(
        f"/containers/{quote(name)}/exec",
        body={
            "AttachStdin": stdin,
            "AttachStdout": not detached,
            "AttachStderr": not detached,
            "Tty": tty,
            "Cmd": command,
            "Env": environment(options.many("env"), options.many("env-file"), os.environ),
            "User": options.text("user"),
            "WorkingDir": options.text("workdir"),
            "Privileged": options.switch("privileged"),
        },
    )
    path = f"/exec/{answer['Id']}"
    if detached:
        engine.post(f"{path}/start", body={"Detach": True, "Tty": tty})
        return 0
    try:
        sock, left, framed = engine.hijack(f"{path}/start", body={"Detach": False, "Tty": tty})
    except Unreachable:
        raise
    except NetengineError as error:
        complain(error.message)
        status = start_status(error.message)
        return status if status != NOT_STARTED else 1
    if tty:
        streams.follow_size(engine, f"{path}/resize")
    with streams.Attachment(sock, left, framed and not tty, stdin=stdin, tty=tty) as attachment:
        attachment.pump()
    return int(engine.get(f"{path}/json").get("ExitCode") or 0)


EXEC = Command(
    "exec",
    "Execute a command in a running container",
    _exec,
    arguments="CONTAINER COMMAND [ARG...]",
    completes="container",
    wrapped=True,
    flags=(
        switch("d detach", "Run the command in the background"),
        many("e env", "NAME[=VALUE]", "Set environment variables"),
        many("env-file", "FILE", "Read in a file of environment variables"),
        switch("i interactive", "Keep STDIN open even if not attached"),
        switch("privileged", "Give extended privileges to the command"),
        switch("t tty", "Allocate a pseudo-TTY"),
        text("u user", "USER[:GROUP]", "User and group, names or numbers"),
        text("w workdir", "PATH", "Working directory inside the container"),
    ),
    examples=(
        ("netengine exec web ip addr", "a look from inside"),
        ("netengine exec -it web bash", "a shell in the container"),
    ),
)
