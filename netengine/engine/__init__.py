"""The engine: the model and every operation on it. The only writer of the store and the kernel.

    engine.py      the one object that the API talks to
    core.py        the frame of every change: lock, intent, undo
    networks.py    create, remove, connect, disconnect        containers.py  create, start, stop, remove
    sandbox.py     a container's endpoints as resources       lifecycle.py   how a container starts and ends
    recovery.py    the start of the daemon                    checks.py      what a request must satisfy
    healing.py     what others take away is put back          checkup.py     behind `netengine doctor`
    reconcile.py   kernel and model compared and mended, for all three
    loading.py     the store as it is found at start
    audit.py       who asked for which change

Nothing here speaks HTTP or netlink: wire names come in as `requests.py`, the kernel is `netengine.kernel`.
"""

from netengine.engine.audit import Audit
from netengine.engine.engine import Engine, cleanup

__all__ = ["Audit", "Engine", "cleanup"]
