"""`info`, `version` and `events`: the daemon itself."""

from __future__ import annotations

from netengine.cli import phrases
from netengine.cli.console import complain, warn
from netengine.cli.engine import API, filters
from netengine.cli.flags import Command, Invocation, many, switch, text
from netengine.errors import Invalid, NetengineError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from netengine.cli.engine import Json


def _formatted(value: Json, form: str) -> None:
    from netengine.cli.template import Template

    source = "{{json .}}" if form == "json" else form.replace("\\t", "\t").replace("\\n", "\n")
    print(Template(source).render(value))


def _info(call: Invocation) -> int:
    found = call.engine.get("/info")
    if call.options.given("format"):
        _formatted(found, call.options.text("format"))
        return 0
    for name, value in _facts(found):
        if isinstance(value, list):
            print(f"{name}:")
            for line in value:
                print(f"  {line}")
        else:
            print(f"{name}: {value}")
    for line in found.get("Warnings") or ():
        warn(str(line).removeprefix("WARNING: "))
    return 0


def _facts(found: Json) -> list[tuple[str, str | list[str]]]:
    """What `info` prints, in order; what the daemon does not tell is left out."""
    facts: list[tuple[str, str | list[str]]] = [
        ("Containers", str(found.get("Containers", 0))),
        *((f" {word}", str(found.get(f"Containers{word}", 0))) for word in ("Running", "Paused", "Stopped")),
        ("Images", str(found.get("Images", 0))),
    ]
    for name, key in (
        ("Server Version", "ServerVersion"),
        ("Storage Driver", "Driver"),
        ("Logging Driver", "LoggingDriver"),
        ("Cgroup Version", "CgroupVersion"),
        ("Default Runtime", "DefaultRuntime"),
        ("Kernel Version", "KernelVersion"),
        ("Operating System", "OperatingSystem"),
        ("OSType", "OSType"),
        ("Architecture", "Architecture"),
        ("CPUs", "NCPU"),
        ("Name", "Name"),
        ("ID", "ID"),
        ("Data Root", "DockerRootDir"),
    ):
        if found.get(key) not in (None, ""):
            facts.append((name, str(found[key])))
    if found.get("MemTotal"):
        facts.append(("Total Memory", phrases.binary_size(found["MemTotal"])))
    if drivers := (found.get("Plugins") or {}).get("Network"):
        facts.append(("Network Drivers", " ".join(drivers)))
    if firewall := found.get("FirewallBackend"):
        details = [f"{pair[0]}: {pair[1]}" for pair in firewall.get("Info") or ()]
        facts.append(("Firewall Backend", str(firewall.get("Driver", ""))))
        facts += [("Firewall", details)] if details else []
    swarm = found.get("Swarm") or {}
    if swarm.get("LocalNodeState", "inactive") != "inactive":
        role = "manager" if swarm.get("ControlAvailable") else "worker"
        details = [f"State: {swarm['LocalNodeState']}", f"Role: {role}", f"Node: {swarm.get('NodeID', '')}"]
        details += [f"Address: {swarm.get('NodeAddr', '')}"]
        details += [f"Store: {swarm['Store']}"] if swarm.get("Store") else []
        details += [f"Error: {swarm['Error']}"] if swarm.get("Error") else []
        facts.append(("Cluster", details))
    if labels := found.get("Labels"):
        facts.append(("Labels", [str(label) for label in labels]))
    if pools := found.get("DefaultAddressPools"):
        facts.append(("Default Address Pools", [f"Base: {pool['Base']}, Size: {pool['Size']}" for pool in pools]))
    return facts


