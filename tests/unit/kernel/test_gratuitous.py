"""The frames that say where an endpoint elsewhere is."""

from __future__ import annotations

from ipaddress import ip_address

from netengine.kernel.gratuitous import frame

MAC, BYTES = "02:42:0a:00:01:03", bytes.fromhex("02420a000103")


def test_an_arp_reply_that_nobody_asked_for() -> None:
    at = ip_address("10.0.1.3").packed
    made = frame(MAC, "10.0.1.3")
    assert made[:14] == b"\xff" * 6 + BYTES + b"\x08\x06"
    assert made[14:22] == bytes.fromhex("0001080006040002")  # Ethernet, IPv4, lengths, reply
    assert made[22:] == BYTES + at + BYTES + at


def test_an_advertisement_that_nobody_asked_for() -> None:
    at, everybody = ip_address("fd00:1::3").packed, ip_address("ff02::1").packed
    made = frame(MAC, "fd00:1::3")
    assert made[:14] == bytes.fromhex("333300000001") + BYTES + b"\x86\xdd"
    head, said = made[14:54], made[54:]
    assert head == bytes.fromhex("60000000 0020 3a ff") + at + everybody
    assert said[0] == 136 and said[4:8] == bytes.fromhex("20000000")  # override, and no answer to anybody
    assert said[8:24] == at and said[24:] == bytes.fromhex("0201") + BYTES
    # The sum over what is said and the pseudo header, its checksum among it, is all ones (RFC 1071).
    summed = at + everybody + (32).to_bytes(4, "big") + (58).to_bytes(4, "big") + said
    total = sum(int.from_bytes(summed[i : i + 2], "big") for i in range(0, len(summed), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    assert total == 0xFFFF
