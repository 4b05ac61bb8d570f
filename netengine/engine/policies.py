"""Policies: who may talk to whom, between containers and networks by name. What may be asked, and the operations.

What a policy is in the kernel is said in policy_rules.py. It is stored, and its elements follow the addresses of its ends for
as long as it exists: also when an end is removed and one of that name is made again.
"""

from __future__ import annotations

import logging

from netengine.engine import sandbox
from netengine.engine.core import Core, Operation, new_id, now
from netengine.engine.forwarding import this_boot
from netengine.engine.policy_rules import ALL_PORTS, ANY, BRIDGED, VERDICTS, elements, named, render, traffic
from netengine.engine.ports import PROTOCOLS, port_range
from netengine.engine.requests import PolicyRequest
from netengine.engine.state import State
from netengine.errors import Conflict, Forbidden, Invalid, NotFound
from netengine.kernel import sysctl
from netengine.kernel.resources import HOST, Element, Sysctl
from netengine.model import Policy, PolicyEnd

log = logging.getLogger(__name__)

_TURNED_ON = "bridge-netfilter-turned-on-in"
"""Names, in the store, the boot in which netengine itself turned the filtering of bridged packets on."""

Pair = tuple[PolicyEnd, PolicyEnd]


def _end(state: State, text: str, flag: str) -> PolicyEnd:
    """What a user calls one end. Raises Invalid, NotFound, Forbidden."""
    if text in ("", "any"):
        return ANY
    kind, colon, name = text.partition(":")
    if not colon or kind not in ("container", "network"):
        kind, name = "", text
    container = state.container_named(name) if kind != "network" else None
    network = state.network_named(name) if kind != "container" else None
    if container is not None and network is not None:
        raise Invalid(f"{flag} {name} is a container and a network: write container:{name} or network:{name}")
    if container is not None:
        if not sandbox.owns_sandbox(container):
            raise Forbidden(f"container {name} has no addresses of its own: name the one whose network it shares")
        return PolicyEnd(kind="container", name=container.name)
    if network is not None:
        if network.bridge is None:
            raise Forbidden(
                f"network {name} has driver {network.driver}, and its packets do not pass the host's rules: policies are for "
                "bridge networks"
            )
        return PolicyEnd(kind="network", name=network.name)
    raise NotFound(f"no {kind or 'container and no network'} is called {name[:60]!r} ({flag})")


def _traffic(request: PolicyRequest) -> tuple[str, int, int]:
    protocol = request.protocol.lower()
    if protocol not in ("", "icmp", *PROTOCOLS):
        raise Invalid(f"invalid protocol {protocol[:40]!r}: it must be tcp, udp, sctp or icmp")
    if not request.ports:
        return protocol, *ALL_PORTS
    ports, slash, named_protocol = request.ports.partition("/")
    if slash and protocol and named_protocol.lower() != protocol:
        raise Invalid(f"two protocols are given: {protocol}, and {named_protocol[:40]} with the port")
    protocol = (named_protocol if slash else protocol or "tcp").lower()
    if protocol not in PROTOCOLS:
        raise Invalid(f"invalid protocol {protocol[:40]!r} of port {ports[:40]}: it must be tcp, udp or sctp")
    low, high = port_range(ports)
    if low == 0:
        raise Invalid(f"invalid port {ports[:40]!r}: a port is a number from 1 to 65535")
    return protocol, low, high


# -- operations -------------------------------------------------------------------------------------------------------


