"""`netengine policy add | ls | inspect | rm`: who may talk to whom."""

from __future__ import annotations

from netengine.cli.flags import Command, Invocation, switch, text
from netengine.errors import Invalid, NetengineError

TYPE_CHECKING = False
if TYPE_CHECKING:
    pass


def _add(call: Invocation) -> int:
    options = call.options
    allow, deny = options.switch("allow"), options.switch("deny")
    if allow == deny:
        raise Invalid("give either --allow or --deny")
    if not options.given("from") and not options.given("to"):
        raise Invalid("give --from, --to, or both")
    body = {
        "Action": "allow" if allow else "deny",
        "From": options.text("from"),
        "To": options.text("to"),
        "Protocol": options.text("protocol"),
        "Ports": options.text("port"),
    }
    print(call.engine.post("/netengine/policies", body=body)["Id"][:12])
    return 0


def _ls(call: Invocation) -> int:
    from netengine.cli.listing import Listing

    whole = call.options.switch("no-trunc")
    listing = Listing(
        {
            "ID": ("POLICY ID", lambda item: item["Id"] if whole else item["Id"][:12]),
            "Action": ("ACTION", lambda item: item["Action"]),
            "From": ("FROM", lambda item: item["From"]),
            "To": ("TO", lambda item: item["To"]),
            "Traffic": ("TRAFFIC", lambda item: item["Traffic"]),
            "Status": ("STATUS", lambda item: "active" if item["Active"] else "waiting"),
            "CreatedAt": ("CREATED AT", lambda item: item["Created"]),
        },
        ("ID", "Action", "From", "To", "Traffic", "Status"),
        "ID",
    )
    listing.show(call.engine.get("/netengine/policies"), call.options)
    return 0


def _inspect(call: Invocation) -> int:
    import json

    found = [call.engine.get(f"/netengine/policies/{reference}") for reference in call.arguments]
    print(json.dumps(found, indent=4))
    return 0


def _rm(call: Invocation) -> int:
    from netengine.cli.main import fail

    status = 0
    for reference in call.arguments:
        try:
            call.engine.delete(f"/netengine/policies/{reference}")
            print(reference)
        except NetengineError as error:
            status = fail(error, 1)
    return status


ADD = Command(
    "policy add",
    "Allow or deny connections between containers or networks",
    _add,
    flags=(
        switch("allow", "Let these connections pass, between networks too"),
        switch("deny", "Let them not pass"),
        text("from", "NAME", "Who opens the connection: a container, a network, or any (default)"),
        text("to", "NAME", "To whom: a container, a network, or any (default)"),
        text(
            "p port", "PORT[-PORT][/PROTOCOL]", "Ports of the target (tcp unless it says otherwise); all when not given"
        ),
        text("protocol", "PROTOCOL", "tcp, udp, sctp or icmp; all when not given"),
    ),
    notes="""
        Where a name is both a container's and a network's, write container:NAME or network:NAME. The policy follows its ends:
        it applies to their addresses as they start, stop, move and are renamed, and to a new one of the same name.
        The closest policy decides: one between two containers before one between a container and a network, that before one
        between two networks, that before one to or from any; for the same two ends ports before protocols before everything.
        Prints the policy's id.
    """,
    examples=(
        ("netengine policy add --deny --from web --to db --port 5432/tcp", "web cannot reach PostgreSQL in db"),
        ("netengine policy add --deny --to shop", "nobody reaches network shop, unless a closer policy allows it"),
        ("netengine policy add --allow --from front --to network:back -p 8080-8089", "open a way between two networks"),
    ),
)

LS = Command(
    "policy ls",
    "List policies",
    _ls,
    flags=(
        text("format", "FORMAT", "Format output: table, 'table TEMPLATE', json, or a Go template"),
        switch("no-trunc", "Do not truncate the output"),
        switch("q quiet", "Only display IDs"),
    ),
    notes="A policy is waiting while one of its ends has no address: it does not run, or does not exist any more.",
    examples=(("netengine policy ls", "all policies"),),
)

INSPECT = Command(
    "policy inspect",
    "Display policies with their nftables elements",
    _inspect,
    arguments="POLICY [POLICY...]",
    examples=(("netengine policy inspect 4d1f", "by the beginning of its id"),),
)

RM = Command(
    "policy rm",
    "Remove one or more policies",
    _rm,
    arguments="POLICY [POLICY...]",
    examples=(("netengine policy rm 4d1f", "by the beginning of its id"),),
)
