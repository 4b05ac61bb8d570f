"""What the service manager is told: sd_notify(3), without its library. What it tells the daemon lives in `listeners.py`."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import MutableMapping

log = logging.getLogger(__name__)


class Notifier:
    """Sends states such as READY=1 to systemd, or nowhere when systemd did not ask for them."""

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        # Taken out: conmon and runc would report on their own behalf to an address that they find in the environment.
        address = environ.pop("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address

    def __call__(self, *states: str) -> None:
        """Send, and never fail: a daemon must not die of a deaf service manager."""
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                sock.sendto("\n".join(states).encode(), self._address)
        except OSError as error:
            log.warning("systemd was not told %s: %s", " ".join(states), error)

    def ready(self, status: str) -> None:
        """The daemon serves."""
        # MAINPID: with --detach the process that systemd started is not the one that stays.
        self("READY=1", f"MAINPID={os.getpid()}", f"STATUS={status}")

    def stopping(self) -> None:
        """The daemon is on its way out."""
        self("STOPPING=1")
