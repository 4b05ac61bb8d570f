"""Images: the built-in ones, and root file systems imported from tar archives.

On disk: images/<hex>/image.json and images/<hex>/rootfs, complete or not there at all; images/tags.json maps names to ids.
Running processes from them is runtime.py's.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import re
import secrets
import shutil
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, ParamSpec, TypeVar

import msgspec

from netengine.errors import Conflict, Forbidden, Invalid, KernelRefused, NotFound, Unavailable
from netengine.runtime import changes as image_changes
from netengine.runtime import rootfs, syscalls, tarball
from netengine.runtime.model import Image, ImageConfig

log = logging.getLogger(__name__)

# Docker's reference grammar: optional host[:port]/, path components, then :tag.
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"(?:[A-Za-z0-9][A-Za-z0-9.-]*(?::\d+)?/)?{_COMPONENT}(?:/{_COMPONENT})*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_HEX = re.compile(r"[0-9a-f]{1,64}")

P = ParamSpec("P")
T = TypeVar("T")

_LIMIT = 64 * 1024**3  # bytes of an imported root file system
_RESERVE = 64 * 1024**2  # bytes that an import leaves free on the disk


class _Record(msgspec.Struct, frozen=True):
    """image.json."""

    id: str
    created: datetime
    size: int
    config: ImageConfig
    comment: str


class ImageStore:
    """The images of one daemon. Invalid, NotFound and Conflict carry Docker's texts."""

    def __init__(self, data_root: Path) -> None:
        self._root = data_root.absolute() / "images"
        self._root.mkdir(mode=0o711, parents=True, exist_ok=True)
        for unfinished in self._root.glob(".import-*"):
            rootfs.remove_tree(unfinished)
        self._builtin = {record.id: record for record in (_builtin("host", ("/bin/sh",)), _builtin("sandbox", None))}
        self._own_names = {_own_name(record): record.id for record in self._builtin.values()}
        self._records = dict(self._builtin)
        for file in self._root.glob("*/image.json"):
            if (record := _read(file, _Record)) is not None:
                self._records[record.id] = record
        self._tags = self._read_tags()

    def list(self) -> tuple[Image, ...]:
        """All images, the newest first."""
        images = (self._image(record) for record in self._records.values())
        return tuple(sorted(images, key=lambda image: image.created, reverse=True))

    def find(self, reference: str) -> Image:
        """The image of a name[:tag], an id, or the beginning of one. NotFound with Docker's text."""
        if reference in self._records:
            return self._image(self._records[reference])
        tagged = self._tags.get(_with_tag(reference))
        if tagged is not None:
            return self._image(self._records[tagged])
        prefix = reference.removeprefix("sha256:")
        if _HEX.fullmatch(prefix):
            matches = [record for key, record in self._records.items() if key.startswith(f"sha256:{prefix}")]
            if len(matches) == 1:
                return self._image(matches[0])
            if matches:
                raise Invalid(f"ambiguous image id prefix {reference!r}: write more of it")
        raise NotFound(f"No such image: {_with_tag(reference) if reference else reference}")

    def rootfs(self, image_id: str) -> Path:
        """The lower directory of a container of this image; the machine's root for `host`."""
        record = self._records.get(image_id)
        if record is None:
            raise NotFound(f"No such image: {image_id}")
        if record.comment == "host" and image_id in self._builtin:
            return Path("/")
        if image_id in self._builtin:
            raise Invalid("image sandbox has no file system: no process can run in it")
        return self._root / image_id.removeprefix("sha256:") / "rootfs"

    async def import_tar(
        self,
        stream: AsyncIterator[bytes],
        *,
        repository: str = "",
        tag: str = "",
        changes: Sequence[str] = (),
        message: str = "",
    ) -> str:
        """Unpack a root file system (tar, plain or gzip, bzip2, xz) and return the new image's id.

        Invalid when the archive is damaged or hostile, naming the member; then nothing stays behind.
        """
        name = _reference(repository, tag) if repository else None
        if tag and not repository:
            raise Invalid(f"invalid reference: tag {tag!r} without a repository")
        config = image_changes.apply(changes)
        workspace = self._root / f".import-{secrets.token_hex(8)}"
        workspace.mkdir(mode=0o700)
        try:
            digest = await _spool(stream, workspace / "archive")
            size = await _off_loop(_unpack, workspace)
            created = datetime.now(UTC)
            content = msgspec.json.encode((digest, created, config, message))
            record = _Record(f"sha256:{hashlib.sha256(content).hexdigest()}", created, size, config, message)
            await _off_loop(self._publish, workspace, record)
        finally:
            await asyncio.shield(asyncio.to_thread(rootfs.remove_tree, workspace))
        self._records[record.id] = record
        if name is not None:
            self._set_tag(name, record.id)
        return record.id

    def tag(self, reference: str, repository: str, tag: str = "") -> None:
        """Give an image one more name; a name that another image has moves."""
        self._set_tag(_reference(repository, tag), self.find(reference).id)

    async def remove(self, reference: str, *, force: bool = False) -> tuple[tuple[str, str], ...]:
        """Take a name away, and with the last one (or by id) the image. Returns ("Untagged" | "Deleted", what).

        Whether containers use it is for the engine to check first.
        """
        image = self.find(reference)
        name = _with_tag(reference)
        by_name = self._tags.get(name) == image.id
        if image.builtin and (not by_name or name in self._own_names):
            raise Forbidden(f"image {_own_name(self._records[image.id])} is built in: it cannot be removed")
        if not by_name and len(image.repo_tags) > 1 and not force:
            raise Conflict(
                f"conflict: unable to delete {image.id[7:19]} (must be forced) - image is referenced in multiple repositories"
            )
        gone = (name,) if by_name and len(image.repo_tags) > 1 else image.repo_tags
        self._write_tags({key: value for key, value in self._tags.items() if key not in gone})
        done = [("Untagged", key) for key in gone]
        if len(gone) == len(image.repo_tags):
            del self._records[image.id]
            folder = self._root / image.id.removeprefix("sha256:")
            doomed = self._root / f".import-{secrets.token_hex(8)}"  # removed at the next start if we die meanwhile
            os.rename(folder, doomed)
            await asyncio.to_thread(rootfs.remove_tree, doomed)
            done.append(("Deleted", image.id))
        return tuple(done)

    def _publish(self, workspace: Path, record: _Record) -> None:
        (workspace / "archive").unlink()
        (workspace / "image.json").write_bytes(msgspec.json.encode(record))
        directory = os.open(workspace, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            syscalls.syncfs(directory)
        finally:
            os.close(directory)
        os.chmod(workspace, 0o711)
        os.rename(workspace, self._root / record.id.removeprefix("sha256:"))

    def _image(self, record: _Record) -> Image:
        names = tuple(sorted(name for name, owner in self._tags.items() if owner == record.id))
        return Image(
            id=record.id,
            repo_tags=names,
            created=record.created,
            size=record.size,
            config=record.config,
            comment=record.comment,
            builtin=record.id in self._builtin,
        )

    def _set_tag(self, name: str, image_id: str) -> None:
        if name in self._own_names:
            raise Conflict(f"image name {name} is built in: choose another")
        self._write_tags({**self._tags, name: image_id})

    def _read_tags(self) -> dict[str, str]:
        stored = _read(self._root / "tags.json", dict[str, str]) or {}
        return {**{name: owner for name, owner in stored.items() if owner in self._records}, **self._own_names}

    def _write_tags(self, tags: dict[str, str]) -> None:
        stored = {name: owner for name, owner in tags.items() if name not in self._own_names}
        new = self._root / "tags.json.new"
        new.write_bytes(msgspec.json.encode(stored))
        os.replace(new, self._root / "tags.json")
        self._tags = tags


def _builtin(name: str, cmd: tuple[str, ...] | None) -> _Record:
    """`host`: the machine's own root file system; `sandbox`: a network namespace without any process."""
    digest = hashlib.sha256(f"netengine built-in image {name}".encode()).hexdigest()
    return _Record(f"sha256:{digest}", datetime(1970, 1, 1, tzinfo=UTC), 0, ImageConfig(cmd=cmd), name)


def _read(path: Path, form: type[T]) -> T | None:
    """A file of the store; None where there is none. One that is damaged costs its image, not the daemon's start."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=form)
    except FileNotFoundError:
        return None
    except (msgspec.DecodeError, OSError) as error:
        log.error("%s cannot be read and is left out: %s", path, error)
        return None


def _own_name(record: _Record) -> str:
    """The name that a built-in image has for good; names that a user gives it come and go."""
    return f"{record.comment}:latest"


def _reference(repository: str, tag: str) -> str:
    """REPOSITORY[:TAG] in Docker's familiar form. Invalid when it breaks Docker's grammar."""
    name = _with_tag(f"{_familiar(repository)}:{tag}" if tag else repository)
    path, _, suffix = name.rpartition(":")
    if len(path) > 255 or not _REPOSITORY.fullmatch(path) or not _TAG.fullmatch(suffix):
        raise Invalid(f"invalid reference format: {name[:300]!r}")
    return name


def _familiar(name: str) -> str:
    """Without the default registry, which clients add to a short name."""
    return name.removeprefix("docker.io/").removeprefix("library/") if name.startswith("docker.io/") else name


def _with_tag(reference: str) -> str:
    """Add `:latest` where no tag is; a colon before a slash belongs to a host's port."""
    reference = _familiar(reference)
    return reference if ":" in reference.rpartition("/")[2] else f"{reference}:latest"


async def _spool(stream: AsyncIterator[bytes], path: Path) -> str:
    """Write the archive to disk and return its SHA-256."""
    digest = hashlib.sha256()
    with await asyncio.to_thread(open, path, "xb") as file:
        async for chunk in stream:
            await _off_loop(_append, file, digest.update, chunk)
    return digest.hexdigest()


def _append(file: BinaryIO, update: Callable[[bytes], None], chunk: bytes) -> None:
    if shutil.disk_usage(os.path.dirname(file.name)).free < len(chunk) + _RESERVE:
        raise Unavailable("the disk is full: free space under the data root")
    update(chunk)
    file.write(chunk)


async def _off_loop(function: Callable[P, T], *arguments: P.args, **keywords: P.kwargs) -> T:
    """Run in a thread, and see it end even when we are cancelled: what it writes to is deleted next."""
    work = asyncio.ensure_future(asyncio.to_thread(function, *arguments, **keywords))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        await asyncio.wait((work,))
        raise
    except OSError as error:
        raise (Unavailable if error.errno in (28, 122) else KernelRefused)(
            f"importing failed: {error.strerror}"
        ) from error


def _unpack(workspace: Path) -> int:
    target = workspace / "rootfs"
    target.mkdir(mode=0o755)
    free = shutil.disk_usage(workspace).free - _RESERVE
    with open(workspace / "archive", "rb") as archive:
        return tarball.unpack(archive, target, limit=min(_LIMIT, free), owners=os.geteuid() == 0)
