"""The commands on containers that need no stream: ps, stop, restart, kill, port, top, wait, rename, rm, prune."""

from __future__ import annotations

import json
import time

from netengine.cli import phrases
from netengine.cli.console import confirmed, each
from netengine.cli.engine import filters
from netengine.cli.flags import Command, Invocation, many, number, switch, text
from netengine.cli.listing import Listing, label, labels, print_table
from netengine.cli.transport import quote
from netengine.errors import Invalid, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from netengine.cli.engine import Json


def _ps(call: Invocation) -> int:
    options = call.options
    last = 1 if options.switch("latest") else options.number("last")
    query = {
        "all": options.switch("all") or last is not None,
        "limit": last if last is not None and last > 0 else None,
        "size": options.switch("size"),
        "filters": filters(options.many("filter")),
    }
    found = call.engine.get("/containers/json", query)
    listing = _listing(options.switch("no-trunc"))
    columns = (*listing.columns, "Size") if options.switch("size") else listing.columns
    listing.show(found, options, columns)
    return 0


def _listing(whole: bool) -> Listing:
    def command(item: Json) -> str:
        text = str(item.get("Command") or "")
        # Quoted as a string of code: a command may hold line breaks, and a table must not.
        return json.dumps(text if whole else phrases.shortened(text, 20), ensure_ascii=False)

    def image(item: Json) -> str:
        name = str(item.get("Image") or "<no image>")
        return phrases.short_id(name) if name.startswith("sha256:") and not whole else name

    def names(item: Json) -> str:
        # "/web" is its own name; "/db/web" is how a linked container calls it: shown only with --no-trunc.
        own = [name.removeprefix("/") for name in item.get("Names") or ()]
        return ",".join(own if whole else [name for name in own if "/" not in name])

    def size(item: Json) -> str:
        text = phrases.size(item.get("SizeRw") or 0)
        return f"{text} (virtual {phrases.size(item['SizeRootFs'])})" if item.get("SizeRootFs") else text

    def created(item: Json) -> str:
        from netengine.cli import moments

        return moments.local(item["Created"])

    def mounts(item: Json) -> str:
        return ",".join(str(mount.get("Name") or mount.get("Source") or "") for mount in item.get("Mounts") or ())

    def networks(item: Json) -> str:
        return ",".join(sorted((item.get("NetworkSettings") or {}).get("Networks") or {}))

    return Listing(
        {
            "ID": ("CONTAINER ID", lambda item: item["Id"] if whole else item["Id"][:12]),
            "Image": ("IMAGE", image),
            "Command": ("COMMAND", command),
            "RunningFor": ("CREATED", lambda item: phrases.span(time.time() - item["Created"]) + " ago"),
            "CreatedAt": ("CREATED AT", created),
            "Status": ("STATUS", lambda item: str(item.get("Status") or "")),
            "State": ("STATE", lambda item: str(item.get("State") or "")),
            "Ports": ("PORTS", lambda item: phrases.ports(item.get("Ports") or ())),
            "Names": ("NAMES", names),
            "Labels": ("LABELS", labels),
            "Label": ("", label),
            "Mounts": ("MOUNTS", mounts),
            "Networks": ("NETWORKS", networks),
            "Size": ("SIZE", size),
        },
        ("ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names"),
        "ID",
    )


def _stopping(verb: str) -> Command:
    """`stop` and `restart`: the same flags, the same call."""

    def run(call: Invocation) -> int:
        query = {"t": call.options.number("timeout"), "signal": call.options.text("signal")}

        def act(name: str) -> None:
            call.engine.post(f"/containers/{quote(name)}/{verb}", query)
            print(name)

        return each(call.arguments, act)

    return Command(
        verb,
        "Stop one or more running containers" if verb == "stop" else "Restart one or more containers",
        run,
        arguments="CONTAINER [CONTAINER...]",
        completes="container",
        flags=(
            text("s signal", "SIGNAL", "Signal to send to the container (default SIGTERM, or the container's own)"),
            number("t timeout time", "SECONDS", "Seconds to wait before it is killed; -1 for ever"),
        ),
        examples=((f"netengine {verb} web", ""), (f"netengine {verb} -t 1 web db", "with little patience")),
    )


def _kill(call: Invocation) -> int:
    def kill(name: str) -> None:
        call.engine.post(f"/containers/{quote(name)}/kill", {"signal": call.options.text("signal", "KILL")})
        print(name)

    return each(call.arguments, kill)


def _rm(call: Invocation) -> int:
    force = call.options.switch("force")
    query = {"force": force, "v": call.options.switch("volumes"), "link": call.options.switch("link")}

    def remove(name: str) -> None:
        try:
            # A leading slash is how the API shows names; as an argument it means the same container.
            call.engine.delete(f"/containers/{quote(name.strip('/') or name)}", query)
        except NotFound:
            if not force:
                raise
        else:
            print(name)

    return each(call.arguments, remove)


def _wait(call: Invocation) -> int:
    def wait(name: str) -> None:
        print(call.engine.post(f"/containers/{quote(name)}/wait")["StatusCode"], flush=True)

    return each(call.arguments, wait)


