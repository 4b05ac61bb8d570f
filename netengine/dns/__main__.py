"""`python -m netengine.dns --control PATH`: open the control socket, give up root, serve until told to stop."""

from __future__ import annotations

import argparse
import gc
import signal
import sys
from pathlib import Path

from netengine.dns import privileges
from netengine.dns.control import Control, listen
from netengine.dns.loop import Loop
from netengine.dns.server import Server
from netengine.errors import NetengineError


def main(arguments: list[str] | None = None) -> int:
    """The process. Its exit status: 0 after `stop`, 1 if it could not begin."""
    parser = argparse.ArgumentParser(prog="netengine.dns", description="the name server of netengined")
    parser.add_argument(
        "--control", type=Path, required=True, metavar="PATH", help="unix socket that the daemon connects to"
    )
    parser.add_argument("--uid", type=int, help="user to become after the control socket is open")
    parser.add_argument("--gid", type=int, help="group to become (default: the number of --uid)")
    parser.add_argument("--server-port", type=int, default=53, help="port of the servers that are asked (default: 53)")
    options = parser.parse_args(arguments)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # a terminal's keys and its end are for the daemon
    try:
        privileges.raise_descriptor_limit()
        sock = listen(options.control)
        privileges.drop(options.uid, options.gid)
    except (NetengineError, OSError) as error:
        print(f"netengine.dns: {error}", file=sys.stderr)
        return 1
    loop = Loop()
    control = Control(loop, Server(loop, options.server_port), sock)
    # Nearly everything lives until it is replaced, and cycles are rare: full collections would only cost latency.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 50, 1000)
    print(f"netengine.dns: listening at {options.control}", file=sys.stderr, flush=True)
    loop.run()
    del control
    return 0


if __name__ == "__main__":
    sys.exit(main())
