"""RFC 9113 frame by frame: the cases of h2spec's list `http2`, under its section and case numbers.

h2spec is the field's suite for HTTP/2 servers; each of its cases stands here as the bytes a client sends and the
reaction that the section requires. Where h2spec takes several reactions for right, the table has the one we give.
"""

from __future__ import annotations

import struct

import pytest

from tests.support import http2_frames as h2
from tests.support.h2_peer import Code, H2Peer, Reaction, accepted, answered, connection_error, stream_error
from tests.support.server import Server

PRIORITY_FLAG = 0x20
PADDED = 0x08
GET = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/v2/health/live"), (b":authority", b"a")]
#: An answer with a body, so that a window of 0 keeps its stream half-closed.
NAMED = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/v2"), (b":authority", b"a")]
POST = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/v2/models/none/infer"), (b":authority", b"a")]
BLOCK = b"".join(h2.literal(name, value) for name, value in GET)

PROTOCOL, CLOSED, FLOW = Code.PROTOCOL_ERROR, Code.STREAM_CLOSED, Code.FLOW_CONTROL_ERROR
SIZE, COMPRESSION = Code.FRAME_SIZE_ERROR, Code.COMPRESSION_ERROR


def setting(number: int, value: int) -> bytes:
    return struct.pack(">HI", number, value)


def settings(*pairs: tuple[int, int]) -> bytes:
    return h2.frame(h2.SETTINGS, 0, 0, b"".join(setting(*pair) for pair in pairs))


def window(stream: int, increment: int) -> bytes:
    return h2.frame(h2.WINDOW_UPDATE, 0, stream, increment.to_bytes(4, "big"))


def reset(stream: int, code: int = 8) -> bytes:
    return h2.frame(h2.RST_STREAM, 0, stream, code.to_bytes(4, "big"))


def priority(stream: int, on: int, weight: int = 15) -> bytes:
    return h2.frame(h2.PRIORITY, 0, stream, on.to_bytes(4, "big") + bytes([weight]))


def get(stream: int, *more: tuple[bytes, bytes]) -> bytes:
    return h2.headers(stream, [*GET, *more], end=True)


def without(name: bytes) -> bytes:
    return h2.headers(1, [field for field in GET if field[0] != name], end=True)


def post(*more: tuple[bytes, bytes]) -> bytes:
    return h2.headers(1, [*POST, *more])


def continuation(stream: int, block: bytes, *, last: bool = True) -> bytes:
    return h2.frame(h2.CONTINUATION, h2.END_HEADERS if last else 0, stream, block)


def gone_or_accepted(peer: H2Peer) -> None:
    """A client without streams that said GOAWAY may find the connection closed before its PING: h2spec has both."""
    try:
        peer.send(h2.frame(h2.PING, 0, 0, bytes(8)))
        peer.end()
    except (BrokenPipeError, ConnectionResetError):
        pass
    assert all(frame.kind != h2.GOAWAY or frame.payload[4:8] == bytes(4) for frame in peer.frames), peer.frames


NO_WINDOW = settings((4, 0))
HALF_CLOSED = NO_WINDOW + h2.headers(1, NAMED, end=True)
#: HEADERS of which the rest is to come.
OPEN_BLOCK = h2.frame(h2.HEADERS, h2.END_STREAM, 1, BLOCK[:20])
UNKNOWN = h2.frame(0x16, 0, 0, bytes(8))
MAX = (1 << 31) - 1

