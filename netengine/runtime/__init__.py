"""Processes inside sandboxes: containers under runc and conmon, and the images they start from.

Nothing here knows of networks beyond the path of a network namespace. The engine uses what is exported here; the modules
below are its own business.
"""

from netengine.runtime.images import ImageStore
from netengine.runtime.model import (
    Absent,
    Bind,
    ContainerSpec,
    ExecSpec,
    Exited,
    ExitStatus,
    Image,
    ImageConfig,
    LogLine,
    Running,
    State,
    Stream,
)
from netengine.runtime.runtime import Runtime
from netengine.runtime.session import ExecSession

__all__ = [
    "Absent", "Bind", "ContainerSpec", "ExecSession", "ExecSpec", "ExitStatus", "Exited", "Image", "ImageConfig",
    "ImageStore", "LogLine", "Running", "Runtime", "State", "Stream",
]  # fmt: skip
