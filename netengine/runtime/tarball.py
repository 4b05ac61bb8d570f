"""Unpacking a root file system from a tar archive that may be hostile.

tarfile only parses. Every path is opened below the target directory by openat2 with RESOLVE_BENEATH, so the kernel itself
refuses what leads outside; memory, sizes and counts are bounded. What is refused says which member, and the caller throws
the half-filled directory away.
"""

from __future__ import annotations

import bz2
import errno
import io
import lzma
import os
import posixpath
import stat
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Protocol

from netengine.errors import Invalid
from netengine.runtime import syscalls

_LARGEST_READ = 8 * 1024 * 1024  # no header of an honest archive is larger
_BLOCK = 256 * 1024
_XZ_MEMORY = 256 * 1024 * 1024
_MEMBERS = 2_000_000
_PATH_BYTES = 4095


class _Decompressor(Protocol):
    """What decompressors of zlib, bz2 and lzma have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    @property
    def needs_input(self) -> bool: ...
    def decompress(self, data: bytes, max_length: int) -> bytes:
        """At most `max_length` bytes of output."""


class _Gzip:
    """zlib's decompressor with the interface of the other two."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(wbits=31)
        self.unused_data = b""
        self.eof = False

    @property
    def needs_input(self) -> bool:
        return not self._zlib.unconsumed_tail

    def decompress(self, data: bytes, max_length: int) -> bytes:
        output: bytes = self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)
        self.eof, self.unused_data = self._zlib.eof, self._zlib.unused_data
        return output


