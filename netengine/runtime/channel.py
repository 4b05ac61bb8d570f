"""Awaiting descriptors on the event loop: reading, writing, an exit (pidfd), a change of a file (inotify).

Only waits and bytes; whose descriptor it is, the caller knows. All are non-blocking and close-on-exec.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Coroutine
from pathlib import Path

from netengine.runtime import syscalls

CHUNK = 32 * 1024


def _resolve(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


async def readable(descriptor: int) -> None:
    """Return when the descriptor can be read (for a pidfd: when the process has ended)."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(descriptor, _resolve, ready)
    try:
        await ready
    finally:
        loop.remove_reader(descriptor)


async def writable(descriptor: int) -> None:
    """Return when the descriptor can be written."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_writer(descriptor, _resolve, ready)
    try:
        await ready
    finally:
        loop.remove_writer(descriptor)


class Channel:
    """One end of a pipe or a terminal. One reader and one writer at a time."""

    def __init__(self, descriptor: int) -> None:
        self._fd = syscalls.keep_high(descriptor)
        os.set_blocking(self._fd, False)
        self._waiting: set[asyncio.Future[None]] = set()

    @property
    def descriptor(self) -> int:
        """The number, for ioctls; -1 when closed."""
        return self._fd

    async def read(self) -> bytes:
        """The next bytes; empty at the end. A terminal whose other side is gone says EIO: that is the end too."""
        while self._fd >= 0:
            try:
                return os.read(self._fd, CHUNK)
            except BlockingIOError:
                await self._ready(readable)
            except OSError as error:
                if error.errno == errno.EIO:
                    return b""
                raise
        return b""

    async def write(self, data: bytes) -> bool:
        """Write all of `data`. False when nobody reads any more."""
        rest = memoryview(data)
        while rest and self._fd >= 0:
            try:
                rest = rest[os.write(self._fd, rest) :]
            except BlockingIOError:
                await self._ready(writable)
            except OSError as error:
                if error.errno in (errno.EPIPE, errno.EIO):
                    return False
                raise
        return not rest

    async def _ready(self, condition: Callable[[int], Coroutine[None, None, None]]) -> None:
        """Wait for the condition, or for `close`."""
        waiter = asyncio.ensure_future(condition(self._fd))
        self._waiting.add(waiter)
        try:
            await asyncio.wait((waiter,))
        finally:
            self._waiting.discard(waiter)
            waiter.cancel()

    def close(self) -> None:
        """Close; a read or write under way returns."""
        if self._fd < 0:
            return
        loop = asyncio.get_running_loop()
        loop.remove_reader(self._fd)
        loop.remove_writer(self._fd)
        for waiter in self._waiting:
            waiter.cancel()
        descriptor, self._fd = self._fd, -1
        os.close(descriptor)


class Watch:
    """Tells that something in a directory, or a file, has changed. Use as a context manager; create before you look."""

    def __init__(self, path: Path, mask: int) -> None:
        self._fd = syscalls.keep_high(syscalls.inotify_init())
        try:
            syscalls.inotify_add_watch(self._fd, str(path), mask)
        except BaseException:
            os.close(self._fd)
            raise

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._fd)

    async def changed(self) -> None:
        """Return when there was a change since the last call, or since the watch was made."""
        await readable(self._fd)
        while True:
            try:
                os.read(self._fd, 4096)
            except BlockingIOError:
                return
