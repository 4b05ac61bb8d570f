"""Root tests of the runtime: each body runs in a thread with network and mount namespaces of its own.

The machine's own namespaces are never entered by runc or mounted into; with the last process they vanish.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import shutil
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from netengine.runtime import ContainerSpec, ImageStore, Runtime

_CLONE_NEWNS, _CLONE_NEWNET = 0x00020000, 0x40000000
_MS_REC, _MS_PRIVATE = 0x4000, 0x40000
_libc = ctypes.CDLL(None, use_errno=True)

DEADLINE = 60.0  # seconds for one test; nothing waits for a time to pass


def _enter_new_namespaces() -> None:
    if _libc.unshare(_CLONE_NEWNS | _CLONE_NEWNET) or _libc.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None):
        raise OSError(ctypes.get_errno(), "unshare")


def isolated(body: Callable[[], Awaitable[None]]) -> None:
    """Run a coroutine function in namespaces of its own."""
    failures: list[BaseException] = []

    async def bounded() -> None:
        async with asyncio.timeout(DEADLINE):
            await body()

    def run() -> None:
        try:
            _enter_new_namespaces()
            asyncio.run(bounded())
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


class Box:
    """A runtime with roots of its own, and the shortest way to a container in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.images = ImageStore(root / "data")
        self.runtime = Runtime(root / "data", root / "exec", images=self.images)
        self._count = 0

    def spec(self, *args: str, **more: object) -> ContainerSpec:
        self._count += 1
        # Not another process's number: control groups are the machine's, and other tests run at the same time.
        number = f"{os.getpid():032x}{self._count:032x}"
        values: dict[str, object] = {"id": number, "name": f"c{self._count}", "image_id": "host", "args": args}
        values |= {"hostname": f"h{self._count}", "netns": None, "cwd": "/", **more}
        return ContainerSpec(**values)  # type: ignore[arg-type]

    async def started(self, *args: str, **more: object) -> str:
        """Create and start; returns the id."""
        spec = self.spec(*args, **more)
        await self.runtime.create(spec)
        await self.runtime.start(spec.id)
        return spec.id

    async def output(self, *args: str, **more: object) -> tuple[int, str]:
        """Run to the end; returns exit code and all output."""
        container = await self.started(*args, **more)
        status = await self.runtime.wait(container)
        text = b"".join([line.data async for line in self.runtime.logs(container)])
        await self.runtime.remove(container)
        return status.code, text.decode()


@pytest.fixture
def run() -> Iterator[Callable[[Callable[[Box], Awaitable[None]]], None]]:
    """Run a test's coroutine with a fresh `Box`; afterwards no process, mount, descriptor or file of it may be left."""
    assert os.geteuid() == 0, "these tests need root: run them with sudo"
    root = Path(tempfile.mkdtemp(prefix="netengine-runtime-"))

    def runner(test: Callable[[Box], Awaitable[None]]) -> None:
        async def body() -> None:
            await asyncio.to_thread(bool)  # the loop's own descriptors and threads exist from here on
            before = _descriptors()
            box = Box(root)
            try:
                await test(box)
            finally:
                await box.runtime.cleanup(())
            assert not _mounts(root), "mounts are left"
            assert not [
                name for part in ("data/containers", "exec/bundles", "exec/runc") for name in os.listdir(root / part)
            ]
            leaked = _descriptors() - before
            assert not leaked, f"descriptors are left: {leaked}"

        isolated(body)

    yield runner
    shutil.rmtree(root)


def _mounts(root: Path) -> list[str]:
    return [line for line in Path("/proc/thread-self/mountinfo").read_text().splitlines() if str(root) in line]


def _descriptors() -> set[tuple[str, str]]:
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add((name, os.readlink(f"/proc/self/fd/{name}")))
        except FileNotFoundError:
            pass
    return found
