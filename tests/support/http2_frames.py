"""HTTP/2 frames by hand, for tests that have to send what no client library would: RFC 9113 and RFC 7541, nothing kept.

Header fields are literals that are not put into the table, but where a test asks for an index.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM = 1
ACK = 1
END_HEADERS = 4

Fields = Iterable[tuple[bytes, bytes]]


class Frame(NamedTuple):
    kind: int
    flags: int
    stream: int
    payload: bytes


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def integer(value: int, prefix_bits: int, first: int) -> bytes:
    """HPACK's integer; `first` has the bits before the prefix."""
    most = (1 << prefix_bits) - 1
    if value < most:
        return bytes([first | value])
    out = bytearray([first | most])
    value -= most
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def literal(name: bytes, value: bytes, first: int = 0) -> bytes:
    """A field with a literal name; first 0x40 puts it into the table."""
    return bytes([first]) + integer(len(name), 7, 0) + name + integer(len(value), 7, 0) + value


def grpc_fields(path: bytes, *more: tuple[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    return [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path),
        (b":authority", b"a"),
        (b"content-type", b"application/grpc"),
        (b"te", b"trailers"),
        *more,
    ]


def headers(stream: int, fields: Fields, *, end: bool = False, more: bytes = b"") -> bytes:
    """One HEADERS frame; `more` is appended to the block as it is."""
    block = b"".join(literal(name, value) for name, value in fields) + more
    return frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), stream, block)


def message(data: bytes) -> bytes:
    """gRPC's prefix and the message."""
    return b"\0" + len(data).to_bytes(4, "big") + data


def call(stream: int, path: bytes, data: bytes) -> bytes:
    """A whole unary gRPC call."""
    return headers(stream, grpc_fields(path)) + frame(DATA, END_STREAM, stream, message(data))


def split_frames(data: bytes) -> Iterator[Frame]:
    """The complete frames at the start of received bytes."""
    at = 0
    while len(data) >= at + 9:
        end = at + 9 + int.from_bytes(data[at : at + 3], "big")
        if len(data) < end:
            return
        stream = int.from_bytes(data[at + 5 : at + 9], "big")
        yield Frame(data[at + 3], data[at + 4], stream, data[at + 9 : end])
        at = end