CASES: list[tuple[str, bytes, Reaction]] = [
    ("3.5/1 a valid preface", get(1), answered(1)),
    ("4.1/1 a frame of unknown type", UNKNOWN, accepted),
    ("4.1/2 undefined flags", h2.frame(h2.PING, 0x16, 0, bytes(8)), accepted),
    ("4.1/3 the reserved bit", h2.frame(h2.PING, 0, 1 << 31, bytes(8)), accepted),
    ("4.2/1 DATA of 2^14 octets", post() + h2.frame(h2.DATA, 1, 1, bytes(1 << 14)), answered(1, b"404")),
    ("4.2/2 DATA above the maximum", post() + h2.frame(h2.DATA, 1, 1, bytes((1 << 18) + 1)), connection_error(SIZE)),
    ("4.2/3 HEADERS above the maximum", h2.frame(h2.HEADERS, 5, 1, bytes((1 << 18) + 1)), connection_error(SIZE)),
    (
        "4.3/1 a broken header block",
        h2.frame(h2.HEADERS, 5, 1, b"\x7f\xff\xff\xff\xff\xff"),
        connection_error(COMPRESSION),
    ),
    ("4.3/2 PRIORITY in a header block", OPEN_BLOCK + priority(1, 0), connection_error(PROTOCOL)),
    ("4.3/3 HEADERS of another stream in a header block", OPEN_BLOCK + get(3), connection_error(PROTOCOL)),
    ("5.1/1 idle: DATA", h2.frame(h2.DATA, 1, 1, b"x"), connection_error(PROTOCOL)),
    ("5.1/2 idle: RST_STREAM", reset(1), connection_error(PROTOCOL)),
    ("5.1/3 idle: WINDOW_UPDATE", window(1, 100), connection_error(PROTOCOL)),
    ("5.1/4 idle: CONTINUATION", continuation(1, BLOCK), connection_error(PROTOCOL)),
    ("5.1/5 half-closed: DATA", HALF_CLOSED + h2.frame(h2.DATA, 1, 1, b"x"), connection_error(CLOSED)),
    ("5.1/6 half-closed: HEADERS", HALF_CLOSED + get(1), connection_error(CLOSED)),
    ("5.1/7 half-closed: CONTINUATION", HALF_CLOSED + continuation(1, BLOCK), connection_error(PROTOCOL)),
    ("5.1/8 closed by RST_STREAM: DATA", post() + reset(1) + h2.frame(h2.DATA, 1, 1, b"x"), connection_error(CLOSED)),
    ("5.1/9 closed by RST_STREAM: HEADERS", post() + reset(1) + get(1), connection_error(CLOSED)),
    (
        "5.1/10 closed by RST_STREAM: CONTINUATION",
        post() + reset(1) + continuation(1, BLOCK),
        connection_error(PROTOCOL),
    ),
    ("5.1.1/1 an even stream", get(2), connection_error(PROTOCOL)),
    ("5.1.1/2 a smaller stream", get(5) + get(3), connection_error(PROTOCOL)),
    (
        "5.1.2/1 more streams than allowed",
        NO_WINDOW + b"".join(h2.headers(2 * i + 1, NAMED, end=True) for i in range(101)),
        stream_error(201, Code.REFUSED_STREAM, PROTOCOL),
    ),
    (
        "5.3.1/1 HEADERS that depend on themselves",
        h2.frame(h2.HEADERS, 5 | PRIORITY_FLAG, 1, b"\0\0\0\x01\x10" + BLOCK),
        connection_error(1, PROTOCOL),
    ),
    ("5.3.1/2 PRIORITY that depends on itself", priority(1, 1), connection_error(PROTOCOL)),
    ("5.4.1/1 a connection error closes", h2.frame(h2.PING, 0, 0, bytes(6)), connection_error(SIZE)),
    ("5.5/1 an unknown extension frame", UNKNOWN, accepted),
    (
        "5.5/2 an unknown frame in a header block",
        OPEN_BLOCK + h2.frame(0x16, 0, 1, bytes(8)),
        connection_error(PROTOCOL),
    ),
    ("6.1/1 DATA on stream 0", h2.frame(h2.DATA, 1, 0, b"x"), connection_error(PROTOCOL)),
    ("6.1/2 DATA on a half-closed stream", HALF_CLOSED + h2.frame(h2.DATA, 1, 1, b"x"), connection_error(CLOSED)),
    (
        "6.1/3 DATA with too much padding",
        post() + h2.frame(h2.DATA, 1 | PADDED, 1, b"\x06Test"),
        connection_error(PROTOCOL),
    ),
    ("6.2/1 PRIORITY before END_HEADERS", OPEN_BLOCK + priority(1, 0), connection_error(PROTOCOL)),
    ("6.2/2 another stream before END_HEADERS", OPEN_BLOCK + get(3), connection_error(PROTOCOL)),
    ("6.2/3 HEADERS on stream 0", get(0), connection_error(PROTOCOL)),
    (
        "6.2/4 HEADERS with too much padding",
        h2.frame(h2.HEADERS, 5 | PADDED, 1, b"\xff" + BLOCK),
        connection_error(PROTOCOL),
    ),
    ("6.3/1 PRIORITY on stream 0", priority(0, 1), connection_error(PROTOCOL)),
    ("6.3/2 PRIORITY of 4 octets", post() + h2.frame(h2.PRIORITY, 0, 1, bytes(4)), connection_error(SIZE)),
    ("6.4/1 RST_STREAM on stream 0", reset(0), connection_error(PROTOCOL)),
    ("6.4/2 RST_STREAM on an idle stream", reset(1), connection_error(PROTOCOL)),
    ("6.4/3 RST_STREAM of 3 octets", post() + h2.frame(h2.RST_STREAM, 0, 1, bytes(3)), connection_error(SIZE)),
    ("6.5/1 SETTINGS with ACK and a payload", h2.frame(h2.SETTINGS, 1, 0, bytes(6)), connection_error(SIZE)),
    ("6.5/2 SETTINGS on a stream", h2.frame(h2.SETTINGS, 0, 1, setting(3, 9)), connection_error(PROTOCOL)),
    ("6.5/3 SETTINGS of 3 octets", h2.frame(h2.SETTINGS, 0, 0, bytes(3)), connection_error(SIZE)),
    ("6.5.2/1 ENABLE_PUSH 2", settings((2, 2)), connection_error(PROTOCOL)),
    ("6.5.2/2 INITIAL_WINDOW_SIZE 2^31", settings((4, 1 << 31)), connection_error(FLOW)),
    ("6.5.2/3 MAX_FRAME_SIZE 2^14 - 1", settings((5, (1 << 14) - 1)), connection_error(PROTOCOL)),
    ("6.5.2/4 MAX_FRAME_SIZE 2^24", settings((5, 1 << 24)), connection_error(PROTOCOL)),
    ("6.5.2/5 an unknown setting", settings((0xFF, 0)), accepted),
    ("6.7/3 PING on a stream", h2.frame(h2.PING, 0, 1, bytes(8)), connection_error(PROTOCOL)),
    ("6.7/4 PING of 6 octets", h2.frame(h2.PING, 0, 0, bytes(6)), connection_error(SIZE)),
    ("6.8/1 GOAWAY on a stream", h2.frame(h2.GOAWAY, 0, 1, bytes(8)), connection_error(PROTOCOL)),
    ("6.9/1 WINDOW_UPDATE of 0", window(0, 0), connection_error(PROTOCOL)),
    ("6.9/2 WINDOW_UPDATE of 0 on a stream", post() + window(1, 0), connection_error(PROTOCOL)),
    ("6.9/3 WINDOW_UPDATE of 3 octets", h2.frame(h2.WINDOW_UPDATE, 0, 0, bytes(3)), connection_error(SIZE)),
    ("6.9.1/2 a connection's window above 2^31 - 1", window(0, MAX) * 2, connection_error(FLOW)),
    ("6.9.1/3 a stream's window above 2^31 - 1", post() + window(1, MAX) * 2, stream_error(1, FLOW)),
    ("6.9.2/3 INITIAL_WINDOW_SIZE above the maximum", settings((4, 1 << 31)), connection_error(FLOW)),
    (
        "6.10/1 several CONTINUATIONs",
        OPEN_BLOCK + continuation(1, BLOCK[20:30], last=False) + continuation(1, BLOCK[30:]),
        answered(1),
    ),
    (
        "6.10/2 CONTINUATION and then DATA",
        OPEN_BLOCK + continuation(1, BLOCK[20:30], last=False) + h2.frame(h2.DATA, 1, 1, b"x"),
        connection_error(PROTOCOL),
    ),
    ("6.10/3 CONTINUATION on stream 0", OPEN_BLOCK + continuation(0, BLOCK[20:]), connection_error(PROTOCOL)),
    ("6.10/4 CONTINUATION after END_HEADERS", post() + continuation(1, BLOCK), connection_error(PROTOCOL)),
    (
        "6.10/5 CONTINUATION after the last one",
        OPEN_BLOCK + continuation(1, BLOCK[20:]) + continuation(1, BLOCK),
        connection_error(PROTOCOL),
    ),
    (
        "6.10/6 CONTINUATION after DATA",
        post() + h2.frame(h2.DATA, 0, 1, b"x") + continuation(1, BLOCK),
        connection_error(PROTOCOL),
    ),
    ("7/1 GOAWAY of an unknown code", h2.frame(h2.GOAWAY, 0, 0, struct.pack(">II", 0, 0xFF)), gone_or_accepted),
    ("7/2 RST_STREAM of an unknown code", post() + reset(1, 0xFF), accepted),
    ("8.1/1 a second HEADERS without END_STREAM", post() + h2.headers(1, [(b"x", b"y")]), stream_error(1, PROTOCOL)),
    ("8.1.2/1 an upper-case name", get(1, (b"X-TEST", b"ok")), stream_error(1, PROTOCOL)),
    ("8.1.2.1/1 an unknown pseudo-header", get(1, (b":test", b"ok")), stream_error(1, PROTOCOL)),
    ("8.1.2.1/2 a pseudo-header of responses", get(1, (b":status", b"200")), stream_error(1, PROTOCOL)),
    (
        "8.1.2.1/3 a pseudo-header as trailer",
        post() + h2.headers(1, [(b":path", b"/")], end=True),
        stream_error(1, PROTOCOL),
    ),
    (
        "8.1.2.1/4 a pseudo-header behind a field",
        h2.headers(1, [*GET[:-1], (b"x-test", b"ok"), GET[-1]], end=True),
        stream_error(1, PROTOCOL),
    ),
    ("8.1.2.2/1 connection", get(1, (b"connection", b"keep-alive")), stream_error(1, PROTOCOL)),
    ("8.1.2.2/2 te other than trailers", get(1, (b"te", b"trailers, deflate;q=0.5")), stream_error(1, PROTOCOL)),
    (
        "8.1.2.3/1 an empty :path",
        h2.headers(1, [*GET[:2], (b":path", b""), GET[3]], end=True),
        stream_error(1, PROTOCOL),
    ),
    ("8.1.2.3/2 no :method", without(b":method"), stream_error(1, PROTOCOL)),
    ("8.1.2.3/3 no :scheme", without(b":scheme"), stream_error(1, PROTOCOL)),
    ("8.1.2.3/4 no :path", without(b":path"), stream_error(1, PROTOCOL)),
    ("8.1.2.3/5 :method twice", h2.headers(1, [GET[0], *GET], end=True), stream_error(1, PROTOCOL)),
    ("8.1.2.3/6 :scheme twice", h2.headers(1, [GET[1], *GET], end=True), stream_error(1, PROTOCOL)),
    ("8.1.2.3/7 :path twice", h2.headers(1, [GET[2], *GET], end=True), stream_error(1, PROTOCOL)),
    (
        "8.1.2.6/1 content-length that is not DATA's",
        post((b"content-length", b"1")) + h2.frame(h2.DATA, 1, 1, b"test"),
        stream_error(1, PROTOCOL),
    ),
    (
        "8.1.2.6/2 content-length that is not the sum of DATA",
        post((b"content-length", b"1")) + h2.frame(h2.DATA, 0, 1, b"t") + h2.frame(h2.DATA, 1, 1, b"est"),
        stream_error(1, PROTOCOL),
    ),
    (
        "8.2/1 PUSH_PROMISE",
        post() + h2.frame(h2.PUSH_PROMISE, h2.END_HEADERS, 1, (3).to_bytes(4, "big") + BLOCK),
        connection_error(PROTOCOL),
    ),
]


