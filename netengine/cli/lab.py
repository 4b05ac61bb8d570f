"""`netengine lab ...`: virtual hosts on this machine, with a daemon each, on a switch of their own."""

from __future__ import annotations

import os

from netengine.cli.flags import Command, Invocation, number, switch, text
from netengine.errors import Invalid, NotFound
from netengine.lab import hosts, lab
from netengine.lab.record import DIRECTORY, opened


def _up(call: Invocation) -> int:
    wanted = call.arguments[0] if call.arguments else "3"
    if not (wanted.isascii() and wanted.isdigit()):
        raise Invalid(f"invalid number of hosts {wanted!r}: netengine lab up 3")
    managers = call.options.number("managers")
    if managers is not None and managers < 1:
        raise Invalid(f"a cluster has at least one manager, not {managers}: netengine lab up 3 --managers 1")
    subnet = call.options.text("subnet") or (lab.SUBNET6 if call.options.switch("ipv6") else lab.SUBNET)
    if call.options.switch("ipv6") and ":" not in subnet:
        raise Invalid(
            f"--ipv6 and --subnet {subnet} contradict each other: give an IPv6 network, or leave one of them out"
        )
    record = lab.up(int(wanted), subnet, managers=managers or 0)
    for name, node in record.hosts.items():
        print(f"{name}  {node.address}  unix://{record.socket(name)}")
    return 0


def _down(call: Invocation) -> int:
    for name in lab.down():
        print(name)
    return 0


def _status(call: Invocation) -> int:
    from netengine.cli.listing import print_table

    rows = [
        (
            host.name,
            host.address,
            "up" if host.serves else "daemon away" if host.alive else "dead",
            ", ".join(host.cut_from) or "-",
            str(host.socket),
        )
        for host in lab.status()
    ]
    print_table([("HOST", "ADDRESS", "STATUS", "CUT OFF FROM", "SOCKET"), *rows])
    return 0


def _exec(call: Invocation) -> int:
    name, *argv = call.arguments
    with opened(DIRECTORY) as record:
        node = record.host(name)
        environment = hosts.environment(record, name)
    try:
        os.execvpe("nsenter", hosts.inside(node, argv), environment)
    except FileNotFoundError:
        raise NotFound("nsenter is not installed: apt-get install util-linux") from None


def _partition(call: Invocation) -> int:
    a, b = call.arguments
    lab.partition(a, b)
    return 0


def _heal(call: Invocation) -> int:
    if len(call.arguments) == 1:
        raise Invalid("name two hosts, or none to join all: netengine lab heal h1 h2")
    pair = call.arguments or ["", ""]
    for a, b in lab.heal(pair[0], pair[1]):
        print(f"{a} {b}")
    return 0


_NOTES = """
Everything of a lab is below /run/netengine-lab: sockets, logs, data. The machine's own network is not touched: hosts and switch
are namespaces. On a host the commands docker and netengine speak to its own daemon; from outside give its socket:
docker -H unix:///run/netengine-lab/h1.sock ps
"""

UP = Command(
    "lab up",
    "Start virtual hosts on this machine, each with a daemon, on a switch of their own",
    _up,
    arguments="[COUNT]",
    flags=(
        text("subnet", "SUBNET", "Network of the switch, IPv4 or IPv6 in CIDR (default: 192.168.99.0/24)"),
        switch("ipv6", "Hosts have IPv6 addresses alone on the switch, those of fd00:99::/64 without --subnet"),
        number(
            "managers", "COUNT", "Make the hosts one cluster, the first COUNT of them managers (default: no cluster)"
        ),
    ),
    examples=(
        ("three hosts", "netengine lab up 3"),
        ("and the same as a cluster", "netengine lab up 3 --managers 1"),
        ("a cluster over IPv6 alone", "netengine lab up 3 --managers 1 --ipv6"),
    ),
    notes=_NOTES,
)
DOWN = Command(
    "lab down",
    "End the lab and all that runs in it; nothing is left",
    _down,
    examples=(("the end", "netengine lab down"),),
)
STATUS = Command(
    "lab status",
    "Show the hosts of the lab, their daemons, and who is cut off from whom",
    _status,
    examples=(("who is there", "netengine lab status"),),
)
EXEC = Command(
    "lab exec",
    "Run a command on a host of the lab",
    _exec,
    arguments="HOST COMMAND [ARG...]",
    wrapped=True,
    examples=(
        ("a container on the second host", "netengine lab exec h2 docker run -d --name web host sleep 1000"),
        ("from the first host to the second", "netengine lab exec h1 ping -c 1 192.168.99.2"),
    ),
)
PARTITION = Command(
    "lab partition",
    "Cut two hosts of the lab off from each other",
    _partition,
    arguments="HOST HOST",
    examples=(("as if the cable between them were cut", "netengine lab partition h1 h3"),),
)
HEAL = Command(
    "lab heal",
    "Join two hosts of the lab again, or all",
    _heal,
    arguments="[HOST] [HOST]",
    examples=(("the one pair", "netengine lab heal h1 h2"), ("every pair", "netengine lab heal")),
)