def _version(call: Invocation) -> int:
    from platform import machine, python_version

    from netengine import __version__

    client = {
        "Version": __version__,
        "ApiVersion": API.removeprefix("/v"),
        "PythonVersion": python_version(),
        "Os": "linux",
        "Arch": machine(),
        "Host": call.engine.host,
    }
    server, failure = None, ""
    try:
        server = call.engine.get("/version")
    except NetengineError as error:
        failure = error.message  # the client's half is still worth knowing, most of all now
    if call.options.given("format"):
        _formatted({"Client": client, "Server": server}, call.options.text("format"))
    else:
        _section("Client", client, (("Version", "Version"), ("API version", "ApiVersion"), ("Python", "PythonVersion")))
        print(f" {'OS/Arch:':<18}linux/{client['Arch']}\n {'Host:':<18}{client['Host']}")
        if server:
            print()
            _section("Server", server, (("Version", "Version"),))
            least = f" (minimum version {server['MinAPIVersion']})" if server.get("MinAPIVersion") else ""
            print(f" {'API version:':<18}{server.get('ApiVersion', '')}{least}")
            print(f" {'OS/Arch:':<18}{server.get('Os', '')}/{server.get('Arch', '')}")
            _section("", server, (("Kernel", "KernelVersion"), ("Built", "BuildTime")))
            for part in server.get("Components") or ():
                if part.get("Name") not in ("Engine", "netengine"):
                    print(f" {part.get('Name', '')}:\n  {'Version:':<17}{part.get('Version', '')}")
    if failure:
        complain(failure)
        return 1
    return 0


def _section(title: str, values: Json, rows: tuple[tuple[str, str], ...]) -> None:
    if title:
        print(f"{title}:")
    for name, key in rows:
        if values.get(key):
            print(f" {name + ':':<18}{values[key]}")


def _events(call: Invocation) -> int:
    from netengine.cli import moments

    options = call.options
    query = {
        "since": moments.timestamp(options.text("since")),
        "until": moments.timestamp(options.text("until")),
        "filters": filters(options.many("filter")),
    }
    form = options.text("format")
    template = None
    if form and form != "json":
        from netengine.cli.template import Template

        template = Template(form.replace("\\t", "\t").replace("\\n", "\n"))
    import json

    path = "/events"
    if options.switch("audit"):
        if query.pop("filters"):
            raise Invalid("--filter does not go together with --audit: use --format json and a tool such as jq")
        path = "/netengine/audit"
    for event in call.engine.events(path, query):
        if template:
            line = template.render(event)
        elif form == "json":
            line = json.dumps(event, separators=(",", ":"), ensure_ascii=False)
        else:
            line = event_line(event)
        print(line, flush=True)
    return 0


def event_line(event: Json) -> str:
    """An event as one line: time, what happened to what, and its attributes in order."""
    import time

    nanoseconds = int(event.get("timeNano") or int(event.get("time") or 0) * 10**9)
    seconds, fraction = divmod(nanoseconds, 10**9)
    zone = time.strftime("%z", time.localtime(seconds))
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(seconds))
    actor = event.get("Actor") or {}
    attributes = ", ".join(f"{key}={value}" for key, value in sorted((actor.get("Attributes") or {}).items()))
    text = (
        f"{moment}.{fraction:09d}{zone[:3]}:{zone[3:]} {event.get('Type')} {event.get('Action')} {actor.get('ID', '')}"
    )
    return f"{text} ({attributes})" if attributes else text


_FORMAT = text("f format", "FORMAT", "Format output: json, or a Go template")

INFO = Command(
    "info",
    "Display system-wide information",
    _info,
    flags=(_FORMAT,),
    examples=(("netengine info", ""), ("netengine info -f '{{.ServerVersion}}'", "one field")),
)
VERSION = Command(
    "version",
    "Show the version of client and daemon",
    _version,
    flags=(_FORMAT,),
    examples=(("netengine version", ""), ("netengine version -f '{{.Server.Version}}'", "for scripts")),
)
EVENTS = Command(
    "events",
    "Get real time events from the daemon",
    _events,
    flags=(
        switch("audit", "Show who asked for which change instead: all that is kept, then what comes"),
        many("f filter", "KEY=VALUE", "Filter: type, event, container, network, image, label, scope"),
        text("format", "FORMAT", "Format output: json, or a Go template"),
        text("since", "TIME", "Show all events created since a time or a while ago (42m)"),
        text("until", "TIME", "Stream events until this time, then end"),
    ),
    examples=(
        ("netengine events --filter type=network", "networks as they come and go"),
        ("netengine events --since 1h --until 0s --format json", "the last hour, for a program"),
        ("netengine events --audit --until 0s", "who changed what"),
    ),
)
