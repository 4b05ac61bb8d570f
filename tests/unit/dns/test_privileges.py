"""The process has given up root before it reads the first packet."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from netengine.dns.client import spawn

NOBODY = 65534


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has something to give up")
def test_the_process_is_another_user_without_capabilities_or_a_way_back(tmp_path: Path) -> None:
    async def story() -> None:
        server = await spawn(tmp_path / "control", tmp_path / "log", NOBODY, NOBODY)
        assert server.process is not None
        try:
            pid, _ = await server.hello()
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            status = dict(line.split(":", 1) for line in lines)
            assert status["Uid"].split() == status["Gid"].split() == [str(NOBODY)] * 4
            assert status["Groups"].split() == []
            for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
                assert int(status[name], 16) == 0, name
            assert status["NoNewPrivs"].strip() == "1"
            limits = Path(f"/proc/{pid}/limits").read_text().splitlines()
            soft, hard = next(line for line in limits if line.startswith("Max open files")).split()[3:5]
            assert soft == hard
            opened = {os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir()}
            files = {path for path in opened if path.startswith("/")}
            assert files == {"/dev/null", str(tmp_path / "log")}
        finally:
            await server.close()
            server.process.kill()
            server.process.wait(10)

    asyncio.run(story())
