"""Our nftables tables: transactions of elements, and reading our own tables back. Through libnftables, in process, but for what
is sent thousands of times (elements.py).

Text that reaches nft is made of the constant rule set and of values that were checked to be an address, a port, a protocol or
a link name. Tables of other programs are never listed: a newer nft's table can crash an older parser. A handle is not
thread-safe and works in the network namespace of the thread that made it; only the kernel thread uses one.
"""

from __future__ import annotations

import json
import re
import secrets
from collections import Counter
from collections.abc import Iterable, Sequence
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Any, Literal

from nftables import Nftables

from netengine import failpoints
from netengine.errors import Conflict, KernelRefused
from netengine.kernel import elements as packing
from netengine.kernel import nfbatch, ruleset
from netengine.kernel.resources import Element, Family, Table, TableFamily

_LINK = re.compile(r'[^\s"/\\\x00-\x1f]{1,15}')
_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_PROTOCOLS = {"tcp", "udp", "sctp"}
VERDICTS = {"accept", "drop", "jump policies"}
_RENAME = "give it another name where it is made (/etc/nftables.conf?), and delete this one: nft delete table {}"
_CHUNK = 2000
"""Elements in one command: libnftables' memory use grows faster than the number of elements."""


def _part(family: TableFamily, kind: ruleset.Part, value: str) -> str:
    """The value as nft text. Raises ValueError for anything that is not of its kind: nothing unchecked becomes a rule."""
    version = 6 if family == "ip6" else 4
    if "%" in value:  # what follows, the zone of an IPv6 address, may be any text (RFC 4007), and ipaddress keeps it
        raise ValueError(f"not a {kind} of table {family}: {value!r}")
    match kind:
        case "address" if (address := ip_address(value)).version == version:
            return str(address)
        case "prefix" if (prefix := ip_network(value)).version == version:
            return str(prefix)
        case "port":
            if not value.isascii() or not value.isdigit() or not 0 < int(value) < 65536:
                raise ValueError(f"not a port: {value!r}")
            return value
        case "ports" if _is_span(value, 0, 65535):
            return value
        case "protocols" if value in _PROTOCOLS | {"icmp", "ipv6-icmp"} or _is_span(value, 1, 255):
            return value
        case "protocol" if value in _PROTOCOLS:
            return value
        case "verdict" if value in VERDICTS:
            return value
        case "ethertype" if value == family:
            return value
        case "mac" if _MAC.fullmatch(value):
            return value
        case "address6":
            return str(IPv6Address(value))
        case "target":
            return f"{int(IPv6Address(value)):#034x}"
        case "link" if _LINK.fullmatch(value):
            return f'"{value}"'
    raise ValueError(f"not a {kind} of table {family}: {value!r}")


def _is_span(value: str, least: int, most: int) -> bool:
    match = re.fullmatch(r"(0|[1-9][0-9]{0,4})(?:-([1-9][0-9]{0,4}))?", value)
    return match is not None and least <= int(match[1]) <= int(match[2] or match[1]) <= most


def element_text(element: Element) -> str:
    """`"br0" . "br0" : accept`: the element as nft writes it between braces."""
    container = ruleset.container(element.container)
    if len(element.parts) != len(container.key) or len(element.value) != len(container.value):
        raise ValueError(f"{element} does not have the form of {container}")
    out = _parts(element.family, container.key, element.parts)
    if element.value:
        out += " : " + _parts(element.family, container.value, element.value)
    return out


def _parts(family: TableFamily, kinds: tuple[ruleset.Part, ...], values: tuple[str, ...]) -> str:
    return " . ".join(_part(family, kind, value) for kind, value in zip(kinds, values, strict=True))


def commands(verb: Literal["add", "delete"], elements: Iterable[Element]) -> list[str]:
    """nft commands that add or delete the elements, few per set or map."""
    grouped: dict[tuple[str, str], list[str]] = {}
    for e in elements:
        text = element_text(e)
        if verb == "delete":
            text = text.partition(" : ")[0]
        grouped.setdefault((e.family, e.container), []).append(text)
    out = []
    for (family, name), texts in grouped.items():
        for start in range(0, len(texts), _CHUNK):
            out.append(
                f"{verb} element {family} {ruleset.TABLE} {name} {{ {', '.join(texts[start : start + _CHUNK])} }}"
            )
    return out


