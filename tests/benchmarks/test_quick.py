"""The benchmarks still run. What they measure is never tested: a busy machine is no defect."""

import subprocess
import sys

from tests.hosts import REPO


def test_a_quick_run_of_the_benchmarks_prints_its_tables():
    argv = [sys.executable, "-m", "benchmarks", "--quick"]
    done = subprocess.run(argv, cwd=REPO, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    for row in (
        "| attach | netengine |",
        "| attach with a published port | C floor |",
        "| detach | ip+nft by hand |",
        "| whole run with a port | netengine |",
        "| the kernel: links, addresses, routes |",
        "connect, 1 to 20 endpoints",
        "endpoints, 30 ports in the kernel the daemon was killed",
        "| container to container | netengine |",
        "| another machine to a published port | no NAT, no rule |",
        "| without `filter-forward` |",
        "| host to host | VXLAN by hand |",
        "| 1 sandbox, 20 names | netengine |",
        "| forwarded, 20 names known | bare responder, in C |",
        "`netengine network ls`",
    ):
        assert row in done.stdout


def test_a_part_that_does_not_exist_is_named():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "speed"], cwd=REPO, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 2
    assert "there is no part speed; there are operations," in done.stderr
