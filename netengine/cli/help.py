"""Help pages, rendered from the catalogue and from each command's own description. Loaded only when help is asked for."""

from __future__ import annotations

import os
import shutil
import textwrap

from netengine.cli import catalogue
from netengine.cli.engine import DEFAULT_HOST
from netengine.cli.flags import Command, Flag

EXAMPLE = """\
A session, from nothing to a published service and back (as root, or as a member of the socket's group):

  netengine network create app                        # a bridge, a subnet, a gateway
  netengine run -d --name web --network app -p 8080:80 host python3 -m http.server 80
  curl http://127.0.0.1:8080/                         # through the host's port 8080
  netengine run --rm --network app host ip addr       # a second container, beside it
  netengine ps                                        # what runs, and its ports
  netengine explain app                               # the ip and nft commands behind it
  netengine rm -f web && netengine network rm app"""


def page(words: list[str]) -> str | None:
    """The front page for no words, a group's page, a command's page; None when there is no such thing."""
    if not words:
        return _front()
    if len(words) == 1 and words[0] in catalogue.GROUP_WORDS:
        return _group(words[0])
    found = catalogue.find(" ".join(words).split())
    if found is None or found[1]:
        return None
    return _command(catalogue.load(found[0]))


def _front() -> str:
    lines = [
        "Usage:  netengine [-H URL] COMMAND [ARG...]",
        "",
        "Container networking straight on the Linux kernel, in Docker's words.",
    ]
    for title, rows in catalogue.GROUPS:
        lines += ["", f"{title}:"]
        lines += [f"  {name:<20}{summary}" for name, _, summary in rows]
    lines += [
        "",
        "Docker's longer names work too: netengine container ls, network list, image rm, ...",
        "",
        "Options:",
        "  -H, --host URL           The daemon: unix://PATH, or tcp://HOST:PORT with certificates",
        "      --tlscacert FILE     Trust daemons with a certificate of this authority",
        "      --tlscert FILE       Show the daemon this certificate",
        "      --tlskey FILE        Its key",
        "      --tlsverify          As with Docker's command; tcp:// is always verified",
        "  -v, --version            Print version information and quit",
        "      --help               Print this page, or with a command its own: netengine run --help",
        "",
        "Environment:",
        f"  NETENGINE_HOST           The daemon when -H is not given; else {DEFAULT_HOST}",
        "  NETENGINE_CERT_PATH      Directory of ca.pem, cert.pem and key.pem; else ~/.netengine",
        "",
        'Completion for bash:       eval "$(netengine completion bash)"',
        "",
        EXAMPLE,
    ]
    return "\n".join(lines)


def _group(word: str) -> str:
    rows = {name: text for name, text in catalogue.spellings().items() if name.startswith(f"{word} ")}
    lines = [f"Usage:  netengine {word} COMMAND", "", catalogue.GROUP_WORDS[word], "", "Commands:"]
    lines += [f"  {name.partition(' ')[2]:<14}{summary}" for name, summary in rows.items()]
    lines += ["", f"Run 'netengine {word} COMMAND --help' for more on a command."]
    return "\n".join(lines)


def _command(command: Command) -> str:
    options = "[OPTIONS] " if command.flags else ""
    lines = [f"Usage:  netengine {command.name} {options}{command.arguments}".rstrip(), "", command.summary]
    aliases = [alias for alias, name in catalogue.ALIASES.items() if name == command.name]
    if aliases:
        lines += ["", f"Aliases:  {', '.join(f'netengine {alias}' for alias in aliases)}"]
    if command.flags:
        lines += ["", "Options:"]
        for flag in sorted(command.flags, key=lambda flag: flag.name.lower()):
            lines += _flag(flag)
    if command.notes:
        lines += ["", *textwrap.dedent(command.notes).strip("\n").splitlines()]
    if command.examples:
        lines += ["", "Examples:"]
        for line, meaning in command.examples:
            lines += [f"  {line}", f"      {meaning}"] if meaning else [f"  {line}"]
    return "\n".join(lines)


def _flag(flag: Flag) -> list[str]:
    short = f"-{flag.short}, " if flag.short else "    "
    head = f"  {short}--{flag.name} {flag.value}".rstrip()
    text = flag.help + (f" (default {flag.default})" if flag.default else "") + (" (repeatable)" if flag.many else "")
    wide = max(40, min(_width(), 120) - 34)
    first, *rest = textwrap.wrap(text, wide)
    if len(head) > 32:
        return [head, *(" " * 34 + line for line in (first, *rest))]
    return [f"{head:<34}{first}", *(" " * 34 + line for line in rest)]


def _width() -> int:
    return shutil.get_terminal_size().columns if "COLUMNS" in os.environ or os.isatty(1) else 100
