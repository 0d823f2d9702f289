"""A bounded reader of protobuf wire format over a file that may be hostile and need not fit in memory.

Fields are walked through a small window of the file; a field that nobody asks for is stepped over by its length,
never read. The file is read and not mapped: a file that shrinks under a mapping kills the process that touches it, a
file that shrinks under a read is an error to report.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

VARINT = 0
FIXED64 = 1
BYTES = 2
FIXED32 = 5

WINDOW_BYTES = 64 * 1024
#: About six seconds of walking; a language model with every layer unrolled has a third of it.
MAX_FIELDS = 3_000_000


class ProtobufError(ValueError):
    """The bytes are not a protobuf message, or need more work than any honest file."""


class Field(NamedTuple):
    """One field: its number, its wire type, and the value of a varint or the byte range of anything else."""

    number: int
    wire: int
    value: int
    start: int
    end: int


class Reader:
    """Walks the messages of one open binary file of a known size; not thread-safe.

    All offsets are absolute file offsets, so a message inside a message is walked by the same object.
    """

    def __init__(self, file: BinaryIO, size_bytes: int, *, max_fields: int = MAX_FIELDS) -> None:
        self._file = file
        self._size = size_bytes
        self._window = b""
        self._base = 0
        self._fields_left = max_fields

    def fields(self, start: int, end: int) -> Iterator[Field]:
        """The fields of the message at [start, end), in the order of the file."""
        position = start
        while position < end:
            self._fields_left -= 1
            if self._fields_left < 0:
                raise ProtobufError("has more fields than any model needs; refusing to read on")
            tag_at = position
            tag, position = self._varint(position, end)
            number, wire = tag >> 3, tag & 7
            if number == 0 or number >= 1 << 29:
                raise ProtobufError(f"has field number {number} at byte {tag_at}, which protobuf does not allow")
            if wire == VARINT:
                value, position = self._varint(position, end)
                yield Field(number, wire, value, position, position)
                continue
            if wire == BYTES:
                length, position = self._varint(position, end)
            elif wire == FIXED64:
                length = 8
            elif wire == FIXED32:
                length = 4
            else:
                raise ProtobufError(f"has wire type {wire} at byte {tag_at}, which ONNX does not use")
            if length > end - position:
                raise ProtobufError(
                    f"is truncated or damaged: field {number} at byte {tag_at} claims {length} bytes, "
                    f"{end - position} are left"
                )
            yield Field(number, wire, 0, position, position + length)
            position += length

    def read(self, start: int, end: int) -> bytes:
        """The bytes at [start, end); the caller bounds the length."""
        offset = start - self._base
        if offset >= 0 and end <= self._base + len(self._window):
            return self._window[offset : offset + end - start]
        self._file.seek(start)
        data = self._file.read(end - start)
        if len(data) != end - start:
            raise ProtobufError(f"shrank while it was read: byte {start + len(data)} of {self._size} is gone")
        return data

    def _varint(self, position: int, end: int) -> tuple[int, int]:
        offset = position - self._base
        # A varint has at most ten bytes, so one check of the window covers all of it.
        if offset < 0 or offset + 10 > len(self._window):
            if position >= end:
                raise ProtobufError(f"is truncated or damaged: a number is missing at byte {position}")
            self._load(position)
            offset = 0
        window = self._window
        stop = min(offset + 10, offset + end - position, len(window))
        result = 0
        shift = 0
        for index in range(offset, stop):
            byte = window[index]
            result |= (byte & 0x7F) << shift
            if byte < 0x80:
                if result >= 1 << 64:
                    break
                return result, position + index - offset + 1
            shift += 7
        raise ProtobufError(f"is truncated or damaged: the number at byte {position} does not end")

    def _load(self, position: int) -> None:
        self._file.seek(position)
        self._window = self._file.read(WINDOW_BYTES)
        self._base = position


def signed(value: int) -> int:
    """The int64 that a varint of 64 bits stands for."""
    return value - (1 << 64) if value >= 1 << 63 else value
