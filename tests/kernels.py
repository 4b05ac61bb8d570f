"""What the kernel under the tests has.

A test marked `needs("ipvlan")` is skipped where the kernel lacks that kind of link, and says so; `pytest -m needs` runs them
alone.
"""

from __future__ import annotations

import functools
import subprocess

import pytest

CONFIG = {"ipvlan": "CONFIG_IPVLAN", "vlan": "CONFIG_VLAN_8021Q", "macvlan": "CONFIG_MACVLAN", "dummy": "CONFIG_DUMMY"}


def skip_what_lacks(item: pytest.Item) -> None:
    """Skip a test unless the kernel can make links of all kinds that it needs. As root."""
    for mark in item.iter_markers("needs"):
        for kind in mark.args:
            if not has(kind):
                pytest.skip(
                    f"this kernel lacks {kind} links ({CONFIG[kind]}); `scripts/test-vm -m needs` runs this test"
                )


@functools.cache
def has(kind: str) -> bool:
    """Whether the kernel can make links of a kind. Asked in a network namespace that ends with the question."""
    # Without a parent none is made; a kernel that knows the kind says that something else is wrong.
    argv = ["unshare", "--net", "ip", "link", "add", "probe0", "type", kind]
    return "Unknown device type" not in subprocess.run(argv, capture_output=True, text=True).stderr
