"""What commands say beside their output: warnings, refusals that do not stop them, questions."""

from __future__ import annotations

import sys

from netengine.cli.transport import Unreachable
from netengine.errors import NetengineError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def warn(text: str) -> None:
    sys.stdout.flush()
    print(f"WARNING: {text}", file=sys.stderr)


def complain(text: str) -> None:
    """An error that does not end the command, in the form that main gives to those that do."""
    sys.stdout.flush()
    print(f"netengine: {text}", file=sys.stderr)


def each(names: Iterable[str], act: Callable[[str], None]) -> int:
    """Do it to every name, go on after a refusal; exit status 1 when any was refused. An unreachable daemon ends it at once."""
    status = 0
    for name in names:
        try:
            act(name)
        except Unreachable:
            raise
        except NetengineError as error:
            complain(error.message)
            status = 1
    return status


def confirmed(warning: str) -> bool:
    """Ask before something that cannot be taken back. No terminal and no answer mean no."""
    print(f"WARNING! {warning}\nAre you sure you want to continue? [y/N] ", end="", flush=True)
    try:
        answer = input()
    except EOFError:
        print()
        return False
    return answer.strip().lower() in ("y", "yes")
