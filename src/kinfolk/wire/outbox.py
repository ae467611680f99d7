"""The outbox: everything that waits to be written to one peer, in its order, already as bytes.

Operations of one kind that follow each other share a frame. The open frame starts with a placeholder of fixed size
(length, tag, MessagePack array32 head) that is filled in when the frame closes: when an operation of another kind
comes, when it has grown past `close_at`, and when the outbox is taken. So an operation costs its own encoding, straight
to the end of the buffer, and two additions.

Whoever appends checks the bounds first: `len(outbox)` is what waits (design of back pressure: the caller's).
"""

import struct

import msgspec

from kinfolk.errors import MessageTooLarge
from kinfolk.wire.frames import MAX_FRAME, Operation

CLOSE_AT = 64 * 1024
"""A frame that has grown past so many bytes of payload takes no more operations: the receiver works in portions."""

_ARRAY32 = 0xDD
_PLACEHOLDER = bytes(10)  # u32 length, u8 tag, u8 0xdd, u32 count
_LENGTH_BYTES = 4
_pack_head = struct.Struct("<IBB").pack_into
_pack_count = struct.Struct(">I").pack_into
_encode_into = msgspec.msgpack.Encoder().encode_into

MAX_OPERATION = MAX_FRAME - (len(_PLACEHOLDER) - _LENGTH_BYTES)
"""Bytes of the largest operation that fits into a frame, which it then has for itself."""


class Outbox:
    """Bytes for one peer.

    Args:
        close_at: bytes of payload after which a frame takes no more operations.
        max_frame: bytes of tag and payload that a frame may have.

    Attributes:
        buffer: what waits, for a look at its length alone; another one after each `take`.
        frames: how many were closed so far.
    """

    __slots__ = ("_close_at", "_count", "_full", "_max_frame", "_open", "_tag", "buffer", "frames")

    def __init__(self, close_at: int = CLOSE_AT, max_frame: int = MAX_FRAME) -> None:
        self._close_at = close_at
        self._max_frame = max_frame
        self.buffer = bytearray()
        self._tag = -1  # of the open frame; -1: none is open
        self._open = 0  # where it starts
        self._full = 0  # where it closes
        self._count = 0  # of its operations
        self.frames = 0

    def __len__(self) -> int:
        """Bytes waiting."""
        return len(self.buffer)

    def append(self, tag: int, operation: bytes) -> None:
        """Add one operation that `frames.encode_operation` has encoded (once, for any number of outboxes).

        Raises:
            MessageTooLarge: no frame can hold it; what waits is unchanged.
        """
        if tag != self._tag:
            self._open_frame(tag)
        buffer = self.buffer
        buffer += operation
        self._count += 1
        if len(buffer) > self._full:
            self._end_portion(len(operation))

    def encode(self, operation: Operation) -> None:
        """Encode one operation in place and add it.

        Raises:
            MessageTooLarge: no frame can hold it; what waits is unchanged.
            Exception: whatever msgspec raises for what it cannot encode; what waits is unchanged.
        """
        tag = operation.TAG
        if tag != self._tag:
            self._open_frame(tag)
        buffer = self.buffer
        before = len(buffer)
        try:
            _encode_into(operation, buffer, -1)
        except BaseException:
            self._take_back(before)
            raise
        self._count += 1
        if len(buffer) > self._full:
            self._end_portion(len(buffer) - before)

    def encode_fields(self, tag: int, fields: tuple[object, ...], most: int) -> bytes:
        """Encode one operation, given as its fields, in place and add it; unless it is longer than so many bytes.

        So a body need not be encoded before its operation: neither a copy of it is made, nor the operation.

        Returns:
            Nothing if it was added; else the operation, as `append` takes it, and what waits is unchanged.

        Raises:
            Exception: as `encode`; what waits is unchanged.
        """
        if tag != self._tag:
            self._open_frame(tag)
        buffer = self.buffer
        before = len(buffer)
        try:
            _encode_into(fields, buffer, -1)
        except BaseException:
            self._take_back(before)
            raise
        size = len(buffer)
        if size - before > most:
            operation = bytes(memoryview(buffer)[before:])
            self._take_back(before)
            return operation
        self._count += 1
        if size > self._full:
            self._end_portion(size - before)
        return b""

    def add_frame(self, frame: bytes) -> None:
        """Add a whole frame, as `frames.encode_frame` makes it."""
        self._close_frame()
        self.buffer += frame
        self.frames += 1

    def take(self) -> bytearray:
        """Everything that waits, which becomes the caller's own. Nothing waits afterwards."""
        self._close_frame()
        taken, self.buffer = self.buffer, bytearray()
        return taken

    def _open_frame(self, tag: int) -> None:
        self._close_frame()
        self._tag = tag
        self._open = len(self.buffer)
        self.buffer += _PLACEHOLDER
        self._full = self._open + _LENGTH_BYTES + 1 + min(self._close_at, self._max_frame - 1)

    def _close_frame(self) -> None:
        if self._tag < 0:
            return
        self.frames += 1
        length = len(self.buffer) - self._open - _LENGTH_BYTES
        _pack_head(self.buffer, self._open, length, self._tag, _ARRAY32)
        _pack_count(self.buffer, self._open + _LENGTH_BYTES + 2, self._count)
        self._tag = -1
        self._count = 0

    def _end_portion(self, size: int) -> None:
        """The last operation, of `size` bytes, has filled the open frame: close it, with or without that operation."""
        buffer, tag = self.buffer, self._tag
        if len(buffer) - self._open - _LENGTH_BYTES > self._max_frame:
            operation = buffer[-size:]
            self._count -= 1
            self._take_back(len(buffer) - size)
            room = self._max_frame - (len(_PLACEHOLDER) - _LENGTH_BYTES)
            if size > room:
                raise MessageTooLarge(f"a message of {size} bytes on the wire: a frame holds at most {room}")
            self._open_frame(tag)
            buffer += operation
            self._count = 1
        self._close_frame()

    def _take_back(self, size: int) -> None:
        """Cut the buffer back to `size`, and drop the open frame if nothing is left in it."""
        del self.buffer[size:]
        if not self._count:
            del self.buffer[self._open :]
            self._tag = -1
