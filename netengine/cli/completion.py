"""Completion for bash: the script to evaluate, and the hidden command that it asks for candidates on every Tab."""

from __future__ import annotations

import os
from contextlib import suppress

from netengine.cli import catalogue
from netengine.cli.engine import DEFAULT_HOST, Engine
from netengine.cli.flags import Command, Flag, Invocation
from netengine.errors import Invalid, NetengineError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

BASH = r"""_netengine() {
    local IFS=$'\n'
    COMPREPLY=($(netengine __complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -o default -F _netengine netengine"""
"""`-o default` gives file names where there are no candidates, as for --env-file and import."""


def _print_script(call: Invocation) -> int:
    if call.arguments[0] != "bash":
        raise Invalid(f"no completion for {call.arguments[0]!r}: there is one for bash")
    print(BASH)
    return 0


def _complete(call: Invocation) -> int:
    *before, word = call.arguments or [""]
    for candidate in sorted(set(candidates(before, word))):
        if candidate.startswith(word):
            print(candidate)
    return 0


def candidates(before: Sequence[str], word: str) -> Iterator[str]:
    """What may stand after the words `before`, given the beginning `word` (which only picks between flags and names)."""
    words, host = list(before), os.environ.get("NETENGINE_HOST", "") or DEFAULT_HOST
    while words and words[0].startswith("-"):
        flag = words.pop(0)
        if flag in ("-H", "--host") and words:
            host = words.pop(0)
        elif flag in ("--tlscacert", "--tlscert", "--tlskey") and words:
            words.pop(0)
    found = catalogue.find(words)
    if found is None:
        yield from _words(words, word)
        return
    command = catalogue.load(found[0])
    by_name = {name: flag for flag in command.flags for name in _names(flag)}
    last = found[1][-1] if found[1] else ""
    if last in by_name and by_name[last].value:
        if last in ("--network", "--net"):
            yield from _objects(host, "network")
        return
    if word.startswith("-"):
        yield from (f"--{flag.name}" for flag in command.flags)
        yield "--help"
        return
    kinds = command.completes.split()
    if len(kinds) == 2 and command.accepts() == (2, 2):  # one of each, in this order
        given = _arguments(found[1], by_name)
        kinds = kinds[given : given + 1]
    for kind in kinds:
        yield from _objects(host, kind)


def _words(words: Sequence[str], word: str) -> Iterator[str]:
    """Commands: first words, or the second words of a group."""
    if word.startswith("-") and not words:
        yield from ("--host", "--version", "--help")
    elif len(words) == 1 and words[0] in catalogue.GROUP_WORDS:
        yield from (name.partition(" ")[2] for name in catalogue.spellings() if name.startswith(f"{words[0]} "))
    elif not words:
        yield from (name.partition(" ")[0] for name in catalogue.spellings())


def _names(flag: Flag) -> list[str]:
    return [*(f"--{name}" for name in (flag.name, *flag.also)), *([f"-{flag.short}"] if flag.short else [])]


def _arguments(words: Sequence[str], flags: dict[str, Flag]) -> int:
    """How many of the words are arguments, and neither flags nor their values."""
    count, value = 0, False
    for word in words:
        if value:
            value = False
        elif word.startswith("-"):
            value = word in flags and bool(flags[word].value)
        else:
            count += 1
    return count


def _objects(host: str, kind: str) -> Iterator[str]:
    """Names that exist now; none when the daemon cannot be asked, for completion must not complain."""
    with suppress(NetengineError):
        engine = Engine(host)
        if kind == "network":
            yield from (item["Name"] for item in engine.get("/networks"))
        elif kind == "container":
            for item in engine.get("/containers/json", {"all": True}):
                yield from (name.removeprefix("/") for name in item.get("Names") or ())
        elif kind == "image":
            for item in engine.get("/images/json"):
                yield from item.get("RepoTags") or ()


COMPLETION = Command(
    "completion",
    "Print the bash completion script",
    _print_script,
    arguments="bash",
    examples=(
        ('eval "$(netengine completion bash)"', "in this shell; put it into ~/.bashrc for all"),
        ("netengine completion bash > /etc/bash_completion.d/netengine", "for every user"),
    ),
)
COMPLETE = Command("__complete", "Candidates for bash", _complete, arguments="[WORD...]", wrapped=True)