def _rename(call: Invocation) -> int:
    old, new = call.arguments
    if not new.strip():
        raise Invalid(f"the new name {new!r} is empty: give {old} a name of letters, digits, '_', '.' or '-'")
    call.engine.post(f"/containers/{quote(old)}/rename", {"name": new})
    return 0


def _port(call: Invocation) -> int:
    name, *asked = call.arguments
    found = call.engine.get(f"/containers/{quote(name)}/json")
    ports: Json = (found.get("NetworkSettings") or {}).get("Ports") or {}
    if asked:
        wanted = asked[0] if "/" in asked[0] else f"{asked[0]}/tcp"
        if not ports.get(wanted):
            published = ", ".join(_in_order({port for port, bindings in ports.items() if bindings})) or "none"
            raise NotFound(f"no public port '{wanted}' published for {name}; published: {published}")
        ports = {wanted: ports[wanted]}
    for port in _in_order(ports):
        for binding in ports[port] or ():
            place = phrases.host_port(binding.get("HostIp") or "0.0.0.0", binding["HostPort"])
            print(place if asked else f"{port} -> {place}")
    return 0


def _in_order(ports: object) -> list[str]:
    """Ports such as "80/tcp" by number, then protocol."""
    assert isinstance(ports, (dict, set))
    return sorted(ports, key=lambda port: (int(port.partition("/")[0]), port))


def _top(call: Invocation) -> int:
    name, *arguments = call.arguments
    found = call.engine.get(f"/containers/{quote(name)}/top", {"ps_args": " ".join(arguments)})
    print_table([found["Titles"], *found["Processes"]], least=20)
    return 0


def _prune(call: Invocation) -> int:
    if not call.options.switch("force") and not confirmed("This will remove all stopped containers."):
        return 0
    answer = call.engine.post("/containers/prune", {"filters": filters(call.options.many("filter"))})
    if answer.get("ContainersDeleted"):
        print("Deleted Containers:", *answer["ContainersDeleted"], "", sep="\n")
    print(f"Total reclaimed space: {phrases.size(answer.get('SpaceReclaimed') or 0, 4)}")
    return 0


PS = Command(
    "ps",
    "List containers",
    _ps,
    flags=(
        switch("a all", "Show all containers (default shows just running)"),
        many(
            "f filter", "KEY=VALUE", "Filter: name, id, status, network, label, publish, expose, ancestor, exited, ..."
        ),
        text("format", "FORMAT", "Format output: table, 'table TEMPLATE', json, or a Go template"),
        number("n last", "N", "Show n last created containers (includes all states)"),
        switch("l latest", "Show the latest created container (includes all states)"),
        switch("no-trunc", "Do not truncate the output"),
        switch("q quiet", "Only display container IDs"),
        switch("s size", "Display total file sizes"),
    ),
    examples=(
        ("netengine ps -a --filter network=app", "running or not, on the network app"),
        ("netengine ps --format 'table {{.Names}}\\t{{.Ports}}'", "two columns of your choice"),
    ),
)
STOP = _stopping("stop")
RESTART = _stopping("restart")
KILL = Command(
    "kill",
    "Kill one or more running containers",
    _kill,
    arguments="CONTAINER [CONTAINER...]",
    completes="container",
    flags=(text("s signal", "SIGNAL", "Signal to send to the container", "KILL"),),
    examples=(("netengine kill -s HUP web", "tell it to read its configuration again"),),
)
RM = Command(
    "rm",
    "Remove one or more containers",
    _rm,
    arguments="CONTAINER [CONTAINER...]",
    completes="container",
    flags=(
        switch("f force", "Force the removal of a running container (uses SIGKILL)"),
        switch("l link", "Remove the specified link"),
        switch("v volumes", "Remove anonymous volumes associated with the container"),
    ),
    examples=(("netengine rm -f web", "kill it if it runs, and remove it"),),
)
WAIT = Command(
    "wait",
    "Block until containers stop, then print their exit codes",
    _wait,
    arguments="CONTAINER [CONTAINER...]",
    completes="container",
    examples=(("netengine wait job", "prints 0 when it went well"),),
)
RENAME = Command(
    "rename",
    "Rename a container",
    _rename,
    arguments="CONTAINER NEW_NAME",
    completes="container",
    examples=(("netengine rename web web-old", ""),),
)
PORT = Command(
    "port",
    "List port mappings of a container",
    _port,
    arguments="CONTAINER [PRIVATE_PORT[/PROTO]]",
    completes="container",
    examples=(("netengine port web", "80/tcp -> 0.0.0.0:8080"), ("netengine port web 80", "0.0.0.0:8080")),
)
TOP = Command(
    "top",
    "Display the running processes of a container",
    _top,
    arguments="CONTAINER [PS_OPTION...]",
    completes="container",
    wrapped=True,
    examples=(("netengine top web", ""), ("netengine top web -o pid,comm", "with the columns of ps that you name")),
)
PRUNE = Command(
    "container prune",
    "Remove all stopped containers",
    _prune,
    flags=(
        many("filter", "KEY=VALUE", "Only those with label=..., label!=... or until=..."),
        switch("f force", "Do not prompt for confirmation"),
    ),
    examples=(("netengine container prune -f", "unasked"),),
)
