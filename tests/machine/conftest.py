"""These tests take a whole machine: its systemd, root namespace, next boot. Only `scripts/test-vm --systemd` collects them."""

from __future__ import annotations

import os
from pathlib import Path

if "NETENGINE_BOOT" not in os.environ or not Path("/run/systemd/system").is_dir():
    collect_ignore_glob = ["*"]
