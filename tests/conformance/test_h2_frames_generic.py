"""HTTP/2 as any client may speak it: the cases of h2spec's lists `generic` and `hpack`, under their numbers.

The first list is of frames and field forms that a server has to understand (RFC 9113, RFC 7541), the second of header
blocks that end the connection with COMPRESSION_ERROR.
"""

from __future__ import annotations

import hpack
import pytest

from tests.support import http2_frames as h2
from tests.support.h2_peer import Code, H2Peer, Reaction, accepted, answered, connection_error
from tests.support.server import Server

PRIORITY_FLAG = 0x20
PADDED = 0x08
END = h2.END_STREAM | h2.END_HEADERS
GET = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/v2/health/live"), (b":authority", b"a")]
NAMED = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/v2"), (b":authority", b"a")]
HEAD = [(b":method", b"HEAD"), *NAMED[1:]]
POST = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/v2/models/none/infer"), (b":authority", b"a")]
BLOCK = b"".join(h2.literal(name, value) for name, value in GET)
HALF_CLOSED = h2.frame(h2.SETTINGS, 0, 0, b"\0\4\0\0\0\0") + h2.headers(1, NAMED, end=True)
#: `user-agent` of the static table.
USER_AGENT = 58


def get(stream: int, more: bytes = b"") -> bytes:
    return h2.headers(stream, GET, end=True, more=more)


def post(stream: int = 1) -> bytes:
    return h2.headers(stream, POST)


def data(payload: bytes = b"x", flags: int = h2.END_STREAM) -> bytes:
    return h2.frame(h2.DATA, flags, 1, payload)


def priority(stream: int, on: int = 0, weight: int = 1, *, exclusive: bool = False) -> bytes:
    return h2.frame(h2.PRIORITY, 0, stream, (on | exclusive << 31).to_bytes(4, "big") + bytes([weight - 1]))


def window(stream: int) -> bytes:
    return h2.frame(h2.WINDOW_UPDATE, 0, stream, (100).to_bytes(4, "big"))


def reset(stream: int) -> bytes:
    return h2.frame(h2.RST_STREAM, 0, stream, (8).to_bytes(4, "big"))


def huffman(text: bytes) -> bytes:
    """A string of HPACK in Huffman code."""
    encoder = hpack.hpack.HuffmanEncoder(
        hpack.huffman_constants.REQUEST_CODES, hpack.huffman_constants.REQUEST_CODES_LENGTH
    )
    coded = encoder.encode(text)
    return h2.integer(len(coded), 7, 0x80) + coded


def plain(text: bytes) -> bytes:
    return h2.integer(len(text), 7, 0) + text


def named(first: int, prefix_bits: int, value: bytes) -> bytes:
    """A field whose name is an index into the static table."""
    return h2.integer(USER_AGENT, prefix_bits, first) + value


def blocks(*pieces: bytes) -> bytes:
    """HEADERS and as many CONTINUATION frames as there are further pieces."""
    frames = h2.frame(h2.HEADERS, h2.END_STREAM | (h2.END_HEADERS if len(pieces) == 1 else 0), 1, pieces[0])
    for number, piece in enumerate(pieces[1:], 2):
        frames += h2.frame(h2.CONTINUATION, h2.END_HEADERS if number == len(pieces) else 0, 1, piece)
    return frames


AGENT = b"h2 client"
FIRST_BYTES = {"with indexing": (0x40, 6), "without indexing": (0x00, 4), "never indexed": (0x10, 4)}