class Policies:
    """What can be done with policies. One instance, owned by the engine."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def list(self) -> list[Policy]:
        return sorted(self._core.state.policies.values(), key=lambda p: (p.created, p.id))

    def find(self, reference: str) -> Policy:
        """By id or the beginning of it. Raises NotFound, Invalid."""
        found = [p for p in self._core.state.policies.values() if reference and p.id.startswith(reference)]
        if len(found) > 1:
            raise Invalid(f"policy {reference} is ambiguous ({len(found)} matches found based on ID prefix)")
        if not found:
            raise NotFound(f"no such policy: {reference[:64]}")
        return found[0]

    def elements(self, policy: Policy) -> frozenset[Element]:
        """What is in the kernel because of the policy now."""
        return elements(self._core.state, policy)

    async def add(self, request: PolicyRequest) -> Policy:
        core = self._core
        if request.action not in VERDICTS:
            raise Invalid(f"invalid action {request.action[:40]!r}: it must be allow or deny")
        protocol, low, high = _traffic(request)
        async with core.operation("add a policy") as operation:
            source, target = _end(core.state, request.source, "--from"), _end(core.state, request.target, "--to")
            if source == target:
                raise Invalid(f"a policy needs two different ends, and both are {named(source)}")
            policy = Policy(
                id=new_id(),
                created=now(),
                action=request.action,
                source=source,
                target=target,
                protocol=protocol,
                low=low,
                high=high,
            )
            _check_new(core.state, policy)
            await self._see_bridges(operation)
            before = render(core.state, core.base)
            core.state.policies[policy.id] = policy
            operation.change(lambda: core.state.policies.pop(policy.id))
            operation.put(policy)
            await operation.apply(render(core.state, core.base), before)
        self._publish("create", policy)
        return policy

    async def remove(self, reference: str) -> None:
        core = self._core
        async with core.operation("remove a policy") as operation:
            policy = self.find(reference)
            before = render(core.state, core.base)
            del core.state.policies[policy.id]
            operation.change(lambda: core.state.policies.__setitem__(policy.id, policy))
            operation.forget(policy)
            operation.finish()
            await operation.apply(render(core.state, core.base), before)
            if not core.state.policies and core.store.setting(_TURNED_ON) == this_boot():
                # A sysctl keeps its last value when nobody wants it any more.
                seen = {r for r in before if isinstance(r, Sysctl)}
                await operation.apply({Sysctl(HOST, r.path, "0") for r in seen}, seen)
        self._publish("destroy", policy)

    def _publish(self, event: str, policy: Policy) -> None:
        ends = {"from": named(policy.source), "to": named(policy.target)}
        self._core.events.publish("policy", event, policy.id, verdict=policy.action, traffic=traffic(policy), **ends)

    async def _see_bridges(self, operation: Operation) -> None:
        """Before the first policy: packets that stay within a bridge have to pass the rules."""
        core = self._core
        value = await core.on_kernel(sysctl.read, BRIDGED["ip"])
        if value is None:
            raise Forbidden(
                "the kernel does not show the rules what stays within a bridge, and policies need that: load the module "
                "br_netfilter (modprobe br_netfilter), and name it in /etc/modules-load.d to have it after a reboot"
            )
        if value != "1" and not core.state.policies:
            log.warning(
                "turning net.bridge.bridge-nf-call-iptables on, because policies need it: from now on packets within every "
                "bridge of this host pass its ip rules, those of other programs too"
            )
            operation.set(_TURNED_ON, this_boot())


def _check_new(state: State, policy: Policy) -> None:
    """Raise Conflict when a policy of the same ends says something of the same traffic already."""
    for other in state.policies.values():
        same = (other.source, other.target, other.protocol) == (policy.source, policy.target, policy.protocol)
        whole = [(p.low, p.high) == ALL_PORTS for p in (other, policy)]
        if same and whole[0] == whole[1] and other.low <= policy.high and policy.low <= other.high:
            raise Conflict(
                f"policy {other.id[:12]} says {other.action} from {named(other.source)} to {named(other.target)} of "
                f"{traffic(other)} already: remove it first, with netengine policy rm {other.id[:12]}"
            )


def renamed(state: State, operation: Operation, old: str, new: str) -> None:
    """A container has another name: the policies that name it follow."""
    for policy in state.policies.values():
        before = policy.source, policy.target
        after = tuple(
            PolicyEnd(kind=e.kind, name=new) if e == PolicyEnd(kind="container", name=old) else e for e in before
        )
        if after != before:
            policy.source, policy.target = after
            operation.change(lambda p=policy, b=before: _restore(p, b))  # type: ignore[misc]  # mypy sees no default arguments
            operation.put(policy)


def _restore(policy: Policy, ends: Pair) -> None:
    policy.source, policy.target = ends
