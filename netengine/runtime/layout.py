"""Where a container's files are. Under the data root what must outlive a reboot (writable layer, log, exit code); under
the exec root what cannot (bundle, mounts, sockets, the OCI runtime's state). Paths only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from netengine.errors import Invalid

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{1,127}")


@dataclass(frozen=True, slots=True)
class Layout:
    """The two roots."""

    data_root: Path
    exec_root: Path

    @property
    def containers(self) -> Path:
        """The directory of all writable layers and logs."""
        return self.data_root / "containers"

    @property
    def bundles(self) -> Path:
        """The directory of all bundles."""
        return self.exec_root / "bundles"

    @property
    def runc(self) -> Path:
        """The state directory of the OCI runtime."""
        return self.exec_root / "runc"

    def of(self, container: str) -> ContainerPaths:
        """The paths of one container. Invalid when the id could leave its directory."""
        if not _ID.fullmatch(container):
            raise Invalid(f"invalid container id {container[:80]!r}")
        return ContainerPaths(self.containers / container, self.bundles / container, self.runc / container)


@dataclass(frozen=True, slots=True)
class ContainerPaths:
    """The directories of one container: `data` survives a reboot, `bundle` and `state` do not."""

    data: Path
    bundle: Path
    state: Path

    @property
    def upper(self) -> Path:
        """The writable layer."""
        return self.data / "upper"

    @property
    def work(self) -> Path:
        """overlayfs's scratch directory, on the same file system as `upper`."""
        return self.data / "work"

    @property
    def log(self) -> Path:
        """The output, in k8s-file format."""
        return self.data / "log"

    @property
    def exits(self) -> Path:
        """Where the monitor writes the exit code, in a file named like the container."""
        return self.data / "exit"

    @property
    def exit(self) -> Path:
        """The exit code of the last run."""
        return self.exits / self.data.name

    @property
    def rootfs(self) -> Path:
        """The mounted root file system."""
        return self.bundle / "rootfs"

    @property
    def config(self) -> Path:
        """config.json of the bundle."""
        return self.bundle / "config.json"

    @property
    def pid(self) -> Path:
        """The first process."""
        return self.bundle / "pid"

    @property
    def monitor_pid(self) -> Path:
        """The monitor process."""
        return self.bundle / "monitor.pid"

    @property
    def runtime_log(self) -> Path:
        """What the OCI runtime had to say when it failed, as JSON lines."""
        return self.bundle / "runtime.log"
