"""`netengine publish` and `netengine unpublish`: ports of a container, while it runs."""

from __future__ import annotations

from netengine.cli.flags import Command, Invocation
from netengine.cli.ports import published

TYPE_CHECKING = False
if TYPE_CHECKING:
    from netengine.cli.engine import Json


def _lines(ports: Json) -> list[str]:
    """As `netengine port` prints them."""
    return [
        f"{port} -> {f'[{address}]' if ':' in (address := b['HostIp']) else address}:{b['HostPort']}"
        for port, bindings in ports.items()
        for b in bindings
    ]


def _call(call: Invocation, verb: str) -> int:
    container, *specs = call.arguments
    answer = call.engine.post(f"/netengine/containers/{container}/{verb}", body={"PortBindings": published(specs)})
    for line in _lines(answer["Ports"]):
        print(line)
    return 0


def _publish(call: Invocation) -> int:
    return _call(call, "publish")


def _unpublish(call: Invocation) -> int:
    return _call(call, "unpublish")


PUBLISH = Command(
    "publish",
    "Publish ports of a container, while it runs",
    _publish,
    arguments="CONTAINER PORT [PORT...]",
    completes="container",
    notes="""
        PORT is what -p of run takes, [IP:][HOST:]CONTAINER[/PROTOCOL] with ranges: all of the ports are published, or none.
        Nothing is restarted, and the container keeps its ports when it is. Prints the ports of the host that were taken;
        nothing for a container that does not run yet.
    """,
    examples=(
        ("netengine publish web 8080:80", "port 8080 of the host leads to port 80 of web from now on"),
        ("netengine publish web 127.0.0.1::443 9000-9010:9000-9010/udp", "a free port on loopback; eleven UDP ports"),
    ),
)

UNPUBLISH = Command(
    "unpublish",
    "Withdraw published ports of a container, while it runs",
    _unpublish,
    arguments="CONTAINER PORT [PORT...]",
    completes="container",
    notes="""
        PORT is what -p of run takes. Without a port of the host, all that lead to that port of the container are withdrawn.
        Connections that are open stay open, new ones are refused. Prints what was withdrawn.
    """,
    examples=(
        ("netengine unpublish web 8080:80", "this one port"),
        ("netengine unpublish web 80", "every port that leads to port 80"),
    ),
)
