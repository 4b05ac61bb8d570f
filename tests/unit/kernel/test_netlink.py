"""The netlink socket against a kernel that answers what a test tells it: errors, its words, dumps that break."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable, Sequence

import pytest

from netengine.errors import KernelRefused
from netengine.kernel import messages, netlink
from netengine.kernel.netlink import NetlinkError, NetlinkSocket, is_gone

HEADER = struct.Struct("=IHHII")
NLMSG_ERROR, NLMSG_DONE, RTM_NEWLINK = 2, 3, 16
NLM_F_MULTI, NLM_F_DUMP_INTR, NLM_F_CAPPED, NLM_F_ACK_TLVS = 0x2, 0x10, 0x100, 0x200

Sent = tuple[int, int, int]
"""(type, flags, sequence number) of a message that was sent."""


def message(kind: int, sequence: int, body: bytes, flags: int = 0) -> bytes:
    padded = body + b"\0" * (-len(body) % 4)
    return HEADER.pack(HEADER.size + len(body), kind, flags, sequence, 0) + padded


def acknowledgement(sequence: int, number: int = 0, words: str = "", whole: bytes = b"") -> bytes:
    """NLMSG_ERROR: minus errno, the header of the request (or, if `whole`, all of it), the extended acknowledgement."""
    flags = 0 if whole else NLM_F_CAPPED
    body = struct.pack("=i", -number) + (whole or HEADER.pack(HEADER.size, RTM_NEWLINK, 0, sequence, 0))
    body += b"\0" * (-len(body) % 4)
    if words:
        flags |= NLM_F_ACK_TLVS
        text = words.encode() + b"\0"
        # NLMSGERR_ATTR_OFFS comes first with some errors.
        body += struct.pack("=HHI", 8, 2, 0) + struct.pack("=HH", 4 + len(text), 1) + text
    return message(NLMSG_ERROR, sequence, body, flags)


def link(sequence: int, index: int, flags: int = 0) -> bytes:
    return message(RTM_NEWLINK, sequence, struct.pack("=BxHiII", 0, 1, index, 0, 0), flags | NLM_F_MULTI)


def done(sequence: int) -> bytes:
    return message(NLMSG_DONE, sequence, struct.pack("=i", 0), NLM_F_MULTI)


class FakeSocket:
    """The descriptor: hands each datagram that is sent to `kernel` and receives what that answers."""

    def __init__(self, kernel: Callable[[list[Sent]], Sequence[bytes | OSError]]) -> None:
        self._kernel = kernel
        self._answers: list[bytes | OSError] = []
        self.sends = 0

    def send(self, data: bytes) -> None:
        self.sends += 1
        sent, offset = [], 0
        while offset < len(data):
            length, kind, flags, sequence, _ = HEADER.unpack_from(data, offset)
            sent.append((kind, flags, sequence))
            offset += (length + 3) & ~3
        assert offset == len(data), "messages must be padded to four bytes"
        self._answers += self._kernel(sent)

    def recvmsg_into(self, buffers: list[memoryview]) -> tuple[int, list[object], int, None]:
        (buffer,) = buffers
        if not self._answers:
            raise BlockingIOError(errno.EAGAIN, "no more to come")
        data = self._answers.pop(0)
        if isinstance(data, OSError):
            raise data
        size = min(len(data), len(buffer))
        buffer[:size] = data[:size]
        return size, [], socket.MSG_TRUNC if len(data) > size else 0, None


def talking_to(kernel: Callable[[list[Sent]], Sequence[bytes | OSError]]) -> NetlinkSocket:
    made = NetlinkSocket.__new__(NetlinkSocket)
    made._socket = FakeSocket(kernel)  # type: ignore[assignment]
    made._sequence, made._spent = 0, False
    return made


def up(*names: str) -> list[tuple[str, object]]:
    return [(f"bring {name} up", messages.link_up(name)) for name in names]


# ---------------------------------------------------------------------- batches


def test_a_batch_is_sent_in_one_go_and_answered_in_order() -> None:
    """The answers may come in any order and in any number of datagrams."""

    def kernel(sent: list[Sent]) -> list[bytes]:
        a, b, c = (sequence for _, _, sequence in sent)
        return [acknowledgement(c, errno.ENODEV) + acknowledgement(a), acknowledgement(b, errno.EEXIST)]

    sock = talking_to(kernel)
    first, second, third = sock.execute(up("a", "b", "c"))
    assert first is None
    assert second is not None and second.errno == errno.EEXIST
    assert third is not None and third.errno == errno.ENODEV
    assert sock._socket.sends == 1  # type: ignore[attr-defined]


def test_an_error_says_what_was_tried_and_what_the_kernel_said() -> None:
    words = "Nexthop has invalid gateway"
    sock = talking_to(lambda sent: [acknowledgement(sent[0][2], errno.ENETUNREACH, words)])
    (error,) = sock.execute([("add route default via 10.0.0.1", messages.link_up("x"))])
    assert error is not None and error.strerror == f"add route default via 10.0.0.1: {words}"


def test_without_words_of_the_kernel_the_error_number_speaks() -> None:
    sock = talking_to(lambda sent: [acknowledgement(sent[0][2], errno.EPERM)])
    (error,) = sock.execute(up("a"))
    assert error is not None and error.strerror == "bring a up: Operation not permitted"


def test_the_kernel_s_words_are_found_behind_a_whole_request() -> None:
    """A kernel without NETLINK_CAP_ACK repeats the request with its payload."""

    def kernel(sent: list[Sent]) -> list[bytes]:
        request = message(RTM_NEWLINK, sent[0][2], b"payload of odd size")
        return [acknowledgement(sent[0][2], errno.EINVAL, "no", whole=request)]

    (error,) = talking_to(kernel).execute(up("a"))
    assert error is not None and error.strerror == "bring a up: no"


def test_answers_to_earlier_questions_are_passed_over() -> None:
    """Left unread by an interrupted caller, they must not be taken for the answer to this one."""
    stale = acknowledgement(0, errno.EBUSY)
    sock = talking_to(lambda sent: [stale, acknowledgement(sent[0][2])])
    assert sock.execute(up("a")) == [None]


def test_an_empty_batch_sends_nothing() -> None:
    sock = talking_to(lambda sent: [])
    assert sock.execute([]) == []
    assert sock._socket.sends == 0  # type: ignore[attr-defined]


def test_every_message_asks_for_an_acknowledgement_and_has_its_own_number() -> None:
    seen: list[Sent] = []

    def kernel(sent: list[Sent]) -> list[bytes]:
        seen.extend(sent)
        return [acknowledgement(sequence) for _, _, sequence in sent]

    sock = talking_to(kernel)
    sock.execute(up("a", "b"))
    sock.execute(up("c"))
    assert all(flags & 0x5 == 0x5 for _, flags, _ in seen)  # NLM_F_REQUEST | NLM_F_ACK
    assert len({sequence for _, _, sequence in seen}) == 3


def test_more_messages_than_the_answers_have_room_for_are_sent_in_several_goes() -> None:
    most: list[int] = []

    def kernel(sent: list[Sent]) -> list[bytes]:
        most.append(len(sent))
        return [acknowledgement(sequence) for _, _, sequence in sent]

    sock = talking_to(kernel)
    assert sock.execute(up(*map(str, range(300)))) == [None] * 300
    assert sum(most) == 300 and max(most) <= 200


# ---------------------------------------------------------------------- no memory


NO_MEMORY = OSError(errno.ENOBUFS, "No buffer space available")


def test_of_a_message_whose_answer_was_lost_it_is_not_known_what_became() -> None:
    """The kernel had no memory for the answer to the second of three messages, all of which it has carried out."""

    def kernel(sent: list[Sent]) -> list[bytes | OSError]:
        a, _, c = (sequence for _, _, sequence in sent)
        return [acknowledgement(a), NO_MEMORY, acknowledgement(c, errno.EEXIST)]

    first, second, third = talking_to(kernel).execute(up("a", "b", "c"))
    assert first is None
    assert (
        second is not None
        and second.lost
        and second.strerror == ("bring b up: the kernel had no memory left for an answer")
    )
    assert third is not None and not third.lost and third.errno == errno.EEXIST


def test_a_message_that_could_not_be_sent_was_not_carried_out() -> None:
    def kernel(sent: list[Sent]) -> list[bytes]:
        if len(sent) < 200:
            raise OSError(errno.ENOMEM, "Cannot allocate memory")
        return [acknowledgement(sequence) for _, _, sequence in sent]

    outcome = talking_to(kernel).execute(up(*map(str, range(202))))
    assert outcome[:200] == [None] * 200, "what became of the others is known all the same"
    assert [(e.errno, e.lost) for e in outcome[200:] if e] == [(errno.ENOMEM, False)] * 2


def test_an_answer_that_never_comes_is_not_waited_for() -> None:
    (error,) = talking_to(lambda sent: []).execute(up("a"))
    assert error is not None and error.lost
    with pytest.raises(NetlinkError, match="look at a: the kernel had no memory"):
        talking_to(lambda sent: []).ask("look at a", messages.link_get(name="a"))


@pytest.mark.parametrize("what_is_left", ["nothing", "its end"])
def test_a_dump_of_which_a_part_was_lost_is_no_answer(what_is_left: str) -> None:
    def kernel(sent: list[Sent]) -> list[bytes | OSError]:
        rest = [] if what_is_left == "nothing" else [done(sent[0][2])]
        return [link(sent[0][2], 1), NO_MEMORY, *rest]

    with pytest.raises(NetlinkError, match="dump: the kernel had no memory"):
        talking_to(kernel).dump(messages.links_dump())


# ---------------------------------------------------------------------- dumps


def test_a_dump_is_read_over_several_datagrams() -> None:
    sock = talking_to(lambda sent: [link(sent[0][2], 1) + link(sent[0][2], 2), link(sent[0][2], 3), done(sent[0][2])])
    assert [m["index"] for m in sock.dump(messages.links_dump())] == [1, 2, 3]


def test_of_a_long_dump_only_what_is_asked_for_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[bytes] = []
    monkeypatch.setattr(netlink, "Seen", lambda kind, body: built.append(body) or body)
    sock = talking_to(lambda sent: [*(link(sent[0][2], n) for n in range(50)), done(sent[0][2])])
    assert len(sock.dump(messages.links_dump(), most=1)) == len(built) == 1
    assert len(sock.dump(messages.links_dump())) == 50, "the rest of the first was read and left"


@pytest.mark.parametrize("where", ["a message", "the end"])
def test_a_dump_during_which_something_changed_is_done_again(where: str) -> None:
    attempts: list[int] = []

    def kernel(sent: list[Sent]) -> list[bytes]:
        sequence = sent[0][2]
        attempts.append(sequence)
        if len(attempts) > 1:
            return [link(sequence, 7), done(sequence)]
        broken = NLM_F_DUMP_INTR
        if where == "a message":
            return [link(sequence, 1, broken), done(sequence)]
        return [link(sequence, 1), message(NLMSG_DONE, sequence, struct.pack("=i", 0), NLM_F_MULTI | broken)]

    sock = talking_to(kernel)
    assert [m["index"] for m in sock.dump(messages.links_dump())] == [7]
    assert len(set(attempts)) == 2, "an answer to the first attempt could pass for one to the second"


def test_a_dump_that_always_breaks_is_given_up() -> None:
    sock = talking_to(lambda sent: [link(sent[0][2], 1, NLM_F_DUMP_INTR), done(sent[0][2])])
    with pytest.raises(KernelRefused, match="changed during each of 20 attempts"):
        sock.dump(messages.links_dump())


def test_a_dump_that_is_refused_raises_the_kernel_s_error() -> None:
    sock = talking_to(lambda sent: [acknowledgement(sent[0][2], errno.EOPNOTSUPP, "not here")])
    with pytest.raises(NetlinkError, match="dump: not here") as refused:
        sock.dump(messages.links_dump())
    assert refused.value.errno == errno.EOPNOTSUPP


def test_an_answer_that_was_cut_is_not_parsed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netlink, "receive_buffer", lambda: memoryview(bytearray(64)))
    sock = talking_to(lambda sent: [link(sent[0][2], 1) * 4])
    with pytest.raises(KernelRefused, match="larger than"):
        sock.dump(messages.links_dump())


def test_garbage_at_the_end_of_a_datagram_is_no_endless_loop() -> None:
    sock = talking_to(lambda sent: [acknowledgement(sent[0][2]) + b"\0" * HEADER.size])
    assert sock.execute(up("a")) == [None]


# ---------------------------------------------------------------------- single questions


def test_a_question_is_answered_by_one_object() -> None:
    sock = talking_to(lambda sent: [link(sent[0][2] - 1, 1), link(sent[0][2], 7)])
    assert sock.ask("look at eth0", messages.link_get(name="eth0"))["index"] == 7


def test_a_question_that_is_refused_says_what_was_asked() -> None:
    sock = talking_to(lambda sent: [acknowledgement(sent[0][2], errno.ENODEV)])
    with pytest.raises(NetlinkError, match="look at eth0: No such device"):
        sock.ask("look at eth0", messages.link_get(name="eth0"))


# ---------------------------------------------------------------------- what counts as removed


@pytest.mark.parametrize(
    ("number", "gone"),
    [
        (errno.ENODEV, True),
        (errno.ENOENT, True),
        (errno.ESRCH, True),
        (errno.EADDRNOTAVAIL, True),
        (errno.EPERM, False),
        (errno.EBUSY, False),
        (errno.EINVAL, False),
    ],
    ids=errno.errorcode.get,
)
def test_removing_what_is_not_there_has_succeeded(number: int, gone: bool) -> None:
    assert is_gone(OSError(number, "")) is gone
