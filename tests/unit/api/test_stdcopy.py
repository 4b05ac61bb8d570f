"""Docker's frames on one connection."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netengine.api import stdcopy


def test_a_frame_is_the_stream_three_zeros_and_the_length():
    assert stdcopy.frame(2, b"err\n") == b"\x02\0\0\0\0\0\0\x04err\n"
    assert stdcopy.frame(1, b"") == b""


@given(st.lists(st.tuples(st.sampled_from([1, 2, 3]), st.binary(min_size=1))), st.integers(1, 50))
def test_what_is_framed_comes_out_however_it_is_cut(chunks, step):
    wire = b"".join(stdcopy.frame(*chunk) for chunk in chunks)
    reader = stdcopy.Demultiplexer()
    assert [piece for at in range(0, len(wire), step) for piece in reader.feed(wire[at : at + step])] == chunks


def test_a_large_piece_is_several_frames():
    data = bytes(3 * 1024 * 1024 + 1)
    pieces = stdcopy.Demultiplexer().feed(stdcopy.frame(1, data))
    assert len(pieces) == 4 and b"".join(piece for _, piece in pieces) == data


def test_what_is_no_multiplexed_stream_is_refused():
    with pytest.raises(ValueError, match="not a multiplexed stream"):
        stdcopy.Demultiplexer().feed(b"hello world")
