"""The subset of Go's text/template that --format needs: fields, variables, if/else, with, range, and a few functions.

    {{.Name}}   {{json .}}   {{.Label "key"}}   {{if eq .State "running"}}up{{else}}down{{end}}
    {{range .IPAM.Config}}{{.Subnet}} {{end}}   {{range $name, $net := .NetworkSettings.Networks}}{{$name}} {{end}}
    {{(index (index .NetworkSettings.Ports "80/tcp") 0).HostPort}}

A template is parsed completely before anything is printed. An unknown field is an error that names those that exist: Go's
silence about them has cost users enough. There is no way from a template to anything but the data it is given.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence

from netengine.errors import Invalid

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeAlias

    Value: TypeAlias = Any
    """What a template computes with: JSON values, and callables for methods such as `.Label`."""
    Scope: TypeAlias = dict[str, Value]
    Expression: TypeAlias = Callable[[Value, Scope], Value]
    Node: TypeAlias = Callable[[Value, Scope], str]

_ACTION = re.compile(r"\{\{(-\s)?(.*?)(\s-)?\}\}", re.DOTALL)
_TOKEN = re.compile(
    r"""\s*(?:(?P<string>"(?:[^"\\]|\\.)*"|`[^`]*`)|(?P<number>-?\d+(?:\.\d+)?)|(?P<field>(?:\.[^\W\d]\w*)+)|(?P<dot>\.)
    |(?P<variable>\$\w*)|(?P<word>[^\W\d]\w*)|(?P<sign>:=|[(),|=]))""",
    re.VERBOSE,
)


class Template:
    """A parsed template: `render` it with each value."""

    __slots__ = ("_node",)

    def __init__(self, source: str) -> None:
        self._node = _Parser(source).whole()

    def render(self, value: Value) -> str:
        return self._node(value, {"$": value})


def render_value(value: Value) -> str:
    """A value as Go prints it."""
    if value is None:
        return "<no value>"
    if value is True or value is False:
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return "map[" + " ".join(f"{key}:{render_value(value[key])}" for key in sorted(value)) + "]"
    if isinstance(value, (list, tuple)):
        return "[" + " ".join(render_value(item) for item in value) + "]"
    return str(value)


def field(value: Value, name: str) -> Value:
    """`.name` of a value."""
    if isinstance(value, Mapping):
        if name in value:
            return value[name]
        known = ", ".join(sorted(value)) or "none, it is empty"
        raise Invalid(f"template: no field {name!r} here; there are: {known}")
    if value is None:
        raise Invalid(f"template: no field {name!r}: what it is asked of is empty")
    raise Invalid(f"template: no field {name!r}: {render_value(value)[:40]!r} has no fields")


def _json(value: Value) -> str:
    return json.dumps(dict(value) if isinstance(value, Mapping) else value, separators=(",", ":"), ensure_ascii=False)


def _index(value: Value, *keys: Value) -> Value:
    for key in keys:
        if isinstance(value, Mapping):
            value = value.get(key, "")
        elif isinstance(value, (list, tuple, str)) and isinstance(key, int):
            if not 0 <= key < len(value):
                raise Invalid(f"template: index {key} is out of range, there are {len(value)}")
            value = value[key]
        else:
            raise Invalid(f"template: cannot index {render_value(value)[:40]!r} with {key!r}")
    return value


def _length(value: Value) -> int:
    if value is None:
        return 0
    if isinstance(value, (Mapping, list, tuple, str)):
        return len(value)
    raise Invalid(f"template: {render_value(value)!r} has no length")


def _truncate(text: Value, width: Value) -> str:
    return str(text)[: int(width)]


_FUNCTIONS: dict[str, tuple[Callable[..., Value], int, int | None]] = {
    "json": (_json, 1, 1),
    "index": (_index, 1, None),
    "len": (_length, 1, 1),
    "lower": (lambda text: str(text).lower(), 1, 1),
    "upper": (lambda text: str(text).upper(), 1, 1),
    "title": (lambda text: str(text)[:1].upper() + str(text)[1:], 1, 1),
    "join": (lambda items, separator: str(separator).join(render_value(item) for item in items or ()), 2, 2),
    "split": (lambda text, separator: str(text).split(str(separator)), 2, 2),
    "truncate": (_truncate, 2, 2),
    "println": (lambda *items: " ".join(render_value(item) for item in items) + "\n", 0, None),
    "eq": (lambda first, *others: any(first == other for other in others), 2, None),
    "ne": (lambda first, second: first != second, 2, 2),
    "lt": (lambda first, second: first < second, 2, 2),
    "le": (lambda first, second: first <= second, 2, 2),
    "gt": (lambda first, second: first > second, 2, 2),
    "ge": (lambda first, second: first >= second, 2, 2),
    "not": (lambda value: not value, 1, 1),
    "and": (lambda *values: next((value for value in values if not value), values[-1]), 1, None),
    "or": (lambda *values: next((value for value in values if value), values[-1]), 1, None),
}
"""Name -> what it computes, and how many arguments it takes, at least and at most."""


class _Parser:
    """Recursive descent over the pieces between and inside `{{ }}`; every method returns a function of (dot, variables)."""

    def __init__(self, source: str) -> None:
        self._pieces: list[tuple[bool, str]] = []  # (is an action, its text)
        at, trim = 0, False
        for found in _ACTION.finditer(source):
            self._add_text(source[at : found.start()], trim, bool(found[1]))
            self._pieces.append((True, found[2].strip()))
            at, trim = found.end(), bool(found[3])
        rest = source[at:]
        if "{{" in rest:
            raise Invalid(f"template: {rest[rest.index('{{') :][:30]!r} is not closed with '}}}}'")
        self._add_text(rest, trim, False)
        self._pieces.reverse()
        self._tokens: list[tuple[str, str]] = []
        self._action = ""

    def _add_text(self, text: str, trim_left: bool, trim_right: bool) -> None:
        text = text.lstrip() if trim_left else text
        text = text.rstrip() if trim_right else text
        if text:
            self._pieces.append((False, text))

    def whole(self) -> Node:
        node, end = self._block()
        if end:
            raise Invalid(f"template: {{{{{end}}}}} without an if, range or with before it")
        return node

    def _block(self) -> tuple[Node, str]:
        """Nodes up to the `end` or `else` that closes this block: that action's text, empty at the end of the template."""
        nodes: list[Node] = []
        while self._pieces:
            is_action, text = self._pieces.pop()
            if not is_action:
                nodes.append(_constant(text))
                continue
            if text.startswith("/*"):
                continue
            word = text.partition(" ")[0]
            if word in ("end", "else"):
                return _sequence(nodes), text
            if word in ("if", "with", "range"):
                nodes.append(self._control(word, text.partition(" ")[2]))
                continue
            if word in ("define", "template", "block", "break", "continue"):
                raise Invalid(f"template: {{{{{word}}}}} is not supported; there are: if, else, with, range, end")
            name, expression = self._assignment(text)
            nodes.append(_assign(name, expression) if name else _output(expression))
        return _sequence(nodes), ""

    def _control(self, word: str, text: str) -> Node:
        names: list[str] = []
        if word == "range" and ":=" in text:
            declared, _, text = text.partition(":=")
            names = [name.strip() for name in declared.split(",")]
            if len(names) > 2 or not all(re.fullmatch(r"\$\w+", name) for name in names):
                raise Invalid(f"template: cannot read the variables {declared.strip()!r} of range")
        variable, expression = ("", self._parse(text)) if word == "range" else self._assignment(text)
        body, end = self._block()
        otherwise: Node = _constant("")
        if end.startswith("else"):
            tail = end[4:].strip()
            if tail.startswith("if "):
                otherwise = self._control("if", tail[3:])
                end = "end"  # the inner if has taken it
            elif tail:
                raise Invalid(f"template: cannot read {{{{{end}}}}}")
            else:
                otherwise, end = self._block()
        if end != "end":
            raise Invalid(f"template: {{{{{word} {text.strip()}}}}} has no {{{{end}}}}")
        if word == "range":
            return _range(names, expression, body, otherwise)
        return _condition(variable, expression, body, otherwise, rebinds=word == "with")

    def _assignment(self, text: str) -> tuple[str, Expression]:
        """`$name := pipeline` or a plain pipeline: the name (or nothing), and the expression."""
        found = re.match(r"(\$\w+)\s*:?=(?!=)", text)
        return (found[1], self._parse(text[found.end() :])) if found else ("", self._parse(text))

    def _parse(self, text: str) -> Expression:
        self._action, self._tokens = text.strip(), []
        at = 0
        while at < len(text.rstrip()):
            found = _TOKEN.match(text, at)
            if found is None or found.lastgroup is None:
                raise Invalid(f"template: cannot read {text[at:].strip()[:30]!r} in {{{{{self._action}}}}}")
            # Adjacency carries meaning: `(x).Name` is a field of x, `f .Name` is an argument.
            kind, before = found.lastgroup, self._tokens[-1] if self._tokens else ("", "")
            if kind == "field" and found.start(kind) == at and (before[0] == "variable" or before == ("sign", ")")):
                kind = "member"
            self._tokens.append((kind, found[found.lastgroup]))
            at = found.end()
        if not self._tokens:
            raise Invalid(f"template: {{{{{self._action}}}}} is empty")
        self._tokens.reverse()
        expression = self._pipeline()
        if self._tokens:
            raise Invalid(f"template: unexpected {self._tokens[-1][1]!r} in {{{{{self._action}}}}}")
        return expression

    def _peek(self) -> tuple[str, str]:
        return self._tokens[-1] if self._tokens else ("", "")

    def _pipeline(self) -> Expression:
        expression = self._call(None)
        while self._peek() == ("sign", "|"):
            self._tokens.pop()
            expression = self._call(expression)
        return expression

    def _call(self, piped: Expression | None) -> Expression:
        """A function with arguments, or one operand (which takes arguments when it turns out to be a method)."""
        kind, word = self._peek()
        if kind == "word" and word not in ("true", "false", "nil"):
            self._tokens.pop()
            if word not in _FUNCTIONS:
                raise Invalid(f"template: no function {word!r}; there are: {', '.join(sorted(_FUNCTIONS))}")
            function, least, most = _FUNCTIONS[word]
            arguments = self._arguments(piped)
            if len(arguments) < least or (most is not None and len(arguments) > most):
                raise Invalid(f"template: wrong number of arguments for {word} in {{{{{self._action}}}}}")
            return _apply(word, _constant_value(function), arguments)
        operand = self._operand()
        arguments = self._arguments(piped)
        return _apply(self._action, operand, arguments) if arguments else _method(operand)

    def _arguments(self, piped: Expression | None) -> list[Expression]:
        found = []
        while self._peek()[0] and self._peek() not in (("sign", "|"), ("sign", ")")):
            found.append(self._operand())
        return [*found, piped] if piped else found

    def _operand(self) -> Expression:
        kind, text = self._tokens.pop() if self._tokens else ("", "")
        if kind == "string":
            operand = _constant_value(text[1:-1] if text[0] == "`" else _unquoted(text))
        elif kind == "number":
            operand = _constant_value(float(text) if "." in text else int(text))
        elif kind == "dot":
            operand = lambda dot, scope: dot  # noqa: E731
        elif kind == "field":
            operand = _fields(lambda dot, scope: dot, text)
        elif kind == "variable":
            operand = _variable(text)
        elif kind == "word" and text in ("true", "false", "nil"):
            operand = _constant_value({"true": True, "false": False, "nil": None}[text])
        elif (kind, text) == ("sign", "("):
            operand = self._pipeline()
            if self._peek() != ("sign", ")"):
                raise Invalid(f"template: a ')' is missing in {{{{{self._action}}}}}")
            self._tokens.pop()
        else:
            raise Invalid(f"template: cannot read {{{{{self._action}}}}}" + (f" at {text!r}" if text else ""))
        while self._peek()[0] == "member":
            operand = _fields(operand, self._tokens.pop()[1])
        return operand