CASES: list[tuple[str, bytes, Reaction]] = [
    ("1/1 the preface", b"", accepted),
    ("2/1 idle: PRIORITY", priority(1), accepted),
    ("2/2 half-closed: WINDOW_UPDATE", HALF_CLOSED + window(1), accepted),
    ("2/3 half-closed: PRIORITY", HALF_CLOSED + priority(1), accepted),
    ("2/4 half-closed: RST_STREAM", HALF_CLOSED + reset(1), accepted),
    ("2/5 closed: PRIORITY", get(1) + priority(1), answered(1)),
    ("3.1/1 DATA", post() + data(), answered(1, b"404")),
    ("3.1/2 several DATA", post() + data(flags=0) + data(), answered(1, b"404")),
    ("3.1/3 DATA with padding", post() + data(b"\6Test" + bytes(6), h2.END_STREAM | PADDED), answered(1, b"404")),
    ("3.2/1 HEADERS", get(1), answered(1)),
    ("3.2/2 HEADERS with padding", h2.frame(h2.HEADERS, END | PADDED, 1, b"\6" + BLOCK + bytes(6)), answered(1)),
    (
        "3.2/3 HEADERS with priority",
        h2.frame(h2.HEADERS, END | PRIORITY_FLAG, 1, bytes(4) + b"\xff" + BLOCK),
        answered(1),
    ),
    ("3.3/1 PRIORITY with weight 1", priority(1, weight=1), accepted),
    ("3.3/2 PRIORITY with weight 256", priority(1, weight=256), accepted),
    ("3.3/3 PRIORITY that depends on a stream", priority(1) + priority(3, on=1), accepted),
    ("3.3/4 an exclusive PRIORITY", priority(1) + priority(3, on=1, exclusive=True), accepted),
    ("3.3/5 PRIORITY of a later stream, then HEADERS", priority(7) + get(1), answered(1)),
    ("3.4/1 RST_STREAM", post() + reset(1) + get(3), answered(3)),
    ("3.5/1 SETTINGS", h2.frame(h2.SETTINGS, 0, 0, b"\0\3\0\0\0\x64"), accepted),
    ("3.7/1 PING", h2.frame(h2.PING, 0, 0, bytes(8)), accepted),
    ("3.9/1 WINDOW_UPDATE of the connection", window(0), accepted),
    ("3.9/2 WINDOW_UPDATE of a stream", post() + window(1), accepted),
    ("3.10/1 one CONTINUATION", blocks(BLOCK[:20], BLOCK[20:]), answered(1)),
    ("3.10/2 several CONTINUATION", blocks(BLOCK[:20], BLOCK[20:30], BLOCK[30:]), answered(1)),
    ("4/1 GET", get(1), answered(1)),
    ("4/2 HEAD", h2.headers(1, HEAD, end=True), answered(1)),
    ("4/3 POST", post() + data(), answered(1, b"404")),
    (
        "4/4 POST with trailers",
        post() + data(flags=0) + h2.headers(1, [(b"x-test", b"ok")], end=True),
        answered(1, b"404"),
    ),
    ("5/1 an indexed field", h2.frame(h2.HEADERS, END, 1, BLOCK + b"\x90"), answered(1)),
    *(
        (f"5 {form}, {name}, {'Huffman' if string is huffman else 'plain'}", get(1, field), answered(1))
        for form, (first, bits) in FIRST_BYTES.items()
        for string in (plain, huffman)
        for name, field in (
            ("indexed name", named(first, bits, string(AGENT))),
            ("new name", bytes([first]) + string(b"x-test") + string(AGENT)),
        )
    ),
    ("5/14 a table size update", blocks(b"\x21" + BLOCK), answered(1)),
    ("5/15 several table size updates", blocks(b"\x20\x3f\x01" + BLOCK), answered(1)),
]

COMPRESSION = connection_error(Code.COMPRESSION_ERROR)
#: Huffman code of "a" is 5 bits, 00011; the end of string is thirty ones.
BROKEN = [
    ("2.3.3/1 an index that is not in the tables", b"\xc6"),
    ("2.3.3/2 a name's index that is not in the tables", b"\x7f\x07" + plain(b"x")),
    ("4.2/1 a table size update behind fields", b"\x21"),
    ("5.2/1 padding of more than 7 bits", b"\0" + plain(b"x-test") + b"\x82\x1f\xff"),
    ("5.2/2 padding of zeros", b"\0" + plain(b"x-test") + b"\x81\x18"),
    ("5.2/3 the end of string in a string", b"\0" + plain(b"x-test") + b"\x84\xff\xff\xff\xff"),
    ("6.1/1 index 0", b"\x80"),
]


@pytest.mark.parametrize(("name", "sent", "reaction"), CASES, ids=[case[0] for case in CASES])
def test_generic(zoo_server: Server, name: str, sent: bytes, reaction: Reaction) -> None:
    with H2Peer(zoo_server.host, zoo_server.port) as peer:
        reaction(peer.send(sent))


def test_generic_3_8_1_goaway(zoo_server: Server) -> None:
    """A client that takes its leave is let go, or has its PING answered first."""
    with H2Peer(zoo_server.host, zoo_server.port) as peer:
        peer.send(get(1)).answer(1)
        peer.send(h2.frame(h2.GOAWAY, 0, 0, bytes(8)))
        peer.end()
        assert all(frame.kind != h2.GOAWAY or frame.payload[4:8] == bytes(4) for frame in peer.frames)


def test_a_head_request_has_no_body(zoo_server: Server) -> None:
    with H2Peer(zoo_server.host, zoo_server.port) as peer:
        assert peer.send(h2.headers(1, HEAD, end=True)).answer(1) == b""


@pytest.mark.parametrize(("name", "field"), BROKEN, ids=[case[0] for case in BROKEN])
def test_hpack(zoo_server: Server, name: str, field: bytes) -> None:
    with H2Peer(zoo_server.host, zoo_server.port) as peer:
        COMPRESSION(peer.send(get(1, field)))


def test_hpack_6_3_1_a_table_larger_than_allowed(zoo_server: Server) -> None:
    """The server's SETTINGS_HEADER_TABLE_SIZE is the default, 4096."""
    with H2Peer(zoo_server.host, zoo_server.port) as peer:
        COMPRESSION(peer.send(blocks(h2.integer(4097, 5, 0x20) + BLOCK)))