class Nft:
    """A libnftables handle in the network namespace of the thread that creates it."""

    def __init__(self) -> None:
        self._nft = Nftables()
        self._socket = nfbatch.open_socket()

    def close(self) -> None:
        self._socket.close()

    def change(self, verb: Literal["add", "delete"], elements: Sequence[Element]) -> None:
        """Add or delete elements in one transaction. Raises KernelRefused, with the kernel's words in it."""
        if not 0 < len(elements) <= packing.MOST or not all(map(packing.is_plain, elements)):
            self.run(commands(verb, elements))
            return
        texts = [element_text(e) for e in elements]
        try:
            failpoints.refuse("nftables: a transaction")
            nfbatch.carry_out(self._socket, packing.batch(verb, elements))
        except OSError as e:
            first = f"{elements[0].family} {ruleset.TABLE} {elements[0].container} {{ {texts[0]} }}"
            more = f" and {len(texts) - 1} more" if len(texts) > 1 else ""
            raise KernelRefused(f"nftables refused: {e.strerror}: {verb} element {first}{more}") from e

    def run(self, lines: list[str]) -> None:
        """Run all commands as one transaction: all of it happens, or nothing. Raises KernelRefused with nft's words."""
        if not lines:
            return
        try:
            failpoints.refuse("nftables: a transaction")
        except OSError as e:
            raise KernelRefused(f"nftables refused: {e.strerror}") from e
        code, _, error = self._nft.cmd("\n".join(lines))
        if code != 0:
            raise KernelRefused(f"nftables refused: {' '.join(error.split())}")

    def list_table(self, family: str) -> list[dict[str, Any]] | None:
        """Our table of that family as libnftables' JSON objects; None where it does not exist."""
        self._nft.set_json_output(True)
        try:
            code, output, error = self._nft.cmd(f"list table {family} {ruleset.TABLE}")
        finally:
            self._nft.set_json_output(False)
        if code != 0:
            if "No such file or directory" in error or "not supported" in error:
                return None
            raise KernelRefused(f"nftables refused to list table {family} {ruleset.TABLE}: {' '.join(error.split())}")
        objects: list[dict[str, Any]] = json.loads(output)["nftables"]
        return objects

    def load(self, table: Table, elements: Iterable[Element] = ()) -> set[Element]:
        """Make the constant part of our table anew and fill it, in one transaction: no packet finds the rules without their
        elements, or neither. Answers the elements that were in the table before.

        The user's chain is kept, and a damaged table of this very version is mended around whatever else a user has put into
        it: the sets of his rules must be in their table. A table of another version is replaced, so that none of its rules
        stays behind; unless the user's rules need what is lost with it. One of somebody else is left alone: raises Conflict.
        """
        objects = self._own(table)
        filling = commands("add", elements)
        mended, anew = _mended(table, objects), self._anew(table)
        same = any(entry.get("chain", {}).get("name") == ruleset.version(table.family) for entry in objects)
        first, second = (mended, anew) if same else (anew, mended)
        try:
            self.run(first + filling)
        except KernelRefused:
            self.run(second + filling)
        try:
            return read_elements(objects, table.family)
        except (KeyError, TypeError, ValueError):
            return set()  # another version's, of another form

    def strangers(self, tables: Iterable[Table]) -> list[str]:
        """Why some of these tables cannot be: somebody else has one of that name."""
        out = []
        for table in tables:
            try:
                self._own(table)
            except Conflict as e:
                out.append(e.message)
        return out

    def _own(self, table: Table) -> list[dict[str, Any]]:
        """Our table as objects, without any where it does not exist. Raises Conflict when it is not ours."""
        objects = self.list_table(table.family) or []
        if not ruleset.is_ours(objects, table.family):
            name = f"{table.family} {ruleset.TABLE}"
            raise Conflict(
                f"there is a table {name} in nftables that is not netengine's, and netengine needs one of that name: "
                f"{_RENAME.format(name)}"
            )
        return objects

    def _anew(self, table: Table) -> list[str]:
        kept = self._user_rules(table.family)
        name = f"{table.family} {ruleset.TABLE}"
        lines = [f"add table {name}", f"delete table {name}", ruleset.text(table.family)]
        return lines + [f"add rule {name} {ruleset.USER_CHAIN} {rule}" for rule in kept]

    def supports(self, family: Family) -> bool:
        """Whether this kernel has rules and translation for that family: tried, and taken back, in one transaction."""
        name = f"{family} {ruleset.TABLE}-trial-{secrets.token_hex(4)}"  # nobody else's
        chain = f"add chain {name} nat {{ type nat hook postrouting priority 0; }}"
        try:
            self.run([f"add table {name}", chain, f"delete table {name}"])
        except KernelRefused:
            return False
        return True

    def unload(self, table: Table) -> None:
        """One of somebody else is left alone: ours is gone then."""
        try:
            self._own(table)
        except Conflict:
            return
        # `add` first makes the deletion succeed where there is no table; `destroy` needs kernel 6.3.
        name = f"{table.family} {ruleset.TABLE}"
        self.run([f"add table {name}", f"delete table {name}"])

    def _user_rules(self, family: str) -> list[str]:
        code, output, _ = self._nft.cmd(f"list chain {family} {ruleset.TABLE} {ruleset.USER_CHAIN}")
        if code != 0:
            return []
        lines = [line.strip() for line in output.splitlines()]
        body = lines[2:-2] if len(lines) > 4 else []
        return [line for line in body if line and not line.startswith(("comment ", "chain ", "}"))]


