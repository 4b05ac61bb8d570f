"""Random requests and random operations for as long as is asked: what `scripts/soak --random` runs."""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.clients.lab import Lab
from tests.faults.driving import drive
from tests.faults.fuzzing import fuzz


def main() -> int:
    words = argparse.ArgumentParser(
        description="Fuzz every route, and drive the API beside a model with faults in between."
    )
    words.add_argument(
        "--random", type=float, required=True, metavar="SECONDS", help="how long each of the two goes on"
    )
    words.add_argument("--seed", type=int, default=random.randrange(1 << 30), help="begin with this one (default: any)")
    given = words.parse_args()
    if os.geteuid() != 0:
        print("soak: this makes network namespaces and needs root", file=sys.stderr)
        return 1
    directory = Path(tempfile.mkdtemp(prefix="netengine-wild-"))
    lab = Lab(directory)
    print(f"seed {given.seed}", file=sys.stderr, flush=True)
    try:
        seen = fuzz(lab, given.random, first_seed=given.seed)
        lab.reset()
        requests, faults = drive(lab, given.random, first_seed=given.seed)
        lab.reset()
    except AssertionError as error:
        print(error)
        print(lab.daemon.tail())
        return 1
    finally:
        lab.close(check=False)
        shutil.rmtree(directory, ignore_errors=True)
    classes = Counter(f"{status // 100}xx" if status else "stream" for *_, status in seen.elements())
    print("| random | requests | faults | wrong |\n| --- | --- | --- | --- |")
    print(f"| routes: {', '.join(f'{n} {name}' for name, n in sorted(classes.items()))} | {seen.total()} | | 0 |")
    print(f"| beside a model | {requests} | {faults} | 0 |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
