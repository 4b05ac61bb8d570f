"""Tables in Markdown that are made from the code: what stands between `<!-- table: NAME -->` and `<!-- end -->`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from netengine.api import server, unsupported
from netengine.cli import catalogue
from netengine.kernel import rules, ruleset
from tests import gatewaymodes
from tests.docs import overlay
from tests.kernel import test_parents

_BLOCK = re.compile(r"<!-- table: (?P<name>[a-z-]+) -->\n(?P<text>.*?)<!-- end -->", re.DOTALL)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _code(text: str) -> str:
    return f"`{text}`"


def routes() -> dict[str, list[str]]:
    """The methods of each path, without the router's expressions."""
    methods: dict[str, list[str]] = {}
    for method, path, _ in server._ROUTES:
        shown = re.sub(r"\{(\w+):[^}]*\}", r"{\1}", path)
        if shown != "/networks/":
            methods.setdefault(shown, []).append(method)
    return methods


def _routes() -> str:
    return _table(("path", "methods"), ((_code(path), ", ".join(words)) for path, words in routes().items()))


def _refused() -> str:
    return _table(
        ("field of `HostConfig`", "why"), ((_code(name), why) for name, why in unsupported._REFUSED_HOST.items())
    )


def _warned() -> str:
    names = [f"HostConfig.{name}" for name in unsupported._WARNED_HOST]
    names += [f"Config.{name}" for name in unsupported._WARNED_CONFIG]
    return ", ".join(map(_code, names)) + "\n"


def _commands() -> str:
    out = []
    for title, rows in catalogue.GROUPS:
        out.append(f"### {title}\n\n" + _table(("command", "what it does"), ((_code(n), s) for n, _, s in rows)))
    return "\n".join(out)


def _spellings() -> str:
    return _table(("also", "is"), ((_code(a), _code(name)) for a, name in catalogue.ALIASES.items()))


def _sets(containers: tuple[ruleset.Container, ...] = ruleset.CONTAINERS) -> str:
    def row(c: ruleset.Container) -> tuple[str, ...]:
        value = " . ".join(c.value)
        return _code(c.name), "map" if value else "set", " . ".join(c.key) + (f" → {value}" if value else ""), c.why

    return _table(("name", "kind", "of", "what it holds"), map(row, containers))


def _gateway_modes() -> str:
    return _table(("mode", "from", *gatewaymodes.PROBES), gatewaymodes.as_table(gatewaymodes.EXPECTED))


_COLUMNS = ("web → db", "web → app", "web → wire", "wire → web", "web → host", "host → web")


def _reach(driver: str) -> str:
    """What tests/kernel/test_parents.py expects of the networks of a driver."""
    words = {"y": "yes", "-": "no", " ": ""}

    def row(r: test_parents.Row) -> tuple[str, ...]:
        return str(r).removeprefix(f"{driver} ").replace("up0.50", "on a VLAN"), *(words[cell] for cell in r.expected)

    return _table(("mode", *_COLUMNS), (row(r) for r in test_parents.ROWS if r.driver == driver))


TABLES: dict[str, Callable[[], str]] = {
    "routes": _routes,
    "refused": _refused,
    "warned": _warned,
    "commands": _commands,
    "spellings": _spellings,
    "sets": _sets,
    "gateway-modes": _gateway_modes,
    "reach-macvlan": lambda: _reach("macvlan"),
    "reach-ipvlan": lambda: _reach("ipvlan"),
    "overlay-host": overlay.plain,
    "overlay-encrypted": overlay.encrypted,
    "overlay-mtu": lambda: _table(("underlay", "its MTU", "a network's", "an encrypted network's"), overlay.mtus()),
    "guard-sets": lambda: _sets(ruleset.GUARD),
    "guard-rules": lambda: f"```nft{rules.BRIDGE}```\n",
    "sealing-sets": lambda: _sets(ruleset.SEALING),
    "sealing-rules": lambda: f"```nft{rules.INET}```\n",
}


def names(page: Path) -> list[str]:
    return [match["name"] for match in _BLOCK.finditer(page.read_text())]


def rendered(page: Path) -> str:
    """The page with every table as the code has it now."""
    return _BLOCK.sub(lambda m: f"<!-- table: {m['name']} -->\n{TABLES[m['name']]()}<!-- end -->", page.read_text())
