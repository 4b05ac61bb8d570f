"""The `netengine` command's entry point: global flags, which command, and what becomes of its errors.

Exit status as Docker's: 1 for a refusal, 125 for wrong flags and for `run` when no process was started, otherwise what the
command returns (126, 127 and a container's own status come from `run` and `exec`); 130 after Ctrl-C.
"""

from __future__ import annotations

import io
import os
import sys

from netengine.cli import catalogue
from netengine.cli.engine import DEFAULT_HOST, Engine
from netengine.cli.flags import HelpWanted, Invocation, Options, parse, switch, text
from netengine.errors import Invalid, NetengineError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from netengine.cli.remote import Certificates

USAGE = 125
"""Exit status for flags that cannot be read."""

FLAGS = (
    text(
        "H host", "URL", f"The daemon: unix://PATH or tcp://HOST:PORT (default: $NETENGINE_HOST, then {DEFAULT_HOST})"
    ),
    switch("tlsverify", "As with Docker's command; a daemon at tcp:// is always spoken to with TLS, and verified"),
    text("tlscacert", "FILE", "Trust daemons with a certificate of this authority"),
    text("tlscert", "FILE", "Show the daemon this certificate"),
    text("tlskey", "FILE", "Its key"),
    switch("v version", "Print version information and quit"),
)


def main(argv: list[str] | None = None) -> int:
    """Run one command line and return its exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that the locale cannot show is no reason to stop
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            return _dispatch(sys.argv[1:] if argv is None else argv)
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader has gone (`| head`): not worth a word. Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141


def _dispatch(argv: list[str]) -> int:
    try:
        options, words = parse(FLAGS, argv, wrapped=True, about="netengine")
    except HelpWanted:
        return _help([])
    except Invalid as error:
        return fail(error, USAGE)
    if options.switch("version"):
        from netengine import __version__

        print(f"netengine version {__version__}")
        return 0
    if not words or words == ["help"]:
        return _help([])
    if words[0] == "help":
        return _help(words[1:])
    found = catalogue.find(words)
    if found is None:
        return _group_or_unknown(words)
    name, rest = found
    command = catalogue.load(name)
    try:
        given, arguments = parse(command.flags, rest, wrapped=command.wrapped, about=f"netengine {name}")
    except HelpWanted:
        return _help([name])
    except Invalid as error:
        return fail(error, USAGE)
    try:
        command.check_arguments(arguments)
    except Invalid as error:
        return fail(error, 1)
    try:
        host = options.text("host") or os.environ.get("NETENGINE_HOST", "") or DEFAULT_HOST
        return command.run(Invocation(Engine(host, lambda: _certificates(options)), given, arguments))
    except NetengineError as error:
        return fail(error, command.failure)


def _certificates(options: Options) -> Certificates:
    from netengine.cli.remote import Certificates

    ca, cert, key = (options.text(name) for name in ("tlscacert", "tlscert", "tlskey"))
    return Certificates.given(ca, cert, key, os.environ)


def fail(error: NetengineError, status: int) -> int:
    """Say what went wrong, in one place and one form, and hand back the exit status."""
    sys.stdout.flush()
    print(f"netengine: {error.message}", file=sys.stderr)
    return status


def _help(words: list[str]) -> int:
    from netengine.cli import help

    page = help.page(words)
    if page is None:
        return _group_or_unknown(words)
    print(page)
    return 0


def _group_or_unknown(words: list[str]) -> int:
    """A group alone shows its commands; anything else is a mistake, and something near may be meant."""
    from netengine.cli import help

    first = words[0]
    if first in catalogue.GROUP_WORDS and (len(words) == 1 or words[1] in ("--help", "-h", "help")):
        print(help.page([first]))
        return 0
    from difflib import get_close_matches

    known = list(catalogue.spellings())
    asked = " ".join(words[:2]) if first in catalogue.GROUP_WORDS else first
    candidates = [name for name in known if name.startswith(f"{first} ")] if first in catalogue.GROUP_WORDS else known
    near = get_close_matches(asked, [*candidates, *catalogue.GROUP_WORDS], n=3, cutoff=0.6)
    hint = f"; did you mean: {', '.join(near)}?" if near else "."
    print(f"netengine: {asked!r} is not a netengine command{hint} See 'netengine --help'", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
