"""The frame reader: bytes in, whole frames out, without copying; and what is in a frame.

The transport asks where to put bytes (`get_buffer`), says how many it put there (`advance`), and then takes the
frames that are complete (`frames`). A frame may be cut at any byte. All frames of one read are handed out as views
into the one buffer; only a frame that was cut is moved, once, to the front.

The buffer has a fixed size that holds whatever one turn of a peer's loop usually sends. A longer frame gets a buffer
of exactly its own length, which is given back with it. The length is checked against `limit` as soon as its four
bytes are here: nobody makes us allocate more than that.

Source: buffers owned by the reader, as `asyncio.BufferedProtocol` wants them; the length check before the allocation
as in every protocol that has met the internet.
"""

import struct
from collections.abc import Iterator, Sequence

from kinfolk.errors import LocalProtocolError, RemoteProtocolError
from kinfolk.wire.frames import FRAMES, MAX_FRAME_BEFORE_AUTHENTICATION, Operation, decode_payload

CAPACITY = 128 * 1024
"""Bytes of the usual buffer: a frame of 64 KiB, with the operation that filled it and a part of the next, fits."""
FIRST_CAPACITY = 8 * 1024
"""Bytes of the buffer until something has filled it: enough for the handshake, and for what quiet peers say."""

_LENGTH_BYTES = 4
_NAMES = {frame.TAG: frame.__name__ for frame in FRAMES}
_read_length = struct.Struct("<I").unpack_from


class FrameReader:
    """Cuts a stream of bytes into frames.

    Args:
        limit: the length (tag and payload, in bytes) that a frame may have. The session raises it at authentication,
            also while it iterates over `frames`.
        capacity: bytes of the buffer for everything but long frames; at least 5. At first it may have less.
    """

    __slots__ = ("_buffer", "_capacity", "_end", "_most", "_start", "_view", "_wanted", "limit")

    def __init__(self, limit: int = MAX_FRAME_BEFORE_AUTHENTICATION, capacity: int = CAPACITY) -> None:
        self.limit = limit
        self._most = capacity
        self._capacity = min(capacity, FIRST_CAPACITY)
        self._start = self._end = 0  # what is between them has been read and not been handed out
        self._wanted = 0  # bytes of the frame at _start, header included; 0 while they are unknown
        self._allocate(self._capacity)

    def __len__(self) -> int:
        """Bytes of a frame that is not complete yet."""
        return self._end - self._start

    def get_buffer(self, hint: int = -1) -> memoryview:
        """Where the next bytes go: never empty. Views that `frames` gave out before are no longer valid."""
        if self._wanted > self._capacity or self._end == len(self._buffer):
            self._capacity = self._most
        size = self._wanted if self._wanted > self._capacity else self._capacity
        if size != len(self._buffer):
            self._replace(size)
        elif self._start == self._end:
            self._start = self._end = 0
        elif self._start:
            waiting = self._end - self._start
            self._view[:waiting] = self._view[self._start : self._end]
            self._start, self._end = 0, waiting
        if self._end == len(self._buffer):
            raise LocalProtocolError("get_buffer() on a full buffer: take its frames first")
        return self._view[self._end :]

    def advance(self, count: int) -> None:
        """So many bytes have been put at the front of what `get_buffer` returned."""
        if not 0 <= count <= len(self._buffer) - self._end:
            raise LocalProtocolError(f"advance({count}): the buffer had room for {len(self._buffer) - self._end} bytes")
        self._end += count

    def frames(self) -> Iterator[tuple[int, memoryview]]:
        """Each complete frame as its tag and its payload, which is valid until the next `get_buffer`.

        Raises:
            RemoteProtocolError: a frame has length 0 or one above `limit`. What came before it has been handed out;
                the stream cannot be read any further.
        """
        while self._end - self._start >= _LENGTH_BYTES:
            (length,) = _read_length(self._buffer, self._start)
            if not 0 < length <= self.limit:
                raise RemoteProtocolError(
                    f"a frame of {length} bytes: at most {self.limit} are allowed"
                    if length
                    else "a frame of length 0: it must hold at least its tag"
                )
            body = self._start + _LENGTH_BYTES
            after = body + length
            if after > self._end:
                self._wanted = after - self._start
                return
            self._start = after
            self._wanted = 0
            yield self._buffer[body], self._view[body + 1 : after]

    def feed(self, data: bytes | bytearray | memoryview) -> list[tuple[int, bytes]]:
        """Take in bytes and return the frames that they complete, copied. For tests and tools.

        Raises:
            RemoteProtocolError: as `frames`.
        """
        complete: list[tuple[int, bytes]] = []
        rest = memoryview(data)
        while rest:
            room = self.get_buffer(len(rest))
            count = min(len(room), len(rest))
            room[:count], rest = rest[:count], rest[count:]
            self.advance(count)
            complete += [(tag, bytes(payload)) for tag, payload in self.frames()]
        return complete

    def _allocate(self, size: int) -> None:
        self._buffer = bytearray(size)
        self._view = memoryview(self._buffer)

    def _replace(self, size: int) -> None:
        """Go on in a new buffer; whoever still looks into the old one keeps it alive."""
        waiting = self._view[self._start : self._end]
        self._allocate(size)
        self._start, self._end = 0, len(waiting)
        self._view[: self._end] = waiting


def frame_name(tag: int) -> str:
    """A tag as error messages show it."""
    return f"{_NAMES[tag]} (0x{tag:02x})" if tag in _NAMES else f"unknown tag 0x{tag:02x}"


def read_operations(tag: int, payload: bytes | memoryview) -> Sequence[Operation] | None:
    """The operations of a frame, at least one; None for a tag that this version does not know.

    `Raw` bodies are views into the payload, and valid as long as it is.

    Raises:
        RemoteProtocolError: what is in it is not what the tag says.
    """
    try:
        operations = decode_payload(tag, payload)
    except (ValueError, RecursionError) as error:  # ValueError: every error of msgspec, and what is not UTF-8
        raise RemoteProtocolError(f"{frame_name(tag)} cannot be read: {error}") from None
    if operations is not None and not operations:
        raise RemoteProtocolError(f"{frame_name(tag)} without an operation: a frame holds at least one")
    return operations