def _mended(table: Table, objects: list[dict[str, Any]]) -> list[str]:
    """Commands that empty what is ours in a listing of our table, and fill it again."""
    name = f"{table.family} {ruleset.TABLE}"
    _, rules = ruleset.signature(table.family)
    lines = [f"add table {name}"]
    for entry in objects:
        for kind in ("chain", "set", "map"):
            own = entry.get(kind, {}).get("name", "")
            if own in rules or own in ruleset.NAMES:
                lines.append(f"flush {kind} {name} {own}")
            elif re.fullmatch(rf"{ruleset.VERSION_PREFIX}[0-9a-f]+", own):
                lines.append(f"delete chain {name} {own}")
    return [*lines, ruleset.text(table.family)]


def read_elements(objects: list[dict[str, Any]], family: TableFamily) -> set[Element]:
    """The elements in a listing of our table."""
    elements: set[Element] = set()
    names = {c.name for c in ruleset.containers(family)}
    for entry in objects:
        for kind in ("set", "map"):
            if kind in entry and entry[kind]["name"] in names:
                for item in entry[kind].get("elem", []):
                    elements.add(_element(family, entry[kind]["name"], item, is_map=kind == "map"))
    return elements


def is_intact(objects: list[dict[str, Any]], family: TableFamily) -> bool:
    """Whether a listing of our table has every chain, set and map of this version, and every chain all its rules."""
    names, expected = ruleset.signature(family)
    present = {entry[kind]["name"] for entry in objects for kind in ("chain", "set", "map") if kind in entry}
    counted = Counter(entry["rule"]["chain"] for entry in objects if "rule" in entry)
    return names <= present and all(counted[chain] == count for chain, count in expected.items())


def _element(family: TableFamily, name: str, item: Any, is_map: bool) -> Element:
    key, value = item if is_map else (item, None)
    if isinstance(key, dict) and "elem" in key:
        key = key["elem"]["val"]
    # A prefix that is one address is listed as an address.
    kinds = ruleset.container(name).key
    texts = zip(kinds, _texts(key), strict=True)
    one = f"/{ruleset.HOST_LENGTH[family]}"
    parts = tuple(_as_given(kind, text, one) for kind, text in texts)
    return Element(family, name, parts, _texts(value) if is_map else ())


def _as_given(kind: ruleset.Part, text: str, one: str) -> str:
    """A part of a key as it was before nft wrote it its own way."""
    if kind == "prefix" and not {"/", "-"} & set(text):
        return text + one
    return str(IPv6Address(int(text, 16))) if kind == "target" else text


def _texts(value: Any) -> tuple[str, ...]:
    if isinstance(value, dict):
        if "concat" in value:
            return tuple(t for part in value["concat"] for t in _texts(part))
        if "prefix" in value:
            return (f"{value['prefix']['addr']}/{value['prefix']['len']}",)
        if "range" in value:
            return ("-".join(str(v) for v in value["range"]),)
        if "jump" in value:
            return (f"jump {value['jump']['target']}",)
        return tuple(value)[:1]  # a verdict: {"accept": null}
    return (str(value),)
