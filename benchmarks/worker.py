"""A contender at work inside its host: reads `prepare N`, `attach N` and `detach N`, answers with milliseconds, a line each."""

from __future__ import annotations

import sys
import time

from benchmarks import contenders


def main() -> None:
    contender: contenders.Contender = getattr(contenders, sys.argv[1])()
    for line in sys.stdin:
        verb, number = line.split()
        # All hosts share one kernel and its RTNL lock: wait for what the contender before has left it to do.
        contenders.run(["ip", "link", "set", "lo", "up"])
        began = time.perf_counter()
        getattr(contender, verb)(int(number))
        print(f"{(time.perf_counter() - began) * 1000:.3f}", flush=True)


main()
