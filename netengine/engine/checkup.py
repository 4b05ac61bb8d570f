"""The check-up behind `netengine doctor`: does the kernel agree with the model, and the store with both?

One look under the writer lock, and on request the mending. Nothing is decided here that `reconcile` does not decide.
"""

from __future__ import annotations

import asyncio
import logging

import msgspec

from netengine import hostcheck
from netengine.engine import reconcile, surroundings
from netengine.engine.core import Core
from netengine.engine.overlay import uplink
from netengine.errors import NetengineError
from netengine.kernel.resources import Table
from netengine.observe.doctor import Finding, diagnose, summary

log = logging.getLogger(__name__)


class Diagnosis(msgspec.Struct, frozen=True):
    """What a check-up found. `mended` and `problems` are empty unless mending was asked for."""

    findings: list[Finding]
    host: list[hostcheck.Finding]
    mended: list[Finding]
    problems: list[str]

    @property
    def healthy(self) -> bool:
        left = [f for f in self.findings if f not in self.mended]
        return not left and not self.problems and all(finding.level != "fatal" for finding in self.host)


async def check(core: Core, *, fix: bool) -> Diagnosis:
    """Look at everything, and with `fix` put it right. The file of a namespace that has lost it is put back in any case:
    without it nobody could look inside."""
    problems: list[str] = []
    async with core.lock:
        found = await reconcile.difference(core)
        findings = [Finding("missing", f"file of the namespace of {name} (put back)") for name in found.unmounted]
        already = list(findings)
        findings += [Finding("missing", f"parent interface {name}") for name in sorted(found.missing_parents)]
        findings += diagnose(found.steps) + _stored(core)
        if fix:
            problems += await reconcile.mend(core, found)
            problems += mend_store(core)
            after = await reconcile.difference(core)
            left = diagnose(after.steps) + _stored(core)
            mended = [f for f in findings if f not in left]
            for line in summary(mended):
                log.warning("doctor: put right: %s", line)
        else:
            mended = already
        host = await surroundings.findings(core)
        host += await uplink.findings(core)
        tables = [r for r in found.steps.missing if isinstance(r, Table)]
        for problem in await core.on_kernel(core.kernel.nft.strangers, tables):
            what, _, remedy = problem.partition(": ")
            host.append(hostcheck.Finding("fatal", what, remedy))
        host += [hostcheck.Finding("fatal", _broken(*part), _START_ANEW) for part in core.broken.items()]
    host += await asyncio.to_thread(hostcheck.surroundings, core.config)
    return Diagnosis(findings, host, mended, problems)


_START_ANEW = "restart the daemon, which leaves out what is broken and says so; networks and processes go on meanwhile"


def _broken(part: str, why: str) -> str:
    return f"{part} is broken in the model ({why}): it stays in the kernel as it is, and nothing left over is removed"


def leases_wanted(core: Core) -> set[tuple[str, str, str]]:
    """What the live endpoints hold, as (network, address, endpoint)."""
    return {
        (network_id, address, endpoint.id)
        for container in core.state.containers.values()
        for network_id, endpoint in container.endpoints.items()
        for address in (endpoint.ip, endpoint.ip6)
        if address and endpoint.dhcp is None
    }


def _stored(core: Core) -> list[Finding]:
    """Where the store disagrees with the model: leases, and operations that never ended."""
    wanted, stored = leases_wanted(core), set(core.store.leases())
    found = [Finding("extra", f"lease {address} of endpoint {owner[:12]}") for _, address, owner in stored - wanted]
    found += [Finding("missing", f"lease {address} of endpoint {owner[:12]}") for _, address, owner in wanted - stored]
    found += [Finding("extra", f"operation: {intent.what}") for intent in core.store.intents()]
    return sorted(found, key=lambda finding: finding.what)


def mend_store(core: Core) -> list[str]:
    """Make leases and operations in the store those of the model; what could not be done."""
    wanted, stored = leases_wanted(core), set(core.store.leases())
    intents = core.store.intents()
    if wanted == stored and not intents:
        return []
    try:
        with core.store.transaction() as t:
            for _, _, owner in stored - wanted:
                t.release(owner)
            for lease in wanted - stored:
                t.lease(*lease)
            for intent in intents:
                t.finish(intent)
    except NetengineError as e:
        return [e.message]
    return []
