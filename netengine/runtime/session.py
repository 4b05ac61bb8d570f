"""One more process in a running container: `runc exec` as a child of the daemon, on pipes or a terminal of ours."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import signal
import struct
import subprocess
import termios
from pathlib import Path

import msgspec

from netengine.errors import KernelRefused
from netengine.runtime import process, rootfs, syscalls
from netengine.runtime.channel import Channel, Watch
from netengine.runtime.failures import exec_failure
from netengine.runtime.model import ExecSpec

_START_SECONDS = 60.0
_QUEUED = 8  # chunks of output that are held; then the process has to wait for the reader


async def start(
    oci_runtime: str, root: Path, container: str, spec: ExecSpec, config: object, folder: Path
) -> ExecSession:
    """Run the process that `config` (OCI process.json) describes. Returns when it runs; Invalid when it cannot.

    `folder` does not exist yet; it holds the files that runc needs and is removed at the end.
    """
    folder.mkdir(mode=0o700)
    channels: list[Channel] = []
    child: asyncio.subprocess.Process | None = None
    try:
        (folder / "process.json").write_bytes(msgspec.json.encode(config))
        argv = [
            oci_runtime, "--root", str(root), "--log", str(folder / "log"), "--log-format", "json",
            "exec", "--process", str(folder / "process.json"), "--pid-file", str(folder / "pid"), container,
        ]  # fmt: skip
        with Watch(folder, syscalls.IN_MOVED_TO | syscalls.IN_CLOSE_WRITE) as watch:
            child, session = await _spawn(argv, spec, channels)
            pid = await _started(child, watch, folder / "pid")
        if pid is None:
            raise exec_failure(folder / "log", await session.rest())
        session.begin(pid, child, folder)
        return session
    except BaseException:
        if child is not None:
            process.kill_session(child)
        for channel in channels:
            channel.close()
        rootfs.remove_tree(folder)
        raise


async def _spawn(
    argv: list[str], spec: ExecSpec, channels: list[Channel]
) -> tuple[asyncio.subprocess.Process, ExecSession]:
    theirs: list[int] = []

    def pipe(*, for_input: bool) -> tuple[Channel, int]:
        read, write = os.pipe2(os.O_CLOEXEC)
        mine, other = (write, read) if for_input else (read, write)
        theirs.append(other)
        channels.append(Channel(mine))
        return channels[-1], other

    try:
        if spec.tty:
            ours, slave = os.openpty()
            theirs.append(slave)
            terminal = Channel(ours)
            channels.append(terminal)
            if spec.height and spec.width:
                _set_size(terminal.descriptor, spec.height, spec.width)
            child = await process.spawn(argv, stdin=slave, stdout=slave, stderr=slave)
            return child, ExecSession(terminal if spec.open_stdin else None, {1: terminal}, tty=True)
        if spec.detach:
            child = await process.spawn(argv)
            return child, ExecSession(None, {}, tty=False)
        source: Channel | None = None
        stdin: int = subprocess.DEVNULL
        if spec.open_stdin:
            source, stdin = pipe(for_input=True)
        stdout, out = pipe(for_input=False)
        stderr, err = pipe(for_input=False)
        child = await process.spawn(argv, stdin=stdin, stdout=out, stderr=err)
        return child, ExecSession(source, {1: stdout, 2: stderr}, tty=False)
    finally:
        for descriptor in theirs:
            os.close(descriptor)


async def _started(child: asyncio.subprocess.Process, watch: Watch, pid_file: Path) -> int | None:
    """The pid that runc writes once the process runs; None when runc ended without."""
    end = asyncio.ensure_future(child.wait())
    try:
        async with asyncio.timeout(_START_SECONDS):
            while True:
                gone = end.done()
                try:
                    return int(pid_file.read_text())
                except (FileNotFoundError, ValueError):
                    if gone:
                        return None
                change = asyncio.ensure_future(watch.changed())
                try:
                    await asyncio.wait((change, end), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    change.cancel()
                    await asyncio.gather(change, return_exceptions=True)
    except TimeoutError:
        raise KernelRefused(f"OCI runtime exec failed: it did not answer within {_START_SECONDS:g} seconds") from None
    finally:
        end.cancel()


class ExecSession:
    """A `Stream` on the process, with its pid, terminal size and exit code."""

    pid: int

    def __init__(self, stdin: Channel | None, outputs: dict[int, Channel], *, tty: bool) -> None:
        self._stdin = stdin
        self._outputs = outputs
        self._tty = tty
        self._chunks: asyncio.Queue[tuple[int, bytes] | None] = asyncio.Queue(_QUEUED)
        self._readers: list[asyncio.Task[None]] = []
        self._child: asyncio.subprocess.Process
        self._exit: asyncio.Task[int]

    def begin(self, pid: int, child: asyncio.subprocess.Process, folder: Path) -> None:
        """The process runs: take in its output and wait for its end."""
        self.pid, self._child = pid, child
        self._exit = asyncio.ensure_future(self._ended(folder))
        self._readers = [asyncio.ensure_future(self._copy(stream, source)) for stream, source in self._outputs.items()]
        if not self._readers:
            self._chunks.put_nowait(None)

    async def rest(self) -> str:
        """What runc said before it failed to start the process."""
        text = b""
        for channel in self._outputs.values():
            try:
                async with asyncio.timeout(1.0):
                    while (chunk := await channel.read()) and len(text) < 16_384:
                        text += chunk
            except TimeoutError:
                pass
        return text.decode("utf-8", "replace")

    async def _ended(self, folder: Path) -> int:
        code = await self._child.wait()
        await asyncio.to_thread(rootfs.remove_tree, folder)
        return code if code >= 0 else 128 - code

    async def _copy(self, stream: int, source: Channel) -> None:
        while chunk := await source.read():
            await self._chunks.put((stream, chunk))
        source.close()
        self._outputs.pop(stream, None)
        if not self._outputs:
            await self._chunks.put(None)

    async def read(self) -> tuple[int, bytes] | None:
        """See `Stream`."""
        chunk = await self._chunks.get()
        if chunk is None:
            self._chunks.put_nowait(None)  # the end stays the end
        return chunk

    async def write(self, data: bytes) -> None:
        """See `Stream`."""
        if self._stdin is not None:
            await self._stdin.write(data)

    async def close_stdin(self) -> None:
        """See `Stream`. A terminal has no end of input: its user types control-D."""
        if self._stdin is not None and not self._tty:
            self._stdin.close()

    async def resize(self, height: int, width: int) -> None:
        """Set the terminal's size in rows and columns; nothing without a terminal or when it is gone."""
        terminal = self._outputs.get(1)
        if not self._tty or terminal is None or self._exit.done():
            return
        try:
            _set_size(terminal.descriptor, height, width)
            # Our terminal is not runc's controlling one, so the kernel does not tell it.
            self._child.send_signal(signal.SIGWINCH)
        except (ProcessLookupError, OSError) as error:
            if getattr(error, "errno", None) not in (None, errno.ESRCH, errno.EBADF, errno.EIO):
                raise

    async def wait(self) -> int:
        """The exit code, or 128 + signal."""
        return await asyncio.shield(self._exit)

    async def close(self) -> None:
        """See `Stream`. Output that comes later is thrown away by runc's own end of the pipe closing."""
        for reader in self._readers:
            reader.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)
        for channel in (*self._outputs.values(), *((self._stdin,) if self._stdin else ())):
            channel.close()
        self._outputs.clear()
        while not self._chunks.empty():
            self._chunks.get_nowait()
        self._chunks.put_nowait(None)


def _set_size(descriptor: int, height: int, width: int) -> None:
    fcntl.ioctl(descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
