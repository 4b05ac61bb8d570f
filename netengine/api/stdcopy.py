"""Docker's multiplexed stream: stdout and stderr on one connection, each piece behind an 8-byte header.

The header is the stream (0 stdin, 1 stdout, 2 stderr, 3 an error of the daemon), three zero bytes, and the length of the
piece as 32 bits, big-endian. Pure.
"""

from __future__ import annotations

import struct

STDIN, STDOUT, STDERR, SYSTEM = 0, 1, 2, 3

_HEADER = struct.Struct(">BxxxL")
_LARGEST = 1024 * 1024  # bytes of one frame; clients hold a frame in memory


def frame(stream: int, data: bytes) -> bytes:
    """`data` as one or more frames of `stream`; no bytes for no data."""
    if len(data) <= _LARGEST:
        return _HEADER.pack(stream, len(data)) + data if data else b""
    pieces = (data[start : start + _LARGEST] for start in range(0, len(data), _LARGEST))
    return b"".join(_HEADER.pack(stream, len(piece)) + piece for piece in pieces)


class Demultiplexer:
    """Frames in, (stream, bytes) out; for those who read such a stream. ValueError when it is none."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """The pieces that are complete with `data`."""
        self._buffer += data
        pieces = []
        while len(self._buffer) >= _HEADER.size:
            stream, length = _HEADER.unpack_from(self._buffer)
            if stream > SYSTEM or any(self._buffer[1:4]):
                raise ValueError(f"not a multiplexed stream: a header begins with {bytes(self._buffer[:4]).hex()}")
            end = _HEADER.size + length
            if len(self._buffer) < end:
                break
            pieces.append((stream, bytes(self._buffer[_HEADER.size : end])))
            del self._buffer[:end]
        return pieces