def _unquoted(text: str) -> str:
    try:
        return str(json.loads(text, strict=False))
    except ValueError:
        raise Invalid(f"template: cannot read the string {text}") from None


def _constant(text: str) -> Node:
    return lambda dot, scope: text


def _constant_value(value: Value) -> Expression:
    return lambda dot, scope: value


def _sequence(nodes: Sequence[Node]) -> Node:
    return lambda dot, scope: "".join([node(dot, scope) for node in nodes])


def _fields(operand: Expression, path: str) -> Expression:
    def look(dot: Value, scope: Scope) -> Value:
        value = operand(dot, scope)
        for name in path[1:].split("."):
            value = field(value, name)
        return value

    return look


def _variable(name: str) -> Expression:
    def look(dot: Value, scope: Scope) -> Value:
        if name not in scope:
            raise Invalid(f"template: the variable {name} is not defined")
        return scope[name]

    return look


def _apply(name: str, function: Expression, arguments: Sequence[Expression]) -> Expression:
    def call(dot: Value, scope: Scope) -> Value:
        found = function(dot, scope)
        if not callable(found):
            raise Invalid(f"template: {{{{{name}}}}}: {render_value(found)[:40]!r} takes no arguments")
        try:
            return found(*[argument(dot, scope) for argument in arguments])
        except (TypeError, ValueError) as error:
            raise Invalid(f"template: cannot compute {name}: {error}") from None

    return call


