"""What the kernel under the tests has. A test that needs a kind of link that it lacks is skipped, and says so."""

from __future__ import annotations

import subprocess

import pytest

from tests.hosts import Namespace

CONFIG = {"ipvlan": "CONFIG_IPVLAN", "vlan": "CONFIG_VLAN_8021Q", "macvlan": "CONFIG_MACVLAN", "dummy": "CONFIG_DUMMY"}


def require(place: Namespace, *kinds: str) -> None:
    """Skip the test unless the kernel can make links of these kinds. Asked in a namespace of the test's."""
    for kind in kinds:
        if not has(place, kind):
            pytest.skip(f"this kernel lacks {kind} links ({CONFIG[kind]}); scripts/test-vm runs this test")


def has(place: Namespace, kind: str) -> bool:
    """Whether the kernel can make links of a kind."""
    # Without a parent none is made; a kernel that knows the kind says that something else is wrong.
    argv = ["ip", "link", "add", "probe0", "type", kind]
    done = place.inside(lambda: subprocess.run(argv, capture_output=True, text=True))
    if done.returncode == 0:
        place.inside(lambda: subprocess.run(["ip", "link", "delete", "probe0"], check=True))
    return "Unknown device type" not in done.stderr
