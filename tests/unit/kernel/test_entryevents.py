"""Words of the kernel about forwarding entries and neighbours, as they came from a real one (6.18)."""

from __future__ import annotations

import struct

import pytest

from netengine.kernel.entryevents import EntryTouched, notices

MAC, FDB_REST = "02:42:0a:00:00:02", "1400030000000000340000001500000000000000"


def message(kind: int, family: int, state: int, flags: int, attributes: str) -> bytes:
    body = struct.pack("=BxxxiHBB", family, 2, state, flags, 0) + bytes.fromhex(attributes)
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 0, 0) + body


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (
            message(28, 7, 0xC0, 2, "0a00020002420a0000020000080001007f000002" + FDB_REST),
            EntryTouched(2, MAC, "127.0.0.2"),
        ),
        (message(29, 7, 0xC0, 2, "0a00020002420a0000020000080001007f000003" + FDB_REST), EntryTouched(2, MAC, "")),
        (
            message(28, 2, 0x80, 0, "080001000a0000020a00020002420a00000200000800040000000000"),
            EntryTouched(2, "10.0.0.2", MAC),
        ),
        (message(29, 2, 0x20, 0, "080001000a000002080004000000000014000300"), EntryTouched(2, "10.0.0.2", "")),
        (
            message(29, 10, 0x80, 0, "14000100fd0000000000000000000000000000020a00020002420a0000020000"),
            EntryTouched(2, "fd00::2", ""),
        ),
    ],
    ids=["an entry", "an entry gone", "a neighbour", "a neighbour gone", "an IPv6 neighbour gone"],
)
def test_a_word_of_the_kernel(data: bytes, expected: EntryTouched) -> None:
    assert list(notices(data)) == [expected]
    assert list(notices(data + data)) == [expected, expected]


def test_half_a_message_says_nothing() -> None:
    whole = message(29, 7, 0xC0, 2, "0a00020002420a0000020000080001007f000003")
    for cut in range(28):
        assert list(notices(whole[:cut])) == []