def _method(operand: Expression) -> Expression:
    """A method named without arguments is a mistake to be told, not a function to be printed."""

    def look(dot: Value, scope: Scope) -> Value:
        value = operand(dot, scope)
        if callable(value):
            raise Invalid('template: this field takes an argument, as in {{.Label "key"}}')
        return value

    return look


def _output(expression: Expression) -> Node:
    return lambda dot, scope: render_value(expression(dot, scope))


def _assign(name: str, expression: Expression) -> Node:
    def bind(dot: Value, scope: Scope) -> str:
        scope[name] = expression(dot, scope)
        return ""

    return bind


def _condition(name: str, expression: Expression, body: Node, otherwise: Node, *, rebinds: bool) -> Node:
    def choose(dot: Value, scope: Scope) -> str:
        value = expression(dot, scope)
        if name:
            scope = {**scope, name: value}
        if not value:
            return otherwise(dot, scope)
        return body(value if rebinds else dot, scope)

    return choose


def _range(names: Sequence[str], expression: Expression, body: Node, otherwise: Node) -> Node:
    def walk(dot: Value, scope: Scope) -> str:
        value = expression(dot, scope)
        if value is None or (isinstance(value, str) and not value):
            return otherwise(dot, scope)
        if isinstance(value, Mapping):
            items = [(key, value[key]) for key in sorted(value)]
        elif isinstance(value, (list, tuple)):
            items = list(enumerate(value))
        else:
            raise Invalid(f"template: cannot range over {render_value(value)[:40]!r}")
        parts = []
        for key, item in items:
            inner = dict(scope)
            if len(names) == 1:
                inner[names[0]] = item
            elif names:
                inner[names[0]], inner[names[1]] = key, item
            parts.append(body(item, inner))
        return "".join(parts) if items else otherwise(dot, scope)

    return walk
