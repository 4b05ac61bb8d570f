"""The measure itself: what the bystander's flow calls a loss is one, and slowness is none."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.faults.harness import FaultLab
from tests.hosts import wait_until


@contextmanager
def stopped(lab: FaultLab, seconds: float) -> Iterator[None]:
    """The bystander gets no processor for that long, as on a machine that is too busy."""
    pid = lab.ask("GET", "/containers/bystander/json").json["State"]["Pid"]
    lab.here.run(["kill", f"-{signal.SIGSTOP.value}", str(pid)], check=True)
    again = threading.Timer(seconds, lab.here.run, [["kill", f"-{signal.SIGCONT.value}", str(pid)]])
    again.start()
    try:
        yield
    finally:
        again.join()


def test_a_bystander_that_answers_late_lost_nothing(fault_lab: FaultLab) -> None:
    flow = fault_lab.flow
    before = flow.lost()
    with stopped(fault_lab, 1.5):
        sent = flow.sent
        wait_until(lambda: flow.sent > sent, "a packet is under way")
        assert flow.lost() == before
    wait_until(lambda: flow.sent > sent + 5, "it goes on")


def test_a_segment_that_is_sent_twice_for_want_of_an_acknowledgement_is_not_lost(fault_lab: FaultLab) -> None:
    """A sender with a timeout far shorter than the receiver's delayed acknowledgement (40 ms)."""
    flow, outside = fault_lab.flow, fault_lab.outside
    before, again = flow.lost(), flow.sent_again()
    (route,) = outside.ip("route", "show", "192.0.2.0/24").splitlines()
    outside.ip("route", "replace", *route.split(), "rto_min", "5ms")
    try:
        with stopped(fault_lab, 0.3):
            wait_until(lambda: flow.sent_again() > again, "a segment is sent again")
    finally:
        outside.ip("route", "replace", *route.split())
    assert flow.lost() == before


@pytest.mark.parametrize("protocol", ["udp", "tcp"])
def test_a_packet_that_is_dropped_is_counted(fault_lab: FaultLab, protocol: str) -> None:
    flow, here = fault_lab.flow, fault_lab.here
    before = flow.lost()
    rules = f"""
        table ip thief {{
            chain steal {{
                type filter hook prerouting priority -400
                {protocol} dport 9000-9001 ip length != 52 limit rate 1/hour burst 1 packets counter drop
            }}
        }}"""  # 52: an acknowledgement alone, which nobody misses
    here.run(["nft", "-f", "-"], stdin=rules, check=True)
    try:
        wait_until(lambda: "packets 0" not in here.run(["nft", "list", "table", "ip", "thief"]).stdout, "a theft")
    finally:
        here.run(["nft", "delete", "table", "ip", "thief"], check=True)
    assert flow.lost() > before
