"""The wall clock jumps, by libfaketime: nothing that waits or is timed takes notice. Who asks that clock at all is listed in
tests/unit/test_clocks.py, and what DHCP leases make of a jump is shown by tests/unit/kernel/test_dhcp_clock.py."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.daemons import Daemon, netengine_cli
from tests.faults.peers import PEERS
from tests.hosts import Host, wait_until
from tests.patience import promised

LIBRARY = PEERS / "usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1"


class Clocked(Daemon):
    """A daemon whose wall clock is set by a file, and whose other clocks are the machine's."""

    offset: Path

    @property
    def argv(self) -> list[str]:
        fake = {
            "LD_PRELOAD": LIBRARY,
            "FAKETIME_TIMESTAMP_FILE": self.offset,
            "FAKETIME_NO_CACHE": 1,
            "FAKETIME_DONT_FAKE_MONOTONIC": 1,
            "DONT_FAKE_MONOTONIC": 1,
        }
        return ["env", *(f"{name}={value}" for name, value in fake.items()), *super().argv]


def restarts(daemon: Daemon, name: str) -> int:
    return int(daemon.request("GET", f"/containers/{name}/json").json["RestartCount"])


@pytest.mark.parametrize(("offset", "year"), [("-900d", -1), ("+900d", 1)], ids=["set back", "set forward"])
def test_nothing_waits_for_the_wall_clock(
    host: Host, make_daemon: Callable[..., Daemon], offset: str, year: int
) -> None:
    if not LIBRARY.exists():
        pytest.fail("libfaketime is not here: run `scripts/install --test`", pytrace=False)
    daemon = make_daemon(host, start=False)
    daemon.__class__ = Clocked
    assert isinstance(daemon, Clocked)
    daemon.offset = host.directory / "offset"
    daemon.offset.write_text("+0\n")
    daemon.start()
    netengine = netengine_cli(daemon)
    netengine("run", "-d", "--name", "again", "--restart", "always", "host", "false")
    stubborn = ["sh", "-c", 'trap "" TERM; while :; do sleep 0.2; done']
    netengine("run", "-d", "--name", "stubborn", "host", *stubborn)
    wait_until(lambda: restarts(daemon, "again") >= 1, "it is started again")

    daemon.offset.write_text(f"{offset}\n")
    netengine("create", "--name", "later", "sandbox")
    created = json.loads(netengine("inspect", "later"))[0]["Created"]
    assert (int(created[:4]) - time.gmtime().tm_year) * year >= 1, f"the daemon's clock did not jump: {created}"

    before = restarts(daemon, "again")
    wait_until(lambda: restarts(daemon, "again") > before, "it is started again after a delay that is still short", 10)
    host.run(["nft", "flush", "ruleset"], check=True)
    wait_until(lambda: "table ip netengine" in host.rules(), "the rules are back")
    began = time.monotonic()
    netengine("stop", "-t", "1", "stubborn")
    took = time.monotonic() - began
    assert took >= 1 and (took < 10 or took < promised(10))
    netengine("rm", "-f", "again", "later", "stubborn")
    assert daemon.request("GET", "/netengine/doctor").json["Differences"] == []
