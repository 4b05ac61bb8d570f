"""Root file systems: a writable layer over an image, mounted and unmounted. What is in the image is images.py's."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from pathlib import Path

from netengine.errors import Invalid, KernelRefused
from netengine.runtime import syscalls
from netengine.runtime.layout import ContainerPaths
from netengine.runtime.model import ContainerSpec


def mount(paths: ContainerPaths, lower: Path) -> None:
    """Mount the container's writable layer over `lower` at its rootfs."""
    for directory in (paths.upper, paths.work, paths.rootfs):
        directory.mkdir(parents=True, exist_ok=True)
    os.chmod(paths.upper, stat.S_IMODE(lower.stat().st_mode))
    options = f"lowerdir={_escaped(lower)},upperdir={_escaped(paths.upper)},workdir={_escaped(paths.work)}"
    try:
        syscalls.mount("overlay", str(paths.rootfs), "overlay", 0, options)
    except OSError as error:
        hint = {
            errno.ENODEV: "the kernel lacks overlayfs (module overlay)",
            errno.EINVAL: f"{paths.data} must not be on overlayfs, NFS or FAT itself: give another --data-root",
            errno.EPERM: "the daemon needs CAP_SYS_ADMIN",
        }.get(error.errno or 0, "")
        raise KernelRefused(
            f"mounting the root file system failed: overlay: {error.strerror}{': ' if hint else ''}{hint}"
        ) from error


def unmount(paths: ContainerPaths) -> None:
    """Unmount the rootfs and whatever lies on it; nothing when it is not mounted."""
    for target in reversed(mounts_below(paths.bundle)):
        try:
            syscalls.unmount(target)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOENT):
                raise KernelRefused(f"unmounting {target} failed: {error.strerror}") from error


def mounts_below(directory: Path) -> list[str]:
    """The mount points in or below a directory, in the order in which they were mounted."""
    prefix = str(directory)
    points = []
    # Of the calling thread: it may have entered another mount namespace than the process's first thread.
    with open("/proc/thread-self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        for line in table:
            point = line.split(" ", 5)[4]
            if "\\" in point:
                for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
                    point = point.replace(code, character)
            if point == prefix or point.startswith(prefix + "/"):
                points.append(point)
    return points


def check_sources(spec: ContainerSpec) -> None:
    """Invalid when something that is to be bind mounted does not exist."""
    for source in (*(bind.source for bind in spec.binds), *spec.files.values()):
        if not source.startswith("/") or "\0" in source:
            raise Invalid(
                f"invalid mount config for type \"bind\": invalid mount path: '{source}' mount path must be absolute"
            )
        if not os.path.exists(source):
            raise Invalid(f'invalid mount config for type "bind": bind source path does not exist: {source}')


def remove_tree(path: Path) -> None:
    """Delete a directory tree without following links; nothing when it is absent. Refuses while anything is mounted in it."""
    mounted = mounts_below(path)
    if mounted:
        raise KernelRefused(f"{path} is not removed: {mounted[-1]} is still mounted")
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise KernelRefused(f"removing {path} failed: {error.strerror}") from error


def _escaped(path: Path) -> str:
    """A path as overlayfs's options take it: colons, commas and backslashes would end or join paths."""
    text = str(path)
    for character in "\\:,":
        text = text.replace(character, f"\\{character}")
    return text
