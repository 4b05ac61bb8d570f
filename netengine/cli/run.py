"""`run`, `create`, `start` and `attach`: the commands that tie this terminal to a container's process."""

from __future__ import annotations

import os

from netengine.cli.console import complain, each, warn
from netengine.cli.containerspec import FLAGS, body
from netengine.cli.flags import Command, Invocation, switch
from netengine.cli.transport import Response, quote
from netengine.errors import Conflict, Invalid, NetengineError, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from netengine.cli.engine import Engine, Json

NOT_STARTED, NOT_EXECUTABLE, NOT_THERE = 125, 126, 127
"""Exit status of `run` when the daemon refuses, when the program may not run, and when there is no such program."""

_ABSENT = ("executable file not found", "no such file or directory", "not found in $PATH")
_REFUSED = ("permission denied", "not a directory", "is a directory", "exec format error")


def start_status(message: str) -> int:
    """Which of the three a failed start is: the API has one status for all, the OCI runtime's words tell."""
    lowered = message.lower()
    if any(text.lower() in lowered for text in _ABSENT):
        return NOT_THERE
    return NOT_EXECUTABLE if any(text in lowered for text in _REFUSED) else NOT_STARTED


def _new(call: Invocation, detached: bool) -> tuple[str, Json]:
    """Create the container: its id, and the request that made it. Writes --cidfile."""
    options = call.options
    image, *command = call.arguments
    request = body(options, image, command, detached=detached, environ=os.environ)
    cidfile = options.text("cidfile")
    if cidfile and os.path.exists(cidfile):
        raise Conflict(f"container ID file found, make sure the other container isn't running or delete {cidfile}")
    try:
        answer = call.engine.post("/containers/create", {"name": options.text("name")}, request)
    except NotFound as error:
        if "no such image" in error.message.lower():
            raise NotFound(
                f"{error.message}: 'netengine images' lists those there are (host is built in), "
                f"'netengine import rootfs.tar {image}' adds one"
            ) from None
        raise
    for text in answer.get("Warnings") or ():
        warn(text)
    if cidfile:
        try:
            with open(cidfile, "x", encoding="ascii") as file:
                file.write(answer["Id"])
        except OSError as error:
            raise Invalid(f"container {answer['Id'][:12]} is made, but --cidfile {cidfile}: {error.strerror}") from None
    return answer["Id"], request


def _create(call: Invocation) -> int:
    try:
        identity, _ = _new(call, detached=False)
    except Invalid as error:
        complain(error.message)
        return NOT_STARTED
    print(identity)
    return 0


def _run(call: Invocation) -> int:
    detached = call.options.switch("detach")
    tty, interactive = call.options.switch("tty"), call.options.switch("interactive")
    if tty and interactive and not detached and not os.isatty(0):
        raise Invalid("the input device is not a TTY: leave out -t, or run this in a terminal")
    identity, request = _new(call, detached)
    path = f"/containers/{identity}"
    if detached:
        try:
            call.engine.post(f"{path}/start")
        except NetengineError as error:
            complain(error.message)
            return start_status(error.message)
        print(identity)
        return 0
    streams = {name: request[f"Attach{name.capitalize()}"] for name in ("stdin", "stdout", "stderr")}
    # Attached before it starts, so that no output is missed; waited for before it starts, so that no exit is.
    session = call.engine.hijack(f"{path}/attach", {"stream": True, **streams})
    condition = "removed" if call.options.switch("rm") else "next-exit"
    with call.engine.open("POST", f"{path}/wait", {"condition": condition}) as waiting:
        try:
            call.engine.post(f"{path}/start")
        except NetengineError as error:
            session[0].close()
            complain(error.message)
            return start_status(error.message)
        return _converse(
            call.engine,
            path,
            session,
            waiting,
            stdin=streams["stdin"],
            tty=tty,
            proxied=call.options.switch("sig-proxy", True),
        )


def _converse(
    engine: Engine,
    path: str,
    session: tuple[object, bytes, bool],
    waiting: Response,
    *,
    stdin: bool,
    tty: bool,
    proxied: bool = True,
) -> int:
    """Stream until the output ends; the exit status is the container's own."""
    from netengine.cli import streams
    from netengine.cli.engine import decode

    sock, left, framed = session
    if tty:
        streams.follow_size(engine, f"{path}/resize")
    if proxied and not (tty and stdin):
        streams.proxy_signals(lambda name: engine.post(f"{path}/kill", {"signal": name}))
    with streams.Attachment(sock, left, framed and not tty, stdin=stdin, tty=tty) as attachment:  # type: ignore[arg-type]
        attachment.pump()
    result = decode(waiting.body()) or {}
    failure = (result.get("Error") or {}).get("Message")
    if failure:
        complain(failure)
        return NOT_STARTED
    return int(result.get("StatusCode", NOT_STARTED))


