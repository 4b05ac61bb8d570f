"""A probe, run inside a network namespace: `serve PORT` accepts TCP connections for ever; `connect ADDRESS PORT COUNT` prints
how many microseconds each connection took to be made, a line each; `echo PORT` sends UDP datagrams back.
"""

from __future__ import annotations

import socket
import sys
import time


def serve(port: int) -> None:
    with socket.create_server(("0.0.0.0", port), backlog=512) as server:
        print("ready", flush=True)
        while True:
            server.accept()[0].close()


def echo(port: int) -> None:
    with socket.socket(type=socket.SOCK_DGRAM) as server:
        server.bind(("0.0.0.0", port))
        print("ready", flush=True)
        while True:
            server.sendto(*server.recvfrom(2048))


def connect(address: str, port: int, count: int) -> None:
    for _ in range(count):
        with socket.socket() as client:
            began = time.perf_counter()
            client.connect((address, port))
            print(f"{(time.perf_counter() - began) * 1e6:.1f}")


if __name__ == "__main__":
    if sys.argv[1] in ("serve", "echo"):
        {"serve": serve, "echo": echo}[sys.argv[1]](int(sys.argv[2]))
    else:
        connect(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
