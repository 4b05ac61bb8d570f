"""`netengine network ...`: create, list, inspect, connect, disconnect, remove and prune networks."""

from __future__ import annotations

from netengine.cli.console import confirmed, each, warn
from netengine.cli.engine import filters
from netengine.cli.flags import Command, Invocation, Options, many, number, switch, text
from netengine.cli.listing import Listing, label, labels
from netengine.cli.transport import quote
from netengine.errors import NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from netengine.cli.engine import Json, Query


def _create(call: Invocation) -> int:
    options = call.options
    body: Json = {
        "Name": call.arguments[0],
        "Driver": options.text("driver", "bridge"),
        "Scope": options.text("scope"),
        "Internal": options.switch("internal"),
        "Attachable": options.switch("attachable"),
        "ConfigOnly": options.switch("config-only"),
        "IPAM": {
            "Driver": options.text("ipam-driver", "default"),
            "Options": options.pairs("ipam-opt"),
            "Config": _pools(options),
        },
        "Options": options.pairs("opt"),
        "Labels": options.pairs("label"),
    }
    for name, key in (("ipv4", "EnableIPv4"), ("ipv6", "EnableIPv6")):
        if options.given(name):
            body[key] = options.switch(name)
    if options.given("config-from"):
        body["ConfigFrom"] = {"Network": options.text("config-from")}
        if not options.given("driver"):
            body["Driver"] = ""
    answer = call.engine.post("/networks/create", body=body)
    if answer.get("Warning"):
        warn(answer["Warning"])
    print(answer["Id"])
    return 0


def _pools(options: Options) -> list[Json]:
    """The address flags, joined by subnet; ipaddress is only loaded when there are any."""
    subnets, ranges, gateways = (_listed(options.many(name)) for name in ("subnet", "ip-range", "gateway"))
    auxiliary = options.pairs("aux-address")
    if not (subnets or ranges or gateways or auxiliary):
        return []
    from netengine.cli.pools import assemble

    return assemble(subnets, ranges, gateways, auxiliary)


def _listed(values: list[str]) -> list[str]:
    """Several values: the flag repeated, or separated by commas."""
    return [part.strip() for value in values for part in value.split(",") if part.strip()]


def _created(item: Json) -> str:
    from netengine.cli import moments

    found = moments.parse(str(item.get("Created") or ""))
    return moments.local(found[0]) if found else str(item.get("Created") or "")


def _flag(item: Json, key: str) -> str:
    return "true" if item.get(key) else "false"


def _ls(call: Invocation) -> int:
    found = call.engine.get("/networks", {"filters": filters(call.options.many("filter"))})
    whole = call.options.switch("no-trunc")
    listing = Listing(
        {
            "ID": ("NETWORK ID", lambda item: item["Id"] if whole else item["Id"][:12]),
            "Name": ("NAME", lambda item: item["Name"]),
            "Driver": ("DRIVER", lambda item: item["Driver"]),
            "Scope": ("SCOPE", lambda item: item["Scope"]),
            "IPv4": ("IPV4", lambda item: _flag(item, "EnableIPv4")),
            "IPv6": ("IPV6", lambda item: _flag(item, "EnableIPv6")),
            "Internal": ("INTERNAL", lambda item: _flag(item, "Internal")),
            "Labels": ("LABELS", labels),
            "Label": ("", label),
            "CreatedAt": ("CREATED AT", _created),
        },
        ("ID", "Name", "Driver", "Scope"),
        "ID",
    )
    listing.show(sorted(found, key=lambda item: (item["Name"], item["Id"])), call.options)
    return 0


def _inspect(call: Invocation) -> int:
    from netengine.cli.inspect import show

    query: Query = {"verbose": call.options.switch("verbose"), "scope": call.options.text("scope")}
    return show(call, lambda name: call.engine.get(f"/networks/{quote(name)}", query))


def _connect(call: Invocation) -> int:
    network, container = call.arguments
    options = call.options
    addresses = {
        "IPv4Address": options.text("ip"),
        "IPv6Address": options.text("ip6"),
        "LinkLocalIPs": options.many("link-local-ip"),
    }
    endpoint: Json = {
        "IPAMConfig": {key: value for key, value in addresses.items() if value},
        "Links": options.many("link"),
        "Aliases": options.many("alias"),
        "DriverOpts": options.pairs("driver-opt"),
        "GwPriority": options.number("gw-priority") or 0,
    }
    call.engine.post(
        f"/networks/{quote(network)}/connect",
        body={"Container": container, "EndpointConfig": {key: value for key, value in endpoint.items() if value}},
    )
    return 0


def _disconnect(call: Invocation) -> int:
    network, container = call.arguments
    body = {"Container": container, "Force": call.options.switch("force")}
    call.engine.post(f"/networks/{quote(network)}/disconnect", body=body)
    return 0


def _rm(call: Invocation) -> int:
    def remove(name: str) -> None:
        try:
            call.engine.delete(f"/networks/{quote(name)}")
        except NotFound:
            if not call.options.switch("force"):
                raise
        else:
            print(name)

    return each(call.arguments, remove)


