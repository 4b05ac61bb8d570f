"""`netengine node ...`: the nodes of the cluster, as a manager sees and changes them."""

from __future__ import annotations

from netengine.cli.console import each
from netengine.cli.engine import filters
from netengine.cli.flags import Command, Invocation, many, switch, text
from netengine.cli.transport import quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from netengine.cli.engine import Engine, Json


def _ls(call: Invocation) -> int:
    from netengine.cli.listing import Listing

    found = call.engine.get("/nodes", {"filters": filters(call.options.many("filter"))})
    listing = Listing(
        {
            "ID": ("ID", lambda item: item["ID"]),
            "Hostname": ("HOSTNAME", lambda item: item["Description"]["Hostname"]),
            "Address": ("ADDRESS", lambda item: item["Status"]["Addr"]),
            "Status": ("STATUS", lambda item: item["Status"]["State"]),
            "Availability": ("AVAILABILITY", lambda item: item["Spec"]["Availability"]),
            "ManagerStatus": ("MANAGER", _manager),
            "EngineVersion": ("VERSION", lambda item: item["Description"]["Engine"]["EngineVersion"]),
        },
        ("ID", "Hostname", "Address", "Status", "Availability", "ManagerStatus", "EngineVersion"),
        "ID",
    )
    listing.show(found, call.options)
    return 0


def _manager(item: Json) -> str:
    status = item.get("ManagerStatus") or {}
    return "leader" if status.get("Leader") else str(status.get("Reachability", "-"))


def _inspect(call: Invocation) -> int:
    from netengine.cli.inspect import show

    return show(call, lambda name: call.engine.get(f"/nodes/{quote(name)}"))


def _change(engine: Engine, name: str, changes: Json) -> None:
    """Change some fields of a node's specification, and leave the others."""
    node = engine.get(f"/nodes/{quote(name)}")
    engine.post(f"/nodes/{node['ID']}/update", {"version": node["Version"]["Index"]}, {**node["Spec"], **changes})


def _to(role: str, said: str) -> Command:
    def run(call: Invocation) -> int:
        def act(name: str) -> None:
            _change(call.engine, name, {"Role": role})
            print(f"{name} is a {role} now" if role == "worker" else f"{name} becomes a manager")

        return each(call.arguments, act)

    word = "promote" if role == "manager" else "demote"
    example = ((f"netengine node {word} h2", "by its host name"),)
    return Command(f"node {word}", said, run, arguments="NODE [NODE...]", examples=example)


def _update(call: Invocation) -> int:
    (name,) = call.arguments
    options = call.options
    node = call.engine.get(f"/nodes/{quote(name)}")
    labels = {key: value for key, value in node["Spec"]["Labels"].items() if key not in options.many("label-rm")}
    changes: Json = {"Labels": labels | options.pairs("label-add")}
    for flag, key in (("availability", "Availability"), ("role", "Role")):
        if options.given(flag):
            changes[key] = options.text(flag)
    _change(call.engine, name, changes)
    print(name)
    return 0


def _rm(call: Invocation) -> int:
    def act(name: str) -> None:
        call.engine.delete(f"/nodes/{quote(name)}", {"force": call.options.switch("force")})
        print(name)

    return each(call.arguments, act)


LS = Command(
    "node ls",
    "List the nodes of the cluster",
    _ls,
    flags=(
        many("f filter", "KEY=VALUE", "Filter: id, name, role, membership, node.label"),
        text("format", "FORMAT", "Format output: table, 'table TEMPLATE', json, or a Go template"),
        switch("q quiet", "Only display IDs"),
    ),
    examples=(("netengine node ls --filter role=manager", ""),),
)
INSPECT = Command(
    "node inspect",
    "Display detailed information on one or more nodes",
    _inspect,
    arguments="NODE|self [NODE...]",
    flags=(text("f format", "FORMAT", "Format output: json, or a Go template"),),
    examples=(("netengine node inspect -f '{{.Status.Addr}}' self", "this host's address in the cluster"),),
)
UPDATE = Command(
    "node update",
    "Change a node's labels, availability or role",
    _update,
    arguments="NODE",
    flags=(
        many("label-add", "KEY=VALUE", "Add or change a label"),
        many("label-rm", "KEY", "Remove a label"),
        text("availability", "WORD", "active, pause or drain"),
        text("role", "WORD", "worker or manager"),
    ),
    examples=(("netengine node update --label-add zone=a h2", ""),),
)
PROMOTE = _to("manager", "Make one or more nodes managers")
DEMOTE = _to("worker", "Make one or more managers workers")
RM = Command(
    "node rm",
    "Forget one or more nodes that are down",
    _rm,
    arguments="NODE [NODE...]",
    flags=(switch("f force", "Nodes that are up too"),),
    examples=(("netengine node rm h3", ""),),
)
