"""`python -m netengine.relay --control FD`: give up root, serve on the inherited control socket until no door is left."""

from __future__ import annotations

import argparse
import gc
import os
import signal
import socket
import sys

from netengine.dns import privileges
from netengine.dns.loop import Loop
from netengine.relay.server import Server


def main(arguments: list[str] | None = None) -> int:
    """The process. Its exit status: 0 when it is not needed any more, 1 if it could not begin."""
    parser = argparse.ArgumentParser(prog="netengine.relay", description="the relay of netengined for IPv6 ports")
    parser.add_argument(
        "--control", type=int, required=True, metavar="FD", help="the listening unix socket that the daemon connects to"
    )
    parser.add_argument("--uid", type=int, help="user to become")
    parser.add_argument("--gid", type=int, help="group to become (default: the number of --uid)")
    options = parser.parse_args(arguments)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    try:
        control = socket.socket(fileno=options.control)
        os.set_inheritable(control.fileno(), False)
        control.listen(8)  # once more: whom the socket belongs to, by SO_PEERCRED, is who has called this last
        privileges.raise_descriptor_limit()
        privileges.drop(options.uid, options.gid)
    except OSError as error:
        print(f"netengine.relay: {error}", file=sys.stderr)
        return 1
    loop = Loop()
    server = Server(loop, control)
    gc.collect()
    gc.freeze()
    loop.run()
    del server
    return 0


if __name__ == "__main__":
    sys.exit(main())
