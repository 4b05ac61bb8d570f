"""These tests take a whole machine: its systemd, root namespace, next boot. Only `scripts/test-vm --systemd` collects them."""

from __future__ import annotations

import os

if "NETENGINE_BOOT" not in os.environ:
    collect_ignore_glob = ["*"]
