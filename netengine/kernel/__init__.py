"""The kernel layer: the only code that changes or reads the kernel's networking state.

`resources` says what can exist, `plan` orders a difference, `host.Kernel` carries it out and reads the kernel back. This is the
only package that imports pyroute2 and nftables; nothing here knows of containers, networks or the Docker API.
"""

import importlib.util
import sys


def _spare_pyroute2() -> None:
    """Let parts of pyroute2 be imported without its `__init__`, which imports all of it: 180 modules, of which a few with the
    message classes are used here. They would be 7 MiB of the daemon's memory, and a tenth of a second of every start."""
    if "pyroute2" not in sys.modules and (spec := importlib.util.find_spec("pyroute2")) is not None:
        sys.modules["pyroute2"] = importlib.util.module_from_spec(spec)


_spare_pyroute2()
