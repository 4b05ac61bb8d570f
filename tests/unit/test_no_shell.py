"""No shell and no commands made of text: read from the source, for the whole of netengine.

What may reach nft is shown by test_nothing_unchecked_gets_into_a_rule (unit/kernel/test_nftables.py).
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "netengine"
MODULES = [str(path.relative_to(SOURCE)) for path in sorted(SOURCE.rglob("*.py"))]

BANNED = {
    "os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "asyncio.create_subprocess_shell", "eval",
    "exec", "compile", "pickle.loads", "pickle.load", "marshal.loads", "yaml.load",
}  # fmt: skip
RULES = {"kernel/nftables.py", "kernel/ruleset.py", "kernel/nameservice.py"}
_COMMANDS = tuple(
    f"{verb} {what} " for verb in ("add", "delete", "flush") for what in ("rule", "chain", "table", "element")
)
SAYS = {"observe/explain.py", "observe/doctor.py"}
"""Modules that write commands for people to read."""


@cache
def parsed(name: str) -> ast.Module:
    return ast.parse((SOURCE / name).read_text())


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


@pytest.mark.parametrize("name", MODULES)
def test_nothing_is_run_by_a_shell_or_evaluated(name: str) -> None:
    for called, node in calls(parsed(name)):
        assert called not in BANNED, f"{name}:{node.lineno} calls {called}"
        given = {keyword.arg: keyword.value for keyword in node.keywords}
        assert "shell" not in given, f"{name}:{node.lineno} says shell="


@pytest.mark.parametrize("name", MODULES)
def test_programs_are_started_with_a_vector_of_arguments(name: str) -> None:
    """A single text as the command would be split or looked up as a whole: it never is one."""
    for called, node in calls(parsed(name)):
        if called.startswith("subprocess.") and called.split(".")[1] in (
            "run",
            "Popen",
            "call",
            "check_call",
            "check_output",
        ):
            assert not isinstance(node.args[0], ast.JoinedStr | ast.Constant | ast.BinOp), f"{name}:{node.lineno}"


def test_two_modules_speak_to_nft() -> None:
    """One for the host, one for sandboxes, whose rules are constant but for two numbers of ports."""
    speaking = {name for name in MODULES if any(called.endswith(".cmd") for called, _ in calls(parsed(name)))}
    assert speaking == {"kernel/nftables.py", "kernel/nameservice.py"}


@pytest.mark.parametrize("name", sorted({*MODULES} - RULES - SAYS))
def test_no_other_module_writes_rules(name: str) -> None:
    for node in ast.walk(parsed(name)):
        if isinstance(node, ast.JoinedStr):
            first = node.values[0]
            text = first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else ""
            assert not text.startswith(_COMMANDS), f"{name}:{node.lineno} writes a command of nft: {ast.unparse(node)}"


@pytest.mark.parametrize("name", MODULES)
def test_values_reach_sql_as_parameters(name: str) -> None:
    """A statement is a constant; what is written into one is a constant of the module, in capitals."""
    for called, node in calls(parsed(name)):
        if not called.endswith((".execute", ".executescript", ".executemany")) or "_db" not in called:
            continue
        statement = node.args[0]
        parts = statement.values if isinstance(statement, ast.JoinedStr) else [statement]
        for part in parts:
            inserted = ast.unparse(part.value) if isinstance(part, ast.FormattedValue) else ""
            constant = isinstance(part, ast.Constant) or inserted.isupper()
            assert constant, f"{name}:{node.lineno}: {ast.unparse(statement)}"
