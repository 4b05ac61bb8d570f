"""`netengine inspect`, and the printing that every `... inspect` shares: a JSON array, or a template for each object."""

from __future__ import annotations

import json

from netengine.cli.console import complain
from netengine.cli.flags import Command, Invocation, switch, text
from netengine.cli.transport import Unreachable, quote
from netengine.errors import Invalid, NetengineError, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from netengine.cli.engine import Json

KINDS = {"container": "/containers/{}/json", "network": "/networks/{}", "image": "/images/{}/json"}
"""What can be looked at, in the order in which a bare name is tried."""


def show(call: Invocation, fetch: Callable[[str], Json]) -> int:
    """Fetch and print every argument; those not found are told after the rest, and make the exit status 1."""
    form = call.options.text("format")
    found, failures = [], []
    for name in call.arguments:
        try:
            found.append(fetch(name))
        except Unreachable:
            raise
        except NetengineError as error:
            failures.append(error.message)
    if form and form != "json":
        from netengine.cli.template import Template

        template = Template(form.replace("\\t", "\t").replace("\\n", "\n"))
        for item in found:
            print(template.render(item))
    elif form == "json":
        print(json.dumps(found, separators=(",", ":"), ensure_ascii=False))
    else:
        print(json.dumps(found, indent=4, ensure_ascii=False))
    for message in failures:
        complain(message)
    return 1 if failures else 0


def _inspect(call: Invocation) -> int:
    asked = call.options.text("type")
    if asked and asked not in KINDS:
        raise Invalid(f"{asked!r} is not a valid value for --type: it is one of {', '.join(KINDS)}")
    kinds = [asked] if asked else list(KINDS)

    def fetch(name: str) -> Json:
        for kind in kinds:
            query = {"size": call.options.switch("size")} if kind == "container" else None
            try:
                return call.engine.get(KINDS[kind].format(quote(name)), query)
            except NotFound:
                continue
        raise NotFound(f"No such {asked or 'container, network or image'}: {name}")

    return show(call, fetch)


def _only(kind: str) -> Callable[[Invocation], int]:
    def run(call: Invocation) -> int:
        query = {"size": call.options.switch("size")} if kind == "container" else None
        return show(call, lambda name: call.engine.get(KINDS[kind].format(quote(name)), query))

    return run


_FORMAT = text("f format", "FORMAT", "Format output: json, or a Go template")
_SIZE = switch("s size", "Display total file sizes of containers")

INSPECT = Command(
    "inspect",
    "Return low-level information on containers, networks or images",
    _inspect,
    arguments="NAME|ID [NAME|ID...]",
    completes="container network image",
    flags=(_FORMAT, _SIZE, text("type", "TYPE", "Look for a container, a network or an image only")),
    examples=(
        ("netengine inspect web", "everything, as JSON"),
        (
            "netengine inspect -f '{{range $name, $net := .NetworkSettings.Networks}}{{$name}} {{$net.IPAddress}}{{end}}' web",
            "its networks and addresses",
        ),
        (
            "netengine inspect -f '{{(index (index .NetworkSettings.Ports \"80/tcp\") 0).HostPort}}' web",
            "the host port behind its port 80",
        ),
    ),
)

CONTAINER_INSPECT = Command(
    "container inspect",
    "Display detailed information on one or more containers",
    _only("container"),
    arguments="CONTAINER [CONTAINER...]",
    completes="container",
    flags=(_FORMAT, _SIZE),
    examples=(("netengine container inspect -f '{{.State.Pid}}' web", "the process to enter"),),
)

IMAGE_INSPECT = Command(
    "image inspect",
    "Display detailed information on one or more images",
    _only("image"),
    arguments="IMAGE [IMAGE...]",
    completes="image",
    flags=(_FORMAT,),
    examples=(("netengine image inspect -f '{{json .Config}}' host", "its defaults"),),
)
