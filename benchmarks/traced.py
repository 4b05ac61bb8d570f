"""netengined with a stop-watch in it: `python -m benchmarks.traced FILE DAEMON-ARGUMENT...` serves as the daemon does, and
writes the milliseconds of each stage of each request to FILE, a JSON list a line. For benchmarks/stages.py only.
"""

from __future__ import annotations

import functools
import json
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from netengine import daemon
from netengine.dns.client import NameServer
from netengine.engine import sandbox
from netengine.engine.core import Core, Operation
from netengine.engine.networks import Networks
from netengine.kernel import kinds
from netengine.kernel.host import Kernel
from netengine.kernel.netlink import NetlinkSocket
from netengine.kernel.nftables import Nft

_current: dict[str, float] = {}
"""The stages of the request under way; one at a time is asked for."""
_inner = threading.local()


def _watched(stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, its own time (without that of watched functions that it calls) added to the stage."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        outer, _inner.spent = getattr(_inner, "spent", 0.0), 0.0
        began = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            taken = time.perf_counter() - began
            _current[stage] = _current.get(stage, 0.0) + taken - _inner.spent
            _inner.spent = outer + taken

    return wrapper


def _awaited(stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """As `_watched` for a coroutine function, its whole time; others subtract (benchmarks/stages.py)."""

    @functools.wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        try:
            return await function(*args, **kwargs)
        finally:
            _current[stage] = _current.get(stage, 0.0) + time.perf_counter() - began

    return wrapper


def _recorded(what: str, function: Callable[..., Any], out: Any) -> Callable[..., Any]:
    @functools.wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> Any:
        _current.clear()
        began = time.perf_counter()
        try:
            return await function(*args, **kwargs)
        finally:
            whole = time.perf_counter() - began
            stages = {stage: taken * 1000 for stage, taken in _current.items()}
            out.write(json.dumps([what, whole * 1000, stages]) + "\n")
            out.flush()

    return wrapper


def main() -> None:
    out = open(sys.argv[1], "a")  # noqa: SIM115  the daemon's life long
    # Classes are patched before the daemon makes anything of them; slots and protocols allow it for functions.
    for name in ("connect", "disconnect"):
        setattr(Networks, name, _recorded(name, getattr(Networks, name), out))
    for kind, create in list(kinds.CREATE.items()):
        kinds.CREATE[kind] = _watched(f"kernel thread: {kind.__name__}", create)
    for kind, delete in list(kinds.DELETE.items()):
        kinds.DELETE[kind] = _watched(f"kernel thread: {kind.__name__}", delete)
    Kernel.apply = _watched("kernel thread: plan", Kernel.apply)  # type: ignore[method-assign]
    NetlinkSocket._encode = _watched("netlink: encode", NetlinkSocket._encode)  # type: ignore[method-assign]
    NetlinkSocket.execute = _watched("netlink: the kernel's work", NetlinkSocket.execute)  # type: ignore[method-assign]
    NetlinkSocket.ask = _watched("netlink: questions", NetlinkSocket.ask)  # type: ignore[method-assign]
    Nft.run = _watched("nftables transaction", Nft.run)  # type: ignore[method-assign]
    Operation.apply = _awaited("apply, with the way to the kernel thread", Operation.apply)  # type: ignore[method-assign]
    Core.on_kernel = _awaited("on_kernel", Core.on_kernel)  # type: ignore[method-assign]
    Operation._write = _watched("store", Operation._write)  # type: ignore[method-assign]
    NameServer._answer = _awaited("name server", NameServer._answer)  # type: ignore[method-assign]
    sandbox.render = _watched("render the model", sandbox.render)
    sys.argv = ["netengined", *sys.argv[2:]]
    daemon.main()


if __name__ == "__main__":
    main()