def _start(call: Invocation) -> int:
    options, engine = call.options, call.engine
    attached = options.switch("attach") or options.switch("interactive")
    if not attached:

        def start(name: str) -> None:
            engine.post(f"/containers/{quote(name)}/start")
            print(name)

        return each(call.arguments, start)
    if len(call.arguments) > 1:
        raise Invalid("you cannot start and attach multiple containers at once: give one, or leave out -a and -i")
    found = engine.get(f"/containers/{quote(call.arguments[0])}/json")
    path, config = f"/containers/{found['Id']}", found["Config"]
    stdin = options.switch("interactive") and bool(config.get("OpenStdin"))
    session = engine.hijack(f"{path}/attach", {"stream": True, "stdin": stdin, "stdout": True, "stderr": True})
    condition = "removed" if found["HostConfig"].get("AutoRemove") else "next-exit"
    with engine.open("POST", f"{path}/wait", {"condition": condition}) as waiting:
        engine.post(f"{path}/start")
        return _converse(
            engine,
            path,
            session,
            waiting,
            stdin=stdin,
            tty=bool(config.get("Tty")),
            proxied=options.switch("sig-proxy", True),
        )


def _attach(call: Invocation) -> int:
    engine, (name,) = call.engine, call.arguments
    found = engine.get(f"/containers/{quote(name)}/json")
    if not found["State"]["Running"]:
        raise Conflict(
            f"cannot attach to the stopped container {name}: start it first, with 'netengine start -a {name}'"
        )
    path, config = f"/containers/{found['Id']}", found["Config"]
    stdin, tty = bool(config.get("OpenStdin")) and not call.options.switch("no-stdin"), bool(config.get("Tty"))
    if tty and stdin and not os.isatty(0):
        raise Invalid("the input device is not a TTY: add --no-stdin, or run this in a terminal")
    with engine.open("POST", f"{path}/wait", {"condition": "not-running"}) as waiting:
        session = engine.hijack(f"{path}/attach", {"stream": True, "stdin": stdin, "stdout": True, "stderr": True})
        return _converse(
            engine, path, session, waiting, stdin=stdin, tty=tty, proxied=call.options.switch("sig-proxy", True)
        )


_PROXY = switch("sig-proxy", "Pass our signals on to the process", "true")

_NETWORK_NOTE = """
    --network app, or with more to say: --network name=app,alias=web,ip=10.9.0.7,mac-address=...,gw-priority=1,driver-opt=K=V
    -p 8080:80   127.0.0.1:8080:80   127.0.0.1::80   [::1]:80:80   8000-8010:80-90   8000-8010:80   53:53/udp
"""

RUN = Command(
    "run",
    "Create and run a new container from an image",
    _run,
    arguments="IMAGE [COMMAND] [ARG...]",
    completes="image",
    wrapped=True,
    failure=NOT_STARTED,
    flags=(*FLAGS, switch("d detach", "Run in the background and print the container ID"), _PROXY),
    notes=_NETWORK_NOTE,
    examples=(
        (
            "netengine run -d --name web -p 8080:80 host python3 -m http.server 80",
            "a web server on the host's port 8080",
        ),
        ("netengine run --rm -it --network app host bash", "a shell on the network app, gone when you leave it"),
        ("netengine run --rm --network none host ip addr", "nothing but a loopback"),
    ),
)

CREATE = Command(
    "create",
    "Create a new container",
    _create,
    arguments="IMAGE [COMMAND] [ARG...]",
    completes="image",
    wrapped=True,
    flags=FLAGS,
    notes=_NETWORK_NOTE,
    examples=(
        ("netengine create --name web -p 8080:80 host python3 -m http.server 80", "start it with: netengine start web"),
    ),
)

START = Command(
    "start",
    "Start one or more stopped containers",
    _start,
    arguments="CONTAINER [CONTAINER...]",
    completes="container",
    flags=(
        switch("a attach", "Attach STDOUT/STDERR and forward signals"),
        switch("i interactive", "Attach container's STDIN"),
        _PROXY,
    ),
    examples=(("netengine start web db", ""), ("netengine start -ai shell", "start it and talk to it")),
)

ATTACH = Command(
    "attach",
    "Attach the terminal to a running container",
    _attach,
    arguments="CONTAINER",
    completes="container",
    flags=(switch("no-stdin", "Do not attach STDIN"), _PROXY),
    examples=(("netengine attach --no-stdin web", "watch its output; Ctrl-C is passed on to it"),),
)
