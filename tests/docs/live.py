"""Transcripts in Markdown that are run: a console block after the line `<!-- live -->` is a shell session on a test host.

Here lives how a page is read, run and written again. A line `$ COMMAND` is run by bash as root on a fresh host with a daemon,
`beta$ COMMAND` on a second machine behind a cable; what follows is the output, both streams. All blocks of one page are one
session. What differs from run to run (ids, MACs, the order of nftables elements) is replaced by values that do not.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

MARK = "<!-- live -->"
PROMPT = re.compile(r"(?:(?P<host>beta))?\$ (?P<command>.+)")
Run = Callable[[str, str], str]
"""(host, command) -> output; host is "alpha" or "beta"."""


@dataclass
class Session:
    """One console block: its place in the page's lines (`start` up to `end`, fences left out)."""

    start: int
    end: int
    lines: list[str]

    @property
    def prompts(self) -> list[str]:
        return [line for line in self.lines if PROMPT.fullmatch(line)]

    def run(self, run: Run) -> list[str]:
        """The block as it is when its commands are run now."""
        out: list[str] = []
        for prompt in self.prompts:
            match = PROMPT.fullmatch(prompt)
            assert match is not None
            out.append(prompt)
            out += [line.rstrip() for line in run(match["host"] or "alpha", match["command"]).splitlines()]
        return out


def sessions(page: Path) -> list[Session]:
    """The live blocks of a page, in order. A mark without a console block after it fails."""
    lines = page.read_text().splitlines()
    found = []
    for number, line in enumerate(lines):
        if line != MARK:
            continue
        assert lines[number + 1] == "```console", f"{page.name}:{number + 2}: a console block must follow {MARK}"
        end = lines.index("```", number + 2)
        found.append(Session(number + 2, end, lines[number + 2 : end]))
    return found


def rewrite(page: Path, changes: list[tuple[Session, list[str]]]) -> None:
    """Put new text into the blocks of a page."""
    lines = page.read_text().splitlines()
    for session, text in reversed(changes):
        lines[session.start : session.end] = text
    page.write_text("\n".join(lines) + "\n")


_ID = re.compile(r"(?<![0-9a-f])(?:[0-9a-f]{64}|[0-9a-f]{12})(?![0-9a-f])")
_VETH = re.compile(r"\bveth([0-9a-f]{7})\b")
_MAC = re.compile(r"\b(?!ff:ff:ff:ff:ff:ff|00:00:00:00:00:00)(?:[0-9a-f]{2}:){5}[0-9a-f]{2}\b")
# The prefix of a host's unique local addresses, and link-local addresses made of MACs.
# Join tokens, and ids of nodes and clusters: 25 digits of base 36.
_TOKEN = re.compile(r"\bSWMTKN-1-[0-9a-z]{50}-[0-9a-z]{25}\b")
_NODE = re.compile(r"(?<![0-9a-z-])(?=[a-z]*[0-9])(?=[0-9]*[a-z])[0-9a-z]{25}(?![0-9a-z])")
_ULA = re.compile(r"\bfd(?!00)[0-9a-f]{2}:[0-9a-f]{1,4}:[0-9a-f]{1,4}(?=:)")
_LINK_LOCAL = re.compile(r"\bfe80::[0-9a-f]+:[0-9a-f:]+")
_PEER = re.compile(r"@if(\d+)")
_NAME_PORT = re.compile(r"(?<=127\.0\.0\.11:)\d+|(?<=dport set )\d+|(?<=sport )\d+(?= notrack)")
_ELEMENTS = re.compile(r"elements = \{ ([^}]*) \}")
_NEXT_ELEMENT = ",\n\t\t\t     "
# A bridge without ports is UNKNOWN until the kernel's link watch has looked at it, a moment later.
_IDLE_BRIDGE = re.compile(r"^((?:docker0|br-[0-9a-f]{12}) +)UNKNOWN(.*?)(<BROADCAST,MULTICAST,UP>)? *$", re.M)
_AGE = re.compile(r"\b(?:Less than a second|\d+ seconds?)\b")


@dataclass
class Stable:
    """Replaces what is random by what is not; the same thing by the same value for a whole page."""

    paths: dict[str, str] = field(default_factory=dict)
    """Text -> what it is called in the documents: the data directory of a test, say."""
    _known: dict[str, int] = field(default_factory=dict)

    def __call__(self, text: str) -> str:
        for path, name in self.paths.items():
            text = text.replace(path, name)
        text = _ID.sub(lambda m: self._value("id", m[0][:12])[: len(m[0])], text)
        text = _TOKEN.sub(
            lambda m: f"SWMTKN-1-{self._value('token', m[0])[:50]}-{self._value('token', m[0])[-25:]}", text
        )
        text = _NODE.sub(lambda m: self._value("node", m[0])[:25], text)
        text = _VETH.sub(lambda m: f"veth{self._value('endpoint', m[1])[:7]}", text)
        text = _MAC.sub(lambda m: _as_mac(self._value("mac", m[0])), text)
        text = _ULA.sub(
            lambda m: "fd{}:{}:{}".format(*re.findall("(..)(....)(....)", self._value("ula", m[0]))[0]), text
        )
        text = _LINK_LOCAL.sub(lambda m: f"fe80::{int(self._value('link-local', m[0])[:4], 16):x}:1", text)
        text = _PEER.sub(lambda m: f"@if{self._number('peer', m[1]) + 3}", text)
        text = _NAME_PORT.sub(lambda m: str(40001 + self._number("name port", m[0])), text)
        text = _AGE.sub("2 seconds", text)
        text = _IDLE_BRIDGE.sub(_settled, text)
        return _ELEMENTS.sub(_sorted_elements, text)

    def _number(self, kind: str, value: str) -> int:
        """How many values of that kind were seen before this one."""
        key = f"{kind} {value}"
        return self._known.setdefault(key, sum(known.startswith(f"{kind} ") for known in self._known))

    def _value(self, kind: str, value: str) -> str:
        return hashlib.sha256(f"{kind} {self._number(kind, value)}".encode()).hexdigest()


def _settled(match: re.Match[str]) -> str:
    flags = "<NO-CARRIER,BROADCAST,MULTICAST,UP>" if match[3] else ""
    return f"{match[1]}DOWN   {match[2]}{flags}"


def _as_mac(digits: str) -> str:
    octets = bytearray.fromhex(digits[:12])
    octets[0] = octets[0] & 0xFC | 0x02
    return octets.hex(":")


def _sorted_elements(match: re.Match[str]) -> str:
    elements = sorted(" ".join(element.split()) for element in match[1].split(","))
    return f"elements = {{ {_NEXT_ELEMENT.join(elements)} }}"
