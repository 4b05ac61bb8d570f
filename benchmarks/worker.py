"""A contender at work inside its host: reads verbs with numbers (`attach 3`), answers with milliseconds, a line each."""

from __future__ import annotations

import sys
import time

from benchmarks import contenders
from benchmarks.contenders.base import run


def main() -> None:
    contender = next(c for c in contenders.ALL if c.__name__ == sys.argv[1])()
    for line in sys.stdin:
        verb, *numbers = line.split()
        # All hosts share one kernel and its RTNL lock: wait for what the contender before has left it to do.
        run(["ip", "link", "set", "lo", "up"])
        began = time.perf_counter()
        own = getattr(contender, verb)(*map(int, numbers))
        taken = (time.perf_counter() - began) * 1000
        print(f"{taken if own is None else own:.3f}", flush=True)


main()