class _Plain(io.RawIOBase):
    """The uncompressed archive as tarfile wants to read it: forward only, with a bound on what one read may hold."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._position = 0
        self._buffer = b""
        magic = source.read(6)
        source.seek(0)
        self._new = _decompressor(magic)
        self._current = self._new() if self._new else None

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seekable(self) -> bool:
        return True

    def seek(self, position: int, whence: int = 0) -> int:
        if whence or position < self._position:
            raise tarfile.ReadError("the archive would have to be read backwards")
        while position > self._position and self.read(min(_BLOCK, position - self._position)):
            pass
        return self._position

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _LARGEST_READ:
            raise tarfile.ReadError(f"a header of {size} bytes")
        parts = [self._buffer[:size]]
        have = len(parts[0])
        self._buffer = self._buffer[size:]
        while have < size and (part := self._more(size - have)):
            parts.append(part)
            have += len(part)
        self._position += have
        return b"".join(parts)

    def _more(self, size: int) -> bytes:
        if self._new is None:
            return self._source.read(size)
        while True:
            assert self._current is not None
            if self._current.eof:  # archives may be several compressed streams, one after the other
                rest = self._current.unused_data or self._source.read(_BLOCK)
                if not rest.strip(b"\0"):
                    return b""
                self._current = self._new()
                data = rest
            else:
                data = self._source.read(_BLOCK) if self._current.needs_input else b""
                if not data and self._current.needs_input:
                    raise tarfile.ReadError("the compressed data ends too early")
            output = self._current.decompress(data, size)
            if output:
                return output


def _decompressor(magic: bytes) -> Callable[[], _Decompressor] | None:
    if magic.startswith(b"\x1f\x8b"):
        return _Gzip
    if magic.startswith(b"BZh"):
        return bz2.BZ2Decompressor
    if magic.startswith(b"\xfd7zXZ\0"):
        return lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)
    return None


def unpack(archive: BinaryIO, target: Path, *, limit: int, owners: bool) -> int:
    """Unpack into the empty directory `target`; returns the bytes of all files.

    `limit` bounds those bytes; `owners`: give files to the archive's numeric owners (needs root). Invalid when the archive
    is damaged or a member is not acceptable.
    """
    root = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return _Unpacking(root, limit, owners).run(archive)
    except (tarfile.TarError, zlib.error, lzma.LZMAError, EOFError) as error:
        raise Invalid(f"invalid tar archive: {error}") from None
    except (ValueError, OverflowError) as error:
        raise Invalid(f"invalid tar archive: {error}") from None
    finally:
        os.close(root)


class _Unpacking:
    def __init__(self, root: int, limit: int, owners: bool) -> None:
        self._root = root
        self._limit = limit
        self._owners = owners
        self._bytes = 0
        self._members = 0

    def run(self, archive: BinaryIO) -> int:
        try:
            plain = _Plain(archive)
            with tarfile.TarFile(fileobj=plain, mode="r", errors="surrogateescape", encoding="utf-8") as tar:
                while (member := tar.next()) is not None:
                    tar.members.clear()  # type: ignore[attr-defined]  # else all of them stay in memory
                    self._member(tar, member)
        except OSError as error:
            # bz2 reports damage as a bare OSError without a number
            if error.errno is None:
                raise Invalid(f"invalid tar archive: {error}") from None
            raise
        if not self._members:
            raise Invalid("invalid tar archive: it has no members")
        return self._bytes

    def _member(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        self._members += 1
        if self._members > _MEMBERS:
            raise Invalid(f"invalid tar archive: more than {_MEMBERS} members")
        path = self._path(member)
        try:
            if path == ".":
                if not member.isdir():
                    raise _refused(member, "only a directory can be the root")
                self._finish(os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=self._root), member)
                return
            parent = self._parent(posixpath.dirname(path))
            try:
                self._create(tar, member, parent, posixpath.basename(path))
            finally:
                os.close(parent)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ENOSYS, None):
                raise
            why = (
                "it leads out of the root file system"
                if error.errno == errno.EXDEV
                else error.strerror or "it cannot be made"
            )
            raise _refused(member, why) from None

    def _path(self, member: tarfile.TarInfo) -> str:
        name = member.name
        if name.startswith("/"):
            raise _refused(member, "its path is absolute")
        if ".." in name.split("/"):
            raise _refused(member, "its path has '..'")
        if "\0" in name or len(os.fsencode(name)) > _PATH_BYTES:
            raise _refused(member, "its path is not acceptable")
        return posixpath.normpath(name) if name else "."

    def _parent(self, path: str) -> int:
        """The directory of a member, made if need be. A symbolic link in it may not leave the root."""
        if not path:
            path = "."
        flags = os.O_RDONLY | os.O_DIRECTORY
        try:
            return syscalls.openat2(self._root, path, flags, syscalls.RESOLVE_BENEATH)
        except FileNotFoundError:
            above = self._parent(posixpath.dirname(path))
            try:
                os.mkdir(posixpath.basename(path), 0o755, dir_fd=above)
            finally:
                os.close(above)
            return syscalls.openat2(self._root, path, flags, syscalls.RESOLVE_BENEATH)

    def _create(self, tar: tarfile.TarFile, member: tarfile.TarInfo, parent: int, name: str) -> None:
        if member.isdir():
            try:
                os.mkdir(name, 0o700, dir_fd=parent)
            except FileExistsError:
                pass
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            self._finish(os.open(name, flags, dir_fd=parent), member)
            return
        if not (member.isreg() or member.issym() or member.islnk()):
            raise _refused(member, f"it is {_KINDS.get(member.type, 'of an unknown kind')}")
        try:
            os.unlink(name, dir_fd=parent)
        except FileNotFoundError:
            pass
        if member.issym():
            self._symlink(member, parent, name)
        elif member.islnk():
            self._link(member, parent, name)
        else:
            self._regular(tar, member, parent, name)

    def _symlink(self, member: tarfile.TarInfo, parent: int, name: str) -> None:
        target = member.linkname
        if not target or "\0" in target or len(os.fsencode(target)) > _PATH_BYTES:
            raise _refused(member, "its link target is not acceptable")
        # An absolute target means the container's root, where it will be resolved. One that climbs out is no mistake.
        if not target.startswith("/"):
            reached = posixpath.normpath(posixpath.join(posixpath.dirname(posixpath.normpath(member.name)), target))
            if reached == ".." or reached.startswith("../"):
                raise _refused(member, f"its link target {target[:200]!r} leads out of the root file system")
        os.symlink(target, name, dir_fd=parent)
        if self._owners:
            os.chown(name, member.uid, member.gid, dir_fd=parent, follow_symlinks=False)

    def _link(self, member: tarfile.TarInfo, parent: int, name: str) -> None:
        target = member.linkname
        if target.startswith("/") or ".." in target.split("/") or "\0" in target:
            raise _refused(member, f"its link target {target[:200]!r} leads out of the root file system")
        clean = posixpath.normpath(target)
        source = syscalls.openat2(
            self._root, posixpath.dirname(clean) or ".", os.O_RDONLY | os.O_DIRECTORY, syscalls.RESOLVE_BENEATH
        )
        try:
            base = posixpath.basename(clean)
            if not stat.S_ISREG(os.stat(base, dir_fd=source, follow_symlinks=False).st_mode):
                raise _refused(member, f"its link target {target[:200]!r} is no regular file")
            os.link(base, name, src_dir_fd=source, dst_dir_fd=parent, follow_symlinks=False)
        finally:
            os.close(source)

    def _regular(self, tar: tarfile.TarFile, member: tarfile.TarInfo, parent: int, name: str) -> None:
        if member.size < 0 or self._bytes + member.size > self._limit:
            raise _refused(member, f"with its {member.size} bytes the archive needs more than {self._limit} bytes")
        self._bytes += member.size
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(name, flags, 0o600, dir_fd=parent)
        try:
            source = tar.extractfile(member)
            assert source is not None
            left = member.size
            while left:
                block = source.read(min(_BLOCK, left))
                if not block:
                    raise _refused(member, "the archive ends in it")
                left -= len(block)
                rest = memoryview(block)
                while rest:
                    rest = rest[os.write(descriptor, rest) :]
        except BaseException:
            os.close(descriptor)
            raise
        self._finish(descriptor, member)

    def _finish(self, descriptor: int, member: tarfile.TarInfo) -> None:
        """Owner first: chown clears the set-user-ID bit and the file capabilities."""
        try:
            if self._owners:
                os.fchown(descriptor, member.uid, member.gid)
                value = member.pax_headers.get("SCHILY.xattr.security.capability")
                if value and member.isreg():
                    os.setxattr(descriptor, "security.capability", value.encode("utf-8", "surrogateescape"))
            os.fchmod(descriptor, member.mode & 0o7777)
            if member.isreg():
                os.utime(descriptor, (member.mtime, member.mtime))
        finally:
            os.close(descriptor)


_KINDS = {
    tarfile.CHRTYPE: "a character device",
    tarfile.BLKTYPE: "a block device",
    tarfile.FIFOTYPE: "a FIFO",
    tarfile.CONTTYPE: "a contiguous file",
}


def _refused(member: tarfile.TarInfo, why: str) -> Invalid:
    return Invalid(f"invalid tar archive: member {member.name[:200]!r} is refused: {why}")