def _prune(call: Invocation) -> int:
    if not call.options.switch("force") and not confirmed("This will remove all networks not used by a container."):
        return 0
    answer = call.engine.post("/networks/prune", {"filters": filters(call.options.many("filter"))})
    if answer.get("NetworksDeleted"):
        print("Deleted Networks:", *answer["NetworksDeleted"], "", sep="\n")
    return 0


CREATE = Command(
    "network create",
    "Create a network",
    _create,
    arguments="NETWORK",
    flags=(
        switch("attachable", "Enable manual container attachment"),
        many("aux-address", "NAME=IP", "Address to leave alone, because something else has it"),
        text("config-from", "NETWORK", "The network from which to copy the configuration"),
        switch("config-only", "Create a configuration only network"),
        text("d driver", "NAME", "Driver of the network", "bridge"),
        many("gateway", "IP", "Gateway of the subnet; the first address when not given"),
        switch("internal", "Restrict external access to the network"),
        many("ip-range", "CIDR", "Allocate container addresses from this part of the subnet"),
        text("ipam-driver", "NAME", "IP address management driver", "default"),
        many("ipam-opt", "KEY=VALUE", "Set IPAM driver specific options"),
        switch("ipv4", "Enable or disable IPv4 address assignment", "true"),
        switch("ipv6", "Enable or disable IPv6 address assignment"),
        many("label", "KEY=VALUE", "Set metadata on the network"),
        many("o opt", "KEY=VALUE", "Set driver specific options"),
        text("scope", "SCOPE", "Control the network's scope"),
        many("subnet", "CIDR", "Subnet; the next free default pool when not given"),
    ),
    examples=(
        ("netengine network create app", "a bridge with the next free subnet"),
        ("netengine network create --subnet 10.9.0.0/24 --gateway 10.9.0.254 db", "with addresses of your choice"),
        ("netengine network create --internal -o com.docker.network.driver.mtu=9000 backend", "cut off, jumbo frames"),
    ),
)

LS = Command(
    "network ls",
    "List networks",
    _ls,
    flags=(
        many("f filter", "KEY=VALUE", "Filter: name, id, driver, label, scope, type, dangling"),
        text("format", "FORMAT", "Format output: table, 'table TEMPLATE', json, or a Go template"),
        switch("no-trunc", "Do not truncate the output"),
        switch("q quiet", "Only display network IDs"),
    ),
    examples=(
        ("netengine network ls --filter driver=bridge", "bridge networks only"),
        ("netengine network ls --format 'table {{.Name}}\\t{{.Internal}}'", "two columns of your choice"),
    ),
)

INSPECT = Command(
    "network inspect",
    "Display detailed information on one or more networks",
    _inspect,
    arguments="NETWORK [NETWORK...]",
    completes="network",
    flags=(
        text("f format", "FORMAT", "Format output: json, or a Go template"),
        text("scope", "SCOPE", "Look in this scope only"),
        switch("v verbose", "Verbose output for diagnostics"),
    ),
    examples=(
        ("netengine network inspect app", "everything, as JSON"),
        ("netengine network inspect -f '{{range .IPAM.Config}}{{.Subnet}}{{end}}' app", "its subnet"),
    ),
)

CONNECT = Command(
    "network connect",
    "Connect a container to a network",
    _connect,
    arguments="NETWORK CONTAINER",
    completes="network container",
    flags=(
        many("alias", "NAME", "Add network-scoped alias for the container"),
        many("driver-opt", "KEY=VALUE", "Driver options for the endpoint"),
        number("gw-priority", "N", "The highest priority provides the default gateway; negative values too"),
        text("ip", "IP", "IPv4 address (e.g., 172.30.100.104)"),
        text("ip6", "IP", "IPv6 address (e.g., 2001:db8::33)"),
        many("link", "CONTAINER[:ALIAS]", "Add link to another container"),
        many("link-local-ip", "IP", "Add a link-local address for the container"),
    ),
    examples=(
        ("netengine network connect app web", "give web one more interface, while it runs"),
        ("netengine network connect --ip 10.9.0.7 --alias cache db web", "with an address and a name of its own"),
    ),
)

DISCONNECT = Command(
    "network disconnect",
    "Disconnect a container from a network",
    _disconnect,
    arguments="NETWORK CONTAINER",
    completes="network container",
    flags=(switch("f force", "Force the container to disconnect from the network"),),
    examples=(("netengine network disconnect app web", "take the interface away; the container runs on"),),
)

RM = Command(
    "network rm",
    "Remove one or more networks",
    _rm,
    arguments="NETWORK [NETWORK...]",
    completes="network",
    flags=(switch("f force", "Do not error if the network does not exist"),),
    examples=(("netengine network rm app db", "the others are removed even when one is refused"),),
)

PRUNE = Command(
    "network prune",
    "Remove all unused networks",
    _prune,
    flags=(
        many("filter", "KEY=VALUE", "Only those with label=..., label!=... or until=..."),
        switch("f force", "Do not prompt for confirmation"),
    ),
    examples=(("netengine network prune -f --filter until=24h", "unused ones older than a day, unasked"),),
)
