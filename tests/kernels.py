"""What the kernel under the tests has.

A test marked `needs("ipvlan")` is skipped where the kernel lacks that kind of link, and says so; so is one marked
`needs("br_netfilter")` where that module is not loaded, which tests do not do, since it acts on the whole machine.
`pytest -m needs` runs these alone.
"""

from __future__ import annotations

import functools
import subprocess
from pathlib import Path

import pytest

LACKING = {
    "ipvlan": "this kernel lacks ipvlan links (CONFIG_IPVLAN)",
    "vlan": "this kernel lacks vlan links (CONFIG_VLAN_8021Q)",
    "br_netfilter": "br_netfilter is not loaded (modprobe br_netfilter; it acts on all bridges of the machine)",
}


def skip_what_lacks(item: pytest.Item) -> None:
    """Skip a test unless the kernel has all that it needs. As root."""
    for mark in item.iter_markers("needs"):
        for what in mark.args:
            if not has(what):
                pytest.skip(f"{LACKING[what]}; `scripts/test-vm -m needs` runs this test")


@functools.cache
def has(what: str) -> bool:
    """Whether br_netfilter is there, or whether the kernel can make links of a kind."""
    if what == "br_netfilter":
        return Path("/proc/sys/net/bridge").exists()
    # Asked in a network namespace that ends with the question. Without a parent no link is made; a kernel that knows the kind
    # says that something else is wrong.
    argv = ["unshare", "--net", "ip", "link", "add", "probe0", "type", what]
    return "Unknown device type" not in subprocess.run(argv, capture_output=True, text=True).stderr
