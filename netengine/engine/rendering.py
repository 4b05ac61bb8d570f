"""Everything that should be in the kernel, rendered from the model part by part: the host's, each network's, each container's.

A part that cannot be rendered, whatever is wrong with it in the model, holds up no other. It is noted in `Core.broken` and said
once. Nothing of the kernel here.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator

from netengine.engine import policy_rules, sandbox
from netengine.engine.core import Core
from netengine.engine.overlay import fabric
from netengine.kernel.resources import Resource, Sysctl
from netengine.model import Container, Network

log = logging.getLogger(__name__)

Render = Callable[[], frozenset[Resource]]


def wanted(core: Core) -> frozenset[Resource]:
    """All of it but what is broken: see `Core.broken` after it."""
    named = set[str]()
    out = set[Resource]()
    for name, resources in pieces(core):
        named.add(name)
        out |= resources
    for name in core.broken.keys() - named:
        del core.broken[name]
    return frozenset(out)


def pieces(core: Core) -> Iterator[tuple[str, frozenset[Resource]]]:
    """The same with what each part is called, in the order in which they stand on each other."""
    state, base = core.state, core.base
    yield "the rules", base
    tunnel = "the WireGuard link"
    yield tunnel, _part(core, tunnel, lambda: fabric.common(state.fabric, state.networks, state.containers))
    for network in list(state.networks.values()):
        yield f"network {network.name}", of_network(core, network)
    policies = of_policies(core)
    yield "filtering within bridges", frozenset(r for r in policies if isinstance(r, Sysctl))
    yield "the policies", frozenset(r for r in policies if not isinstance(r, Sysctl))
    for container in list(state.containers.values()):
        yield f"container {container.name}", of_container(core, container)


def of_policies(core: Core) -> frozenset[Resource]:
    return _part(core, "the policies", lambda: policy_rules.render(core.state, core.base))


def of_network(core: Core, network: Network) -> frozenset[Resource]:
    state = core.state
    return _part(core, f"network {network.name}", lambda: fabric.render(state.fabric, state.containers, network))


def of_container(core: Core, container: Container) -> frozenset[Resource]:
    return _part(core, f"container {container.name}", lambda: sandbox.render(core.state, container))


def _part(core: Core, name: str, render: Render) -> frozenset[Resource]:
    try:
        rendered = render()
    except Exception as error:  # whatever it is that should not be in the model
        why = f"{type(error).__name__}: {error}"
        if core.broken.get(name) != why:
            log.error(
                "%s is broken in the model (%s): it stays in the kernel as it is, and nothing is taken for left over "
                "meanwhile; a restart of the daemon leaves out what is broken",
                name,
                why,
                exc_info=error,
            )
        core.broken[name] = why
        return frozenset()
    core.broken.pop(name, None)
    return rendered
