"""Exec sessions: further processes in running containers. They live as long as the daemon; ended ones are kept for a while."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

import msgspec

from netengine.engine.containers import Containers
from netengine.engine.core import Core, new_id
from netengine.engine.lifecycle import exit_code_of
from netengine.engine.requests import ExecRequest
from netengine.errors import Conflict, Invalid, NetengineError, NotFound
from netengine.model import Container
from netengine.runtime import ExecSession, ExecSpec

KEPT = 512
"""How many ended sessions can still be inspected."""


class Exec(msgspec.Struct, kw_only=True):
    """An exec session: asked for, then started once."""

    id: str
    container_id: str
    request: ExecRequest
    session: ExecSession | None = None
    begun: bool = False
    running: bool = False
    exit_code: int | None = None
    pid: int = 0


class Execs:
    """One instance, owned by the engine."""

    def __init__(self, core: Core, containers: Containers) -> None:
        self._core = core
        self._containers = containers
        self._all: OrderedDict[str, Exec] = OrderedDict()

    def create(self, reference: str, request: ExecRequest) -> Exec:
        container = self._core.state.container(reference)
        self._must_run(container)
        if not request.cmd:
            raise Invalid("No exec command specified")
        made = Exec(id=new_id(), container_id=container.id, request=request)
        self._all[made.id] = made
        for old in [e.id for e in self._all.values() if not e.running][: max(0, len(self._all) - KEPT)]:
            del self._all[old]
        self._publish(container, "exec_create: " + " ".join(request.cmd), made)
        return made

    def find(self, identity: str) -> Exec:
        found = self._all.get(identity)
        if found is None:
            raise NotFound(f"No such exec instance: {identity[:80]}")
        return found

    def of(self, container: Container) -> list[str]:
        """Ids of the sessions that run in a container."""
        return [e.id for e in self._all.values() if e.container_id == container.id and e.running]

    def check_start(self, exec_: Exec) -> None:
        """Raise Conflict when the session cannot be started (any more)."""
        self._must_run(self._core.state.container(exec_.container_id))
        if exec_.begun:
            raise Conflict(f"Error: Exec command {exec_.id} has already run")

    async def start(self, exec_: Exec, *, detach: bool, tty: bool, size: list[int] | None) -> ExecSession:
        self.check_start(exec_)
        exec_.begun = True
        container = self._core.state.container(exec_.container_id)
        request = exec_.request
        height, width = (size or request.console_size or [0, 0])[:2]
        spec = ExecSpec(
            args=tuple(request.cmd or ()),
            env=tuple(request.env or ()),
            cwd=request.working_dir,
            user=request.user,
            tty=tty or request.tty,
            open_stdin=request.attach_stdin and not detach,
            privileged=request.privileged,
            detach=detach,
            height=height,
            width=width,
        )
        try:
            exec_.session = await self._core.runtime.exec(container.id, spec)
        except NetengineError as e:
            exec_.exit_code = exit_code_of(e)
            raise
        exec_.running, exec_.pid = True, exec_.session.pid
        self._publish(container, "exec_start: " + " ".join(request.cmd or ()), exec_)
        self._core.background(asyncio.create_task(self._watch(container, exec_, exec_.session)))
        return exec_.session

    async def _watch(self, container: Container, exec_: Exec, session: ExecSession) -> None:
        code = await session.wait()
        exec_.running, exec_.exit_code, exec_.pid, exec_.session = False, code, 0, None
        self._publish(container, "exec_die", exec_, exitCode=str(code))

    async def resize(self, identity: str, height: int, width: int) -> None:
        found = self.find(identity)
        if found.session is None:
            raise Conflict(f"exec {identity} is not running")
        await found.session.resize(height, width)

    def _must_run(self, container: Container) -> None:
        if container.state.status == "paused":
            raise Conflict(f"Container {container.name} is paused, unpause the container before exec")
        if not container.running:
            raise Conflict(f"container {container.id} is not running")
        if not self._containers.lifecycle.has_process(container):
            raise Conflict(
                f"container {container.name} is a sandbox without a process; use: ip netns exec {container.name} COMMAND"
            )

    def _publish(self, container: Container, action: str, exec_: Exec, **more: str) -> None:
        self._containers.lifecycle.publish(container, action, execID=exec_.id, **more)
