"""A root file system of one program, to import: the machine's `sh` with the libraries that it is linked to.

So no test downloads or installs an image.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tarfile
from pathlib import Path


def build(target: Path, mode: str = "w") -> Path:
    """Write the archive: bin/sh, its libraries, empty directories for mounts. `mode` as tarfile's: "w", "w:gz"."""
    shell = Path(shutil.which("dash") or shutil.which("sh") or "/bin/sh").resolve()
    linked = subprocess.run(["ldd", shell], capture_output=True, text=True, check=True).stdout
    with tarfile.open(target, mode) as archive:
        archive.add(shell, "bin/sh")
        for library in re.findall(r"(/\S+)", linked):
            archive.add(Path(library).resolve(), library.lstrip("/"))
        for directory in ("dev", "etc", "proc", "sys", "tmp"):
            entry = tarfile.TarInfo(directory)
            entry.type = tarfile.DIRTYPE
            entry.mode = 0o755
            archive.addfile(entry)
    return target
