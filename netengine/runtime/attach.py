"""Attaching to a container's first process, through the monitor's socket. Streams only; framing for clients is the API's."""

from __future__ import annotations

import asyncio
import collections
import os
import socket
from pathlib import Path

from netengine.errors import Conflict
from netengine.runtime import syscalls
from netengine.runtime.channel import readable
from netengine.runtime.layout import ContainerPaths

_PACKET = 64 * 1024  # the monitor sends at most 8 KiB and one byte
_STDIN_PACKET = 8 * 1024  # what the monitor reads at once: the rest of a longer packet would be lost
_HELD = 256 * 1024  # bytes of output kept for a reader
_ACCEPT_SECONDS = 10.0
_STDOUT, _STDERR = 2, 3  # the first byte of a packet


async def attach(paths: ContainerPaths, monitor_pid: int, process: int | None) -> AttachedStream:
    """Connect to the monitor. When this returns, no output from now on will be missed.

    `process` is a pidfd of the container's first process, or None when that has ended; it is closed in the end.
    """
    low = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection = socket.socket(fileno=syscalls.keep_high(low.detach()))
    try:
        known = _sockets(monitor_pid)
        connection.settimeout(_ACCEPT_SECONDS)
        await asyncio.to_thread(_connect, connection, paths.bundle)
        connection.setblocking(False)
        # Connected is not accepted: output that the monitor reads before it accepts would pass us by, and nothing
        # tells a client of the accept. The monitor's table of descriptors does. Usually the first look suffices.
        async with asyncio.timeout(_ACCEPT_SECONDS):
            while _sockets(monitor_pid) <= known:
                await asyncio.sleep(0.0005)
    except BaseException as error:
        connection.close()
        if process is not None:
            os.close(process)
        if isinstance(error, (OSError, TimeoutError)):
            raise Conflict(f"container {paths.data.name} is not running") from None
        raise
    return AttachedStream(connection, process)


def _connect(connection: socket.socket, bundle: Path) -> None:
    # Through the directory's descriptor: a path to the bundle may be longer than the 107 bytes of a socket address.
    directory = os.open(bundle, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        connection.connect(f"/proc/self/fd/{directory}/attach")
    finally:
        os.close(directory)


def _sockets(pid: int) -> frozenset[str]:
    found = set()
    directory = f"/proc/{pid}/fd"
    for name in os.listdir(directory):
        try:
            target = os.readlink(f"{directory}/{name}")
        except FileNotFoundError:
            continue
        if target.startswith("socket:"):
            found.add(target)
    return frozenset(found)


class AttachedStream:
    """A `Stream` on the monitor's packet socket.

    A client that does not read holds up the process, as a full pipe does: the monitor waits for us. Once the process has
    ended, the rest (what was in the pipe and the socket, no more) is taken at once, so that the monitor can end as well.
    """

    def __init__(self, connection: socket.socket, process: int | None) -> None:
        """`process` is a pidfd of the container's first process, closed here; None when it has ended."""
        self._socket = connection
        self._chunks: collections.deque[tuple[int, bytes]] = collections.deque()
        self._held = 0
        self._finished = False
        self._changed = asyncio.Event()  # for the reader: a chunk, or the end
        self._room = asyncio.Event()  # for the filler: the reader took something, or the process has ended
        self._process = process
        self._tasks = [asyncio.ensure_future(self._fill())]
        if process is not None:
            self._tasks.append(asyncio.ensure_future(self._lift(process)))

    async def _fill(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while packet := await loop.sock_recv(self._socket, _PACKET):
                if packet[0] not in (_STDOUT, _STDERR):
                    continue
                self._chunks.append((packet[0] - 1, packet[1:]))
                self._held += len(packet)
                self._changed.set()
                while self._held > _HELD and self._process is not None:
                    self._room.clear()
                    await self._room.wait()
        except ConnectionError:
            pass
        finally:
            self._finished = True
            self._changed.set()

    async def _lift(self, process: int) -> None:
        try:
            await readable(process)
        finally:
            os.close(process)
            self._process = None
            self._room.set()

    async def read(self) -> tuple[int, bytes] | None:
        """See `Stream`."""
        while not self._chunks:
            if self._finished:
                return None
            self._changed.clear()
            await self._changed.wait()
        chunk = self._chunks.popleft()
        self._held -= len(chunk[1]) + 1
        self._room.set()
        return chunk

    async def write(self, data: bytes) -> None:
        """See `Stream`."""
        loop = asyncio.get_running_loop()
        for start in range(0, len(data), _STDIN_PACKET):
            try:
                await loop.sock_sendall(self._socket, data[start : start + _STDIN_PACKET])
            except OSError:
                return  # the container is gone, or does not read: its end is told by read()

    async def close_stdin(self) -> None:
        """See `Stream`."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    async def close(self) -> None:
        """See `Stream`."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._process is not None:  # its task was cancelled before it ran
            os.close(self._process)
            self._process = None
        self._chunks.clear()
        self._socket.close()
