"""Token buckets on a real kernel: how fast a bounded transfer really is, and that they are read back, replaced and healed."""

from __future__ import annotations

import math
import threading
import time

import pytest

from netengine.kernel.resources import HOST, TokenBucket
from tests.hosts import Namespace
from tests.kernel.machine import RUN_DIR, Lan, Machine

MBIT = 1_000_000
BYTES = 1_500_000


def transfer(sender: Namespace, receiver: Namespace, address: str) -> float:
    """The rate of 1.5 MB by TCP as the receiver sees it, in bits per second."""
    with receiver.listen(5001) as listener, sender.connect(address, 5001, timeout=30) as here:
        there, _ = listener.accept()
        with there:
            there.settimeout(30)
            thread = threading.Thread(target=here.sendall, args=(bytes(BYTES),))
            began, got = time.monotonic(), 0
            thread.start()
            while got < BYTES:
                got += len(there.recv(1 << 18))
            thread.join()
            return BYTES * 8 / (time.monotonic() - began)


def is_between(least: float, most: float, sender: Namespace, receiver: Namespace, address: str) -> bool:
    """Whether the rate is. A busy machine makes one slower now and then, but nothing makes one faster."""
    for _ in range(5):
        found = transfer(sender, receiver, address)
        if not least < found:
            continue
        return found < most
    return False


@pytest.fixture
def lan(machine: Machine) -> Lan:
    return Lan(machine).build()


def test_each_direction_is_as_fast_as_its_own_bucket(machine: Machine, lan: Lan) -> None:
    """Both ways at 8 and 16 Mbit/s: what the bucket holds at first makes it a little faster, a busy machine slower."""
    web, client = lan.sandbox("web", 2), lan.sandbox("client", 3)
    assert is_between(50 * MBIT, math.inf, client, web, "10.1.0.2")
    machine.build({TokenBucket(HOST, "vwebbr0", 8 * MBIT), TokenBucket("web", "eth0", 16 * MBIT)})
    assert is_between(4 * MBIT, 9.5 * MBIT, client, web, "10.1.0.2")
    assert is_between(8 * MBIT, 19 * MBIT, web, client, "10.1.0.3")
    machine.apply((), {TokenBucket(HOST, "vwebbr0", 8 * MBIT), TokenBucket("web", "eth0", 16 * MBIT)})
    assert is_between(50 * MBIT, math.inf, client, web, "10.1.0.2")


@pytest.mark.parametrize("rate", [8000, 10 * MBIT, 100_000 * MBIT, 10**12])
def test_a_bucket_is_read_back_as_it_was_made(machine: Machine, lan: Lan, rate: int) -> None:
    lan.sandbox("web", 2)
    wanted = {TokenBucket(HOST, "vwebbr0", rate), TokenBucket("web", "eth0", rate)}
    machine.build(wanted)
    assert {r for r in machine.observe(machine.built) if isinstance(r, TokenBucket)} == wanted
    machine.heal()
    (shown,) = machine.json("tc", "-j", "qdisc", "show", "dev", "vwebbr0")
    assert (shown["kind"], shown["handle"], shown["options"]["rate"]) == ("tbf", "6e65:", rate // 8)


@pytest.mark.parametrize(
    "command",
    [
        "tc qdisc delete dev vwebbr0 root",
        "tc qdisc replace dev vwebbr0 root tbf rate 1gbit burst 64k latency 9ms",
        "tc qdisc change dev vwebbr0 root handle 6e65: tbf rate 1mbit burst 64k limit 64k",
        f"nsenter --net={RUN_DIR / 'web'} tc qdisc delete dev eth0 root",
        "ip link delete vwebbr0",
    ],
)
def test_what_somebody_did_to_a_bucket_is_mended(machine: Machine, lan: Lan, command: str) -> None:
    lan.sandbox("web", 2)
    wanted = {TokenBucket(HOST, "vwebbr0", 8 * MBIT), TokenBucket("web", "eth0", 8 * MBIT)}
    machine.build(wanted)
    machine.run(*command.split())
    machine.heal()
    assert {r for r in machine.observe(machine.built) if isinstance(r, TokenBucket)} == wanted


def test_a_failure_takes_buckets_back(machine: Machine, lan: Lan) -> None:
    lan.sandbox("web", 2)
    with pytest.raises(Exception, match="there is no link nowhere"):
        machine.build({TokenBucket(HOST, "vwebbr0", 8 * MBIT), TokenBucket("web", "nowhere", 8 * MBIT)})
    (shown,) = machine.json("tc", "-j", "qdisc", "show", "dev", "vwebbr0")
    assert shown["kind"] == "noqueue"
