"""`netengine doctor`: every difference between what should be and what is, with its remedy; --fix mends them."""

from __future__ import annotations

from netengine.cli.flags import Command, Invocation, switch, text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from netengine.cli.engine import Json


def report(found: Json, fixed: bool) -> list[str]:
    """The diagnosis as lines of text: differences with the commands that would mend them, then notes on the host."""
    lines: list[str] = []
    mended = found.get("Mended") or ()
    for finding in found.get("Differences") or ():
        done = finding in mended
        lines.append(f"{'mended' if done else finding['State']}: {finding['What']}")
        if not fixed and not done:
            lines += [f"    {line}" for command in finding.get("Commands") or () for line in _short(command)]
    lines += [f"not mended: {problem}" for problem in found.get("Problems") or ()]
    for note in found.get("Host") or ():
        lines.append(f"host ({note['Level']}): {note['What']}")
        lines.append(f"    {note['Remedy']}")
    if found.get("Healthy"):
        lines.append("healthy: kernel, model and store agree")
    elif not fixed and found.get("Differences"):
        lines.append("netengine doctor --fix mends this")
    return lines


def _short(command: str) -> list[str]:
    """The rule set as a command is two pages long: its first line, and where to see it."""
    lines = command.splitlines()
    return lines if len(lines) < 4 else [f"{lines[0]}  # {len(lines)} lines; see: netengine explain bridge"]


def _doctor(call: Invocation) -> int:
    fix = call.options.switch("fix")
    found = call.engine.post("/netengine/doctor") if fix else call.engine.get("/netengine/doctor")
    if call.options.given("format"):
        from netengine.cli.template import Template

        form = call.options.text("format")
        print(Template("{{json .}}" if form == "json" else form).render(found))
    else:
        for line in report(found, fix):
            print(line)
    return 0 if found.get("Healthy") else 1


DOCTOR = Command(
    "doctor",
    "Find what is not as it should be in the kernel, and mend it",
    _doctor,
    flags=(
        switch("fix", "Mend what is found"),
        text("f format", "FORMAT", "Format output: json, or a Go template"),
    ),
    notes="""
        Compares networks, containers and leases with what is in the kernel: links, addresses, routes, rules, sysctls,
        namespaces. Each difference is printed with the commands that would mend it by hand. What is not netengine's is
        neither reported nor touched. Exit status 0 when all is well, 1 when something is not.
    """,
    examples=(
        ("netengine doctor", "what differs, and how to mend it by hand"),
        ("netengine doctor --fix", "mend it"),
    ),
)
