"""libnftables 1.0.6 ends the process when its socket gets descriptor 1,024 or above: long-lived ones live from 2,048 up."""

from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import resource
from collections.abc import Iterator

import pytest

from netengine.kernel.descriptors import FLOOR, move_up
from netengine.kernel.resources import Element, HostPort, Namespace, Table
from tests.kernel.machine import Machine

MANY = 3000


@pytest.fixture
def room() -> Iterator[None]:
    """A limit on descriptors as the daemon's unit sets one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 3 * MANY)), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_moved_descriptor_is_the_same_file_and_closed_on_exec(room: None) -> None:
    low = os.open("/dev/null", os.O_RDONLY)
    identity = os.fstat(low).st_rdev
    high = move_up(low)
    try:
        assert high >= FLOOR
        assert os.fstat(high).st_rdev == identity
        assert fcntl.fcntl(high, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(low)
    finally:
        os.close(high)


def test_libnftables_works_with_thousands_of_descriptors_open(machine: Machine, room: None) -> None:
    machine.build({Table("ip")})
    with contextlib.ExitStack() as open_files:
        for _ in range(MANY):
            fd = move_up(os.open("/dev/null", os.O_RDONLY))
            open_files.callback(os.close, fd)
        machine.build({Element("ip", "bridges", ("br0",))})


def test_what_the_kernel_layer_keeps_open_is_out_of_the_way(machine: Machine, room: None) -> None:
    low = low_descriptors()
    ports = {HostPort("0.0.0.0", "tcp", n) for n in range(8000, 8050)}
    machine.build({Table("ip"), *(Namespace(f"s{n}") for n in range(50)), *ports})
    assert low_descriptors() <= low


def test_everything_is_closed_at_the_end(machine: Machine, room: None) -> None:
    gc.collect()  # what earlier tests have left goes now, and not meanwhile
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        machine.make({Namespace("s0"), HostPort("0.0.0.0", "tcp", 8000), HostPort("0.0.0.0", "udp", 8000)})
        machine.make(())
    assert len(os.listdir("/proc/self/fd")) == before


def low_descriptors() -> int:
    """Open descriptors below 1,024."""
    return sum(1 for fd in map(int, os.listdir("/proc/self/fd")) if fd < 1024)
