"""A probe, run inside a network namespace: `serve PORT` accepts TCP connections for ever; `connect ADDRESS PORT COUNT` prints
how many microseconds each connection took to be made, a line each; `echo PORT` sends UDP datagrams back; `await` reads IPv4
addresses, a line each, pings each one every millisecond and prints at which time of the monotonic clock it first answered.
"""

from __future__ import annotations

import contextlib
import socket
import struct
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


def await_answers() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP) as pinger:
        pinger.settimeout(0.001)
        print("ready", flush=True)
        for number, line in enumerate(sys.stdin):
            print(f"{_first_answer(pinger, line.strip(), number):.6f}", flush=True)


def _first_answer(pinger: socket.socket, address: str, number: int) -> float:
    """ICMP echo requests (RFC 792) until one is answered; the kernel fills in checksum and identifier (icmp(7))."""
    request = struct.pack("!BBHHH", 8, 0, 0, 0, number)
    while True:
        with contextlib.suppress(OSError):
            pinger.sendto(request, (address, 0))
            while True:
                answer, who = pinger.recvfrom(2048)
                if who[0] == address and struct.unpack("!H", answer[6:8])[0] == number:
                    return time.monotonic()


if __name__ == "__main__":
    if sys.argv[1] == "await":
        await_answers()
    elif sys.argv[1] in ("serve", "echo"):
        {"serve": serve, "echo": echo}[sys.argv[1]](int(sys.argv[2]))
    else:
        connect(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
