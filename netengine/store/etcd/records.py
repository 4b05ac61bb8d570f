"""What etcd's JSON gateway is sent and answers: entries, changes, conditions, steps of a transaction, members.

Source: etcd v3.4 rpc.proto and kv.proto, with bytes in base64 and 64-bit numbers as strings (proto3 JSON). No I/O here.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any, Literal

JsonDict = dict[str, Any]


class Compacted(Exception):
    """The revision that a watch should start from is no longer kept: list everything again. No error that a user is shown."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A key with its value; `modified` is the revision of its last change, `version` counts changes from 1."""

    key: str
    value: bytes
    modified: int
    version: int
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Change:
    """A key was put, or (entry.value is b"") deleted."""

    entry: Entry
    deleted: bool


@dataclass(frozen=True, slots=True)
class Compare:
    """A condition of a transaction: VERSION 0 says that the key does not exist; MOD that nobody changed it since.

    With `prefix` it is one on every key that begins with it: VERSION 0 says that there is none, and MOD with the result LESS
    that none was made or changed in that revision or later.
    """

    key: str
    target: Literal["VERSION", "MOD"]
    number: int
    prefix: bool = False
    result: Literal["EQUAL", "LESS"] = "EQUAL"

    def encoded(self) -> JsonDict:
        field = {"VERSION": "version", "MOD": "mod_revision"}[self.target]
        return {
            **key_range(self.key, self.prefix),
            "target": self.target,
            "result": self.result,
            field: str(self.number),
        }


@dataclass(frozen=True, slots=True)
class Put:
    """A step of a transaction."""

    key: str
    value: bytes
    lease: int = 0

    def encoded(self) -> JsonDict:
        return {"requestPut": {"key": b64(self.key), "value": b64(self.value), "lease": str(self.lease)}}


@dataclass(frozen=True, slots=True)
class Delete:
    """A step of a transaction: the key, or every key that begins with it."""

    key: str
    prefix: bool = False

    def encoded(self) -> JsonDict:
        return {"requestDeleteRange": key_range(self.key, self.prefix)}


@dataclass(frozen=True, slots=True)
class Get:
    """A step of a transaction: the key, or every key that begins with it."""

    key: str
    prefix: bool = False

    def encoded(self) -> JsonDict:
        return {"requestRange": key_range(self.key, self.prefix)}


Step = Put | Delete | Get


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a transaction; `read` has the entries of each Get of the branch that was taken, in order."""

    succeeded: bool
    revision: int
    read: tuple[tuple[Entry, ...], ...]


@dataclass(frozen=True, slots=True)
class Member:
    """A member of the etcd cluster. One that was added and has not started yet has no name."""

    id: int
    name: str
    peer_urls: tuple[str, ...]
    client_urls: tuple[str, ...]
    is_learner: bool = False


def b64(value: str | bytes) -> str:
    return base64.b64encode(value.encode() if isinstance(value, str) else value).decode()


def key_range(key: str, prefix: bool) -> JsonDict:
    if not prefix:
        return {"key": b64(key)}
    raw = key.encode()
    end = raw[:-1] + bytes((raw[-1] + 1,)) if raw else b"\0"
    return {"key": b64(raw or b"\0"), "range_end": b64(end)}


def entry_of(kv: JsonDict) -> Entry:
    return Entry(
        key=base64.b64decode(kv["key"]).decode(),
        value=base64.b64decode(kv.get("value", "")),
        modified=int(kv.get("mod_revision", 0)),
        version=int(kv.get("version", 0)),
        lease=int(kv.get("lease", 0)),
    )


def change_of(event: JsonDict) -> Change:
    return Change(entry_of(event["kv"]), event.get("type") == "DELETE")


def member_of(m: JsonDict) -> Member:
    return Member(
        int(m["ID"]),
        m.get("name", ""),
        tuple(m.get("peerURLs", ())),
        tuple(m.get("clientURLs", ())),
        bool(m.get("isLearner")),
    )
