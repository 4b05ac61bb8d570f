"""Docker's flag grammar, and `Command`, the description of a command that parsing, help and completion all read.

Why neither click nor argparse. Where `docker network ls` takes 9.9 ms and a bare interpreter 7.5, `netengine network ls` takes
15.7; importing click makes that 28.9, at the very edge of "under three times docker". argparse would cost but 1 ms, and speaks
another grammar: it takes no `--ipv4=false`, refuses values that start with a dash (`--format '-{{.ID}}'`), and stops at the
first argument (`run IMAGE ls -l`) only through a constant that its manual no longer mentions. The grammar itself is small:

    --name value   --name=value   --switch   --switch=false   -n value   -nvalue   -n=value   -it   --   (the rest is arguments)

Pure: no printing, no network.
"""

from __future__ import annotations

from netengine.errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from netengine.cli.engine import Engine

_TRUE = frozenset(("1", "t", "T", "TRUE", "true", "True"))
_FALSE = frozenset(("0", "f", "F", "FALSE", "false", "False"))


class Flag:
    """One flag. `value` is the word for its value in help ("" for a switch); `many` ones may be repeated.

    `names` holds its letter, if it has one, its name, and older names that are still understood: "n network net".
    """

    __slots__ = ("also", "default", "help", "many", "name", "number", "short", "value")

    def __init__(
        self, names: str, help: str, *, value: str = "", many: bool = False, number: bool = False, default: str = ""
    ) -> None:
        words = names.split()
        self.short = words.pop(0) if len(words[0]) == 1 else ""
        self.name, *self.also = words
        self.value, self.help, self.many, self.number, self.default = value, help, many, number, default


def switch(names: str, help: str, default: str = "") -> Flag:
    """A flag that is there or not."""
    return Flag(names, help, default=default)


def text(names: str, value: str, help: str, default: str = "") -> Flag:
    return Flag(names, help, value=value, default=default)


def number(names: str, value: str, help: str, default: str = "") -> Flag:
    return Flag(names, help, value=value, number=True, default=default)


def many(names: str, value: str, help: str) -> Flag:
    return Flag(names, help, value=value, many=True)


class Options:
    """The flags of one invocation, each read by the type it was declared with."""

    __slots__ = ("_given",)

    def __init__(self) -> None:
        self._given: dict[str, list[str]] = {}

    def add(self, flag: Flag, value: str) -> None:
        self._given.setdefault(flag.name, []).append(value)

    def given(self, name: str) -> bool:
        return name in self._given

    def switch(self, name: str, default: bool = False) -> bool:
        return self._given[name][-1] in _TRUE if name in self._given else default

    def text(self, name: str, default: str = "") -> str:
        return self._given[name][-1] if name in self._given else default

    def number(self, name: str) -> int | None:
        return int(self._given[name][-1]) if name in self._given else None

    def many(self, name: str) -> list[str]:
        return list(self._given.get(name, ()))

    def pairs(self, name: str) -> dict[str, str]:
        """`--name key=value` repeated, as a dictionary; a key without `=` has the empty value."""
        found = {}
        for item in self.many(name):
            key, _, value = item.partition("=")
            if not key:
                raise Invalid(f"invalid value {item!r} for --{name}: write it as key=value")
            found[key] = value
        return found


class Invocation:
    """A command about to run: what was typed, and the daemon to ask."""

    __slots__ = ("arguments", "engine", "options")

    def __init__(self, engine: Engine, options: Options, arguments: list[str]) -> None:
        self.engine, self.options, self.arguments = engine, options, arguments


