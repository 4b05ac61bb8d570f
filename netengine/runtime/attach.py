"""Attaching to a container's first process, through the monitor's socket. Streams only; framing for clients is the API's."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

from netengine.errors import Conflict
from netengine.runtime.layout import ContainerPaths

_PACKET = 64 * 1024  # the monitor sends at most 8 KiB and one byte
_STDIN_PACKET = 8 * 1024  # what the monitor reads at once: the rest of a longer packet would be lost
_ACCEPT_SECONDS = 10.0
_STDOUT, _STDERR = 2, 3  # the first byte of a packet


async def attach(paths: ContainerPaths, monitor_pid: int) -> AttachedStream:
    """Connect to the monitor. When this returns, no output from now on will be missed."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
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
    except (OSError, TimeoutError):
        connection.close()
        raise Conflict(f"container {paths.data.name} is not running") from None
    except BaseException:
        connection.close()
        raise
    return AttachedStream(connection)


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
    """A `Stream` on the monitor's packet socket."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._closed = asyncio.Event()

    async def read(self) -> tuple[int, bytes] | None:
        """See `Stream`."""
        while not self._closed.is_set():
            packet = await self._until_closed()
            if not packet:
                return None
            if packet[0] in (_STDOUT, _STDERR):
                return packet[0] - 1, packet[1:]
        return None

    async def _until_closed(self) -> bytes:
        loop = asyncio.get_running_loop()
        reading = asyncio.ensure_future(loop.sock_recv(self._socket, _PACKET))
        closing = asyncio.ensure_future(self._closed.wait())
        try:
            await asyncio.wait((reading, closing), return_when=asyncio.FIRST_COMPLETED)
            return reading.result() if reading.done() else b""
        except ConnectionError:
            return b""
        finally:
            reading.cancel()
            closing.cancel()

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
        self._closed.set()
        await asyncio.sleep(0)
        self._socket.close()
