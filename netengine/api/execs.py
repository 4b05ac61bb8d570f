"""/containers/{id}/exec and /exec: decode, call the engine, encode."""

from __future__ import annotations

from netengine.api.http import body_object, decode, engine_of, number, reply, version_of
from netengine.api.streams import HijackedConnection, hijack, parse_detach_keys, pump
from netengine.engine.requests import ExecRequest, ExecStart
from netengine.errors import Invalid
from netengine.http import Answer, Request, Response


async def create(request: Request) -> Response:
    asked = decode(await body_object(request), ExecRequest)
    made = engine_of(request).execs.create(request.variables["id"], asked)
    return reply({"Id": made.id}, 201)


async def start(request: Request) -> Answer:
    engine = engine_of(request)
    found = engine.execs.find(request.variables["id"])
    asked = decode(await body_object(request, optional=True), ExecStart)
    tty = found.request.tty or asked.tty
    keys = parse_detach_keys(found.request.detach_keys or "ctrl-p,ctrl-q") if tty else None
    engine.execs.check_start(found)
    if asked.detach:
        await engine.execs.start(found, detach=True, tty=tty, size=asked.console_size)
        return Response(200)
    wanted = found.request
    outputs = frozenset({n for n, on in ((1, wanted.attach_stdout), (2, wanted.attach_stderr)) if on or tty})

    async def session(connection: HijackedConnection) -> None:
        # Only now: the client shows an error of the start as output, and asks for the exit code afterwards.
        running = await engine.execs.start(found, detach=False, tty=tty, size=asked.console_size)
        try:
            left = await pump(connection, running, stdin=wanted.attach_stdin, outputs=outputs, detach_keys=keys)
            if not left:
                await running.wait()
        finally:
            await running.close()

    return await hijack(request, tty=tty, session=session, multiplexed_type=version_of(request) >= (1, 42))


async def inspect(request: Request) -> Response:
    found = engine_of(request).execs.find(request.variables["id"])
    asked = found.request
    command = asked.cmd or []
    return reply(
        {
            "ID": found.id,
            "Running": found.running,
            "ExitCode": found.exit_code,
            "ProcessConfig": {
                "tty": asked.tty,
                "entrypoint": command[0] if command else "",
                "arguments": command[1:],
                "privileged": asked.privileged,
                "user": asked.user,
            },
            "OpenStdin": asked.attach_stdin,
            "OpenStderr": asked.attach_stderr,
            "OpenStdout": asked.attach_stdout,
            "CanRemove": False,
            "ContainerID": found.container_id,
            "DetachKeys": asked.detach_keys,
            "Pid": found.pid,
        }
    )


async def resize(request: Request) -> Response:
    height, width = number(request, "h"), number(request, "w")
    if height is None or width is None:
        raise Invalid("invalid terminal size: give h and w")
    await engine_of(request).execs.resize(request.variables["id"], height, width)
    return Response(200)