@pytest.mark.parametrize(("sent", "reaction"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_the_section_s_reaction(zoo_server: Server, sent: bytes, reaction: Reaction) -> None:
    with H2Peer(zoo_server.host, zoo_server.port) as peer:
        reaction(peer.send(sent))


CLOSED_STREAM: list[tuple[str, bytes, Reaction]] = [
    ("5.1/11 closed: DATA", h2.frame(h2.DATA, 1, 1, b"x"), connection_error(CLOSED)),
    ("5.1/12 closed: HEADERS", get(1), connection_error(CLOSED, PROTOCOL)),
    ("5.1/13 closed: CONTINUATION", continuation(1, BLOCK), connection_error(PROTOCOL)),
]


@pytest.mark.parametrize(("sent", "reaction"), [c[1:] for c in CLOSED_STREAM], ids=[c[0] for c in CLOSED_STREAM])
def test_a_stream_that_was_answered_is_closed(zoo_server: Server, sent: bytes, reaction: Reaction) -> None:
    with H2Peer(zoo_server.host, zoo_server.port) as peer:
        peer.send(get(1)).answer(1)
        reaction(peer.send(sent))


def test_3_5_2_an_invalid_preface_ends_the_connection(zoo_server: Server) -> None:
    with H2Peer(zoo_server.host, zoo_server.port, settings=None) as peer:
        peer.send(b"INVALID CONNECTION PREFACE\r\n\r\n").end()


def test_5_4_1_2_goaway_names_the_last_stream(zoo_server: Server) -> None:
    with H2Peer(zoo_server.host, zoo_server.port) as peer:
        peer.send(get(1)).answer(1)
        peer.send(h2.frame(h2.PING, 0, 0, bytes(6)))
        assert peer.goaway()[:2] == (1, SIZE)


def test_6_5_3_1_the_last_of_several_values_counts(zoo_server: Server) -> None:
    with H2Peer(zoo_server.host, zoo_server.port, setting(4, 100)) as peer:
        peer.send(settings((4, 100), (4, 1)) + h2.headers(1, NAMED, end=True))
        assert len(peer.wait(h2.DATA, 1).payload) == 1


def test_6_5_3_2_settings_are_acknowledged(zoo_server: Server) -> None:
    with H2Peer(zoo_server.host, zoo_server.port) as peer:
        assert peer.wait(h2.SETTINGS, 0, h2.ACK).payload == b""


def test_6_7_1_and_2_a_ping_comes_back_and_an_acknowledged_one_does_not(zoo_server: Server) -> None:
    with H2Peer(zoo_server.host, zoo_server.port) as peer:
        peer.send(h2.frame(h2.PING, h2.ACK, 0, b"no reply"))
        peer.ping()
        assert [frame.payload for frame in peer.frames if frame.kind == h2.PING] == [b"are you?"]


def test_6_9_1_1_no_more_than_the_window_is_sent(zoo_server: Server) -> None:
    with H2Peer(zoo_server.host, zoo_server.port, setting(4, 1)) as peer:
        peer.send(h2.headers(1, NAMED, end=True))
        assert len(peer.wait(h2.DATA, 1).payload) == 1
        peer.ping()
        assert len(peer.body(1)) == 1


def test_6_9_2_1_and_2_a_changed_initial_window_counts_for_open_streams_and_may_be_negative(zoo_server: Server) -> None:
    with H2Peer(zoo_server.host, zoo_server.port, setting(4, 3)) as peer:
        peer.send(h2.headers(1, NAMED, end=True))
        assert len(peer.wait(h2.DATA, 1).payload) == 3
        peer.send(settings((4, 2)) + window(1, 1))
        peer.ping()
        assert len(peer.body(1)) == 3
        peer.send(window(1, 1))
        peer.ping()
        peer.send(settings((4, 1 << 16)))
        assert peer.answer(1).startswith(b'{"')


def test_the_number_of_a_stream_that_ended_is_not_one_that_never_was(zoo_server: Server) -> None:
    """More streams than libnghttp2 remembers have ended: late trailers of the first are no error of the connection."""
    with H2Peer(zoo_server.host, zoo_server.port) as peer:
        for stream in range(1, 301, 2):
            peer.send(get(stream)).answer(stream)
        peer.send(h2.headers(1, [(b"x", b"y")], end=True) + get(301))
        answered(301)(peer)


@pytest.mark.parametrize("late", [1, 3, 7])
def test_5_1_1_2_any_number_that_was_passed_over(zoo_server: Server, late: int) -> None:
    with H2Peer(zoo_server.host, zoo_server.port) as peer:
        connection_error(PROTOCOL)(peer.send(get(5) + get(9) + get(late)))


def test_frames_on_their_way_to_a_stream_that_the_server_reset_are_ignored(zoo_server: Server) -> None:
    """RFC 9113 5.1: they may have been sent before the reset was seen."""
    with H2Peer(zoo_server.host, zoo_server.port) as peer:
        peer.send(post((b"connection", b"close"))).wait(h2.RST_STREAM, 1)
        peer.send(h2.frame(h2.DATA, 0, 1, b"x") + window(1, 9) + h2.headers(1, [(b"x", b"y")], end=True) + get(3))
        answered(3)(peer)
