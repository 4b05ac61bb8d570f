"""Socket filters for netlink events: what nobody would look at is dropped by the kernel, so that nobody is woken for it.

A connect makes some thirty events, most of them of no interest to one listener or the other. A filter is a list of `Drop`s: an
event to which all conditions of one apply is not delivered, nor one that is too short to be tested. Only `attach` touches a
socket.

Source: include/uapi/linux/{filter,netlink}.h, net/core/filter.c, Documentation/networking/filter.rst.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass

_SO_ATTACH_FILTER = 26  # include/uapi/asm-generic/socket.h
_LD_BYTE, _LD_HALF, _LD_AT_X, _LD_ATTRIBUTE = 0x30, 0x28, 0x40, 0x20  # BPF_LD, absolute or at an index
_LD_NUMBER, _LDX_NUMBER, _TAX = 0x00, 0x01, 0x07
_JEQ, _JSET, _RET = 0x15, 0x45, 0x06
_FIND_ATTRIBUTE = (
    0xFFFFF000 + 12
)  # SKF_AD_OFF + SKF_AD_NLATTR: the place of attribute X, searched from A on; 0 for none
_WHOLE = 0xFFFFFFFF
_TYPE_AT = 4  # of struct nlmsghdr, which is 16 bytes long
_BODY = 16

Instruction = tuple[int, int, int, int]
"""Code, instructions to skip if true, and if false, and a value."""


@dataclass(frozen=True, slots=True)
class Type:
    """The message is of one of these types."""

    types: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Byte:
    """The byte at an offset in the message's body is `value`; with `mask`, has one of those bits."""

    at: int
    value: int = 0
    mask: int = 0


@dataclass(frozen=True, slots=True)
class Attribute:
    """Among the attributes from an offset in the body on is one of this type; with `value`, it is that number of 32 bits."""

    start: int
    kind: int
    value: int | None = None


@dataclass(frozen=True, slots=True)
class Not:
    """A condition does not apply."""

    condition: Byte | Attribute


Condition = Type | Byte | Attribute | Not


@dataclass(frozen=True, slots=True)
class Drop:
    """What is not delivered: messages to which all of this applies."""

    conditions: tuple[Condition, ...]


def drop(*conditions: Condition) -> Drop:
    return Drop(conditions)


def attach(sock: socket.socket, drops: Sequence[Drop]) -> None:
    """Let the socket hear all but what `drops` name."""
    program = compiled(drops)
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in program))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", len(program), ctypes.addressof(code)))


def compiled(drops: Sequence[Drop]) -> list[Instruction]:
    out: list[Instruction] = []
    for each in drops:
        out += _drop(each)
    return [*out, (_RET, 0, 0, _WHOLE)]


_TRUE, _FALSE = -1, -2
"""Where the last instruction of a condition leads, until it is known how far that is."""


def _drop(each: Drop) -> list[Instruction]:
    tests = [_test(condition) for condition in each.conditions]
    after = sum(map(len, tests)) + 1  # past the instruction that drops
    out: list[Instruction] = []
    for test in tests:
        held = len(out) + len(test)
        for code, if_true, if_false, value in test:
            here = len(out) + 1
            steps = {_TRUE: held - here, _FALSE: after - here}
            out.append((code, steps.get(if_true, if_true), steps.get(if_false, if_false), value))
    return [*out, (_RET, 0, 0, 0)]


def _test(condition: Condition) -> list[Instruction]:
    match condition:
        case Type(types=types):
            choices = [(_JEQ, _TRUE, 0, _half(kind)) for kind in types[:-1]]
            return [(_LD_HALF, 0, 0, _TYPE_AT), *choices, (_JEQ, _TRUE, _FALSE, _half(types[-1]))]
        case Byte(at=at, value=value, mask=mask):
            code, wanted = (_JSET, mask) if mask else (_JEQ, value)
            return [(_LD_BYTE, 0, 0, _BODY + at), (code, _TRUE, _FALSE, wanted)]
        case Attribute(start=start, kind=kind, value=number):
            find = [
                (_LDX_NUMBER, 0, 0, kind),
                (_LD_NUMBER, 0, 0, _BODY + start),
                (_LD_ATTRIBUTE, 0, 0, _FIND_ATTRIBUTE),
            ]
            if number is None:
                return [*find, (_JEQ, _FALSE, _TRUE, 0)]
            load = [(_TAX, 0, 0, 0), (_LD_AT_X, 0, 0, 4)]  # past the attribute's head
            return [*find, (_JEQ, _FALSE, 0, 0), *load, (_JEQ, _TRUE, _FALSE, _word(number))]
        case Not(condition=inner):
            turned = {_TRUE: _FALSE, _FALSE: _TRUE}
            return [(code, turned.get(t, t), turned.get(f, f), value) for code, t, f, value in _test(inner)]


def _half(value: int) -> int:
    """What a load, which reads in network order, makes of a number of 16 bits in the host's."""
    return int.from_bytes(struct.pack("=H", value), "big")


def _word(value: int) -> int:
    return int.from_bytes(struct.pack("=I", value & 0xFFFFFFFF), "big")