class Command:
    """A command: all that is needed to parse, explain, complete and run it.

    `arguments` is the usage text ("NETWORK [NETWORK...]"), from which the accepted number follows. `wrapped` commands stop
    reading flags at their first argument, because what follows belongs to the program that they start. `failure` is the exit
    status when the daemon refuses; `completes` says what its arguments name: "network", "container", "image", or several.
    """

    __slots__ = ("arguments", "completes", "examples", "failure", "flags", "name", "notes", "run", "summary", "wrapped")

    def __init__(
        self,
        name: str,
        summary: str,
        run: Callable[[Invocation], int],
        *,
        arguments: str = "",
        flags: Sequence[Flag] = (),
        examples: Sequence[tuple[str, str]] = (),
        notes: str = "",
        wrapped: bool = False,
        failure: int = 1,
        completes: str = "",
    ) -> None:
        self.name, self.summary, self.run = name, summary, run
        self.arguments, self.flags, self.examples, self.notes = arguments, flags, examples, notes
        self.wrapped, self.failure, self.completes = wrapped, failure, completes

    def accepts(self) -> tuple[int, int | None]:
        """Least and greatest number of arguments; None for no limit."""
        words = self.arguments.split()
        least = sum(not word.startswith("[") for word in words)
        return least, None if "..." in self.arguments else len(words)

    def check_arguments(self, arguments: Sequence[str]) -> None:
        least, most = self.accepts()
        if least <= len(arguments) and (most is None or len(arguments) <= most):
            return
        if most == 0:
            wanted = f"takes no arguments, and {arguments[0]!r} is one"
        else:
            count, bound = (least, "exactly") if least == most else (least, "at least")
            if len(arguments) > least and most is not None and least != most:
                count, bound = most, "at most"
            wanted = f"requires {bound} {count} argument{'s' * (count != 1)} ({self.arguments}), not {len(arguments)}"
        raise Invalid(f"'netengine {self.name}' {wanted}. See 'netengine {self.name} --help'")


class HelpWanted(Exception):
    """--help was among the flags. No error: it is how parsing ends early."""


def parse(flags: Sequence[Flag], argv: Sequence[str], *, wrapped: bool, about: str) -> tuple[Options, list[str]]:
    """Split `argv` into options and arguments. `about` is the command for messages ("netengine network ls").

    Raises `Invalid` for an unknown flag or a value of the wrong type, `HelpWanted` for --help (and -h where it is free).
    """
    by_name = {name: flag for flag in flags for name in (flag.name, *flag.also)}
    by_short = {flag.short: flag for flag in flags if flag.short}
    options = Options()
    arguments: list[str] = []
    words = list(argv)
    words.reverse()  # a stack: the next word is the last
    while words:
        word = words.pop()
        if word == "--":
            arguments.extend(reversed(words))
            break
        if not word.startswith("-") or word == "-":
            arguments.append(word)
            if wrapped:
                arguments.extend(reversed(words))
                break
            continue
        if word.startswith("--"):
            name, separator, value = word[2:].partition("=")
            if name == "help":
                raise HelpWanted
            if name not in by_name:
                raise Invalid(f"unknown flag: --{name}{_near(name, by_name)}. See '{about} --help'")
            _store(options, by_name[name], f"--{name}", value if separator else None, words, about)
            continue
        letters = word[1:]
        while letters:
            letter, letters = letters[0], letters[1:]
            if letter not in by_short:
                if letter == "h":
                    raise HelpWanted
                raise Invalid(f"unknown shorthand flag: {letter!r} in {word}. See '{about} --help'")
            flag = by_short[letter]
            if not flag.value and not letters.startswith("="):
                options.add(flag, "true")
                continue
            _store(options, flag, f"-{letter}", letters.removeprefix("=") if letters else None, words, about)
            break
    return options, arguments


def _store(options: Options, flag: Flag, shown: str, value: str | None, words: list[str], about: str) -> None:
    if not flag.value:
        value = "true" if value is None else value
        if value not in _TRUE and value not in _FALSE:
            raise Invalid(f"invalid argument {value!r} for {shown}: it is true or false. See '{about} --help'")
    elif value is None:
        if not words:
            raise Invalid(f"flag needs an argument: {shown} {flag.value}. See '{about} --help'")
        value = words.pop()
    if flag.number:
        digits = value[1:] if value[:1] in ("-", "+") else value
        if not (digits.isascii() and digits.isdigit()):
            raise Invalid(f"invalid argument {value!r} for {shown}: it is a whole number. See '{about} --help'")
    options.add(flag, value)


def _near(word: str, known: object) -> str:
    """`, did you mean --x?` when something known is close. difflib is only loaded for a mistake."""
    from difflib import get_close_matches

    assert isinstance(known, dict)
    near = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (did you mean --{near[0]}?)" if near else ""
