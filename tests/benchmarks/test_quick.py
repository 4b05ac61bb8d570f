"""The benchmarks still run. What they measure is never tested: a busy machine is no defect."""

import subprocess
import sys

from tests.hosts import REPO


def test_a_quick_run_of_the_benchmarks_prints_its_tables():
    argv = [sys.executable, "-m", "benchmarks", "--quick"]
    done = subprocess.run(argv, cwd=REPO, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "| attach | netengine |" in done.stdout
    assert "| detach | ip+nft by hand |" in done.stdout
    assert "`netengine network ls`" in done.stdout
