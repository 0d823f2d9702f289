"""What a client gets over a socket for each broken, hostile or unusual HTTP/1.1 request: the table of required answers.

Every refused request is followed by a good one in the same bytes, which must never be answered.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from tests.fast.test_http1_chunk import REFUSED as REFUSED_CHUNKS
from tests.fast.test_http1_head import REFUSED as REFUSED_HEADS
from tests.support.onnx_writer import identity, write_repository
from tests.support.server import Server, running
from tests.support.wire import LIVE, LIVE_BODY, Wire, chunked, infer, post

pytestmark = pytest.mark.slow

MAX_BODY_BYTES = 4 << 20
HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
#: Frames of HTTP/2: an empty SETTINGS, and a PING with the server's answer to it.
HTTP2_SETTINGS = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
HTTP2_PING, HTTP2_PONG = (bytes([0, 0, 8, 6, flags, 0, 0, 0, 0]) + b"headrace" for flags in (0, 1))
ECHO = "/v2/models/echo/infer"
GOOD_BODY = json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2.5]}]}).encode()
GOOD = post(ECHO, GOOD_BODY)
CHUNKED_HEAD = b"POST " + ECHO.encode() + b" HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = write_repository(tmp_path_factory.mktemp("models"), {"echo": identity("FP32", (-1, 2))})
    with running(root, "--workers", "1", "--max-body-bytes", str(MAX_BODY_BYTES)) as server:
        yield server


@pytest.fixture
def wire(server: Server) -> Iterator[Wire]:
    with Wire(server.host, server.port) as wire:
        yield wire


def get(*lines: bytes, line: bytes = b"GET /v2/health/live HTTP/1.1", host: bytes = b"Host: a") -> bytes:
    return b"\r\n".join([line, *([host] if host else []), *lines, b"", b""])


def upload(*lines: bytes) -> bytes:
    """The head of a POST whose framing is in `lines`, with five bytes of body."""
    return get(*lines, line=b"POST /v2/models/echo/infer HTTP/1.1") + b"hello"


def refused(wire: Wire, status: int) -> None:
    answer = wire.answer()
    assert answer.status == status, answer
    assert answer.headers["connection"] == "close"
    assert answer.headers["content-type"] == "application/json"
    assert list(answer.json()) == ["error"]
    assert answer.json()["error"]
    wire.end()


def echoed(wire: Wire, data: list[float] | None = None) -> None:
    answer = wire.answer()
    assert answer.status == 200, answer
    assert answer.json()["outputs"][0]["data"] == (data or [1.0, 2.5])


#: One name for each row and case of the table: (bytes, status). All are answered with `Connection: close`.
REFUSED: dict[str, tuple[bytes, int]] = {
    "length and coding": (upload(b"Content-Length: 5", b"Transfer-Encoding: chunked"), 400),
    "coding and length": (upload(b"Transfer-Encoding: chunked", b"Content-Length: 5"), 400),
    "list of lengths": (upload(b"Content-Length: 5, 5"), 400),
    "equal lengths": (upload(b"Content-Length: 5", b"Content-Length: 5"), 400),
    "different lengths": (upload(b"Content-Length: 5", b"Content-Length: 6"), 400),
    "length +": (upload(b"Content-Length: +5"), 400),
    "length -": (upload(b"Content-Length: -5"), 400),
    "length _": (upload(b"Content-Length: 1_0"), 400),
    "length 0x": (upload(b"Content-Length: 0x5"), 400),
    "length 0o": (upload(b"Content-Length: 0o5"), 400),
    "length with a space": (upload(b"Content-Length: 5 5"), 400),
    "length empty": (upload(b"Content-Length:"), 400),
    "length above 2^63": (upload(b"Content-Length: 9223372036854775808"), 400),
    "coding of HTTP/1.0": (get(b"Transfer-Encoding: chunked", line=b"POST / HTTP/1.0"), 400),
    "coding empty": (upload(b"Transfer-Encoding:"), 400),
    "coding identity": (upload(b"Transfer-Encoding: identity"), 400),
    "coding xchunked": (upload(b"Transfer-Encoding: xchunked"), 400),
    "coding chunked, chunked": (upload(b"Transfer-Encoding: chunked, chunked"), 400),
    "coding twice": (upload(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked"), 400),
    "coding not last": (upload(b"Transfer-Encoding: chunked, gzip"), 400),
    "coding unknown before chunked": (upload(b"Transfer-Encoding: gzip, chunked"), 501),
    "coding with VT": (upload(b"Transfer-Encoding: \x0bchunked"), 400),
    "coding with FF": (upload(b"Transfer-Encoding: \x0cchunked"), 400),
    "coding with NUL": (upload(b"Transfer-Encoding: chunked\0"), 400),
    "coding folded": (upload(b"Transfer-Encoding:\r\n chunked"), 400),
    "space before the colon": (get(b"A : b"), 400),
    "folded field": (get(b"A: b", b" c"), 400),
    "space before the first field": (get(host=b" Host: a"), 400),
    "empty name": (get(b": b"), 400),
    "name not a token": (get(b"A(b): c"), 400),
    "underscore twin of the coding": (upload(b"Transfer_Encoding: chunked"), 400),
    "underscore twin of the length": (upload(b"Content_Length: 5"), 400),
    "NUL in a value": (get(b"A: \0"), 400),
    "CR in a value": (get(b"A: b\rc"), 400),
    "control byte in a value": (get(b"A: \x01"), 400),
    "LF for CRLF": (get().replace(b"\r\n", b"\n"), 400),
    "host missing": (get(host=b""), 400),
    "host twice": (get(b"Host: a"), 400),
    "host empty": (get(host=b"Host:"), 400),
    "hosts joined": (get(host=b"Host: a, b"), 400),
    "host invalid": (get(host=b"Host: a/b"), 400),
    "another authority": (get(line=b"GET http://b/v2/health/live HTTP/1.1"), 400),
    "version HTTP/1": (get(line=b"GET /v2/health/live HTTP/1"), 400),
    "version HTTP/01.1": (get(line=b"GET /v2/health/live HTTP/01.1"), 400),
    "version in lower case": (get(line=b"GET /v2/health/live http/1.1"), 400),
    "version 0.9": (get(line=b"GET /v2/health/live HTTP/0.9"), 400),
    "version 2.0": (get(line=b"GET /v2/health/live HTTP/2.0"), 505),
    "target above 8 KB": (get(line=b"GET /" + b"a" * 8192 + b" HTTP/1.1"), 414),
    "head above 32 KB": (get(b"A: " + b"a" * 32768), 431),
    "101 fields": (get(*[b"A: b"] * 100), 431),
    "body above the limit": (upload(b"Content-Length: %d" % (MAX_BODY_BYTES + 1)), 413),
    "body above the limit, with 100-continue": (
        upload(b"Content-Length: %d" % (MAX_BODY_BYTES + 1), b"Expect: 100-continue"),
        413,
    ),
    "unknown expectation": (upload(b"Content-Length: 5", b"Expect: 200-ok"), 417),
    "unknown method": (get(line=b"BREW / HTTP/1.1"), 501),
    "TRACE": (get(line=b"TRACE / HTTP/1.1"), 501),
    "CONNECT": (get(line=b"CONNECT a:80 HTTP/1.1"), 501),
    "no HTTP at all": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    "chunked and coded": (CHUNKED_HEAD + b"Content-Encoding: br\r\n\r\n0\r\n\r\n", 415),
    "expecting and coded": (upload(b"Content-Length: 5", b"Content-Encoding: br", b"Expect: 100-continue"), 415),
    "no gzip": (upload(b"Content-Length: 5", b"Content-Encoding: gzip"), 400),
    "no gzip in chunks": (CHUNKED_HEAD + b"Content-Encoding: gzip\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 400),
    "chunked of another type": (CHUNKED_HEAD + b"Content-Type: text/html\r\n\r\n0\r\n\r\n", 415),
    "chunk extension above 256 bytes": (CHUNKED_HEAD + b"\r\n5;" + b"a" * 257 + b"\r\nhello", 400),
    "chunk extensions above 16 KB": (CHUNKED_HEAD + b"\r\n" + (b"1;" + b"a" * 255 + b"\r\nx\r\n") * 65, 400),
    "65,537 chunks": (CHUNKED_HEAD + b"\r\n" + b"1\r\nx\r\n" * 65537 + b"0\r\n\r\n", 400),
    "chunk overhead above 8 times the data": (
        CHUNKED_HEAD + b"\r\n" + b"0000000000000001\r\nx\r\n" * 4000 + b"0\r\n\r\n",
        400,
    ),
    "chunks above the limit": (CHUNKED_HEAD + b"\r\n" + chunked(b"x" * (MAX_BODY_BYTES + 1), 1 << 20), 413),
    **{
        f"head: {name}": (data, status) for name, (data, status, _) in REFUSED_HEADS.items() if name != "HTTP/2 preface"
    },
    **{f"chunk: {name}": (CHUNKED_HEAD + b"\r\n" + data, 400) for name, (data, _) in REFUSED_CHUNKS.items()},
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_and_closed(server: Server, name: str) -> None:
    data, status = REFUSED[name]
    with Wire(server.host, server.port) as wire:
        wire.send(data + LIVE + LIVE)
        refused(wire, status)
    with Wire(server.host, server.port) as wire:
        # Behind good requests: these are answered, and what comes after is not touched.
        wire.send(GOOD + LIVE + data + LIVE)
        echoed(wire)
        assert wire.answer().body == LIVE_BODY
        refused(wire, status)
    if len(data) < 2000:
        with Wire(server.host, server.port) as wire:
            wire.send_in_bytes(data + LIVE)
            refused(wire, status)


def test_the_http2_preface_changes_the_protocol_only_at_the_start(server: Server) -> None:
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    with Wire(server.host, server.port) as wire:
        # Length, then type 4: SETTINGS. What follows is no frame, and no HTTP/1.1 request either.
        received = b""
        wire.send(preface + LIVE)
        while data := wire.socket.recv(4096):
            received += data
        assert received[3:9] == b"\4\0\0\0\0\0"
        assert LIVE_BODY not in received
    with Wire(server.host, server.port) as wire:
        wire.send(LIVE + preface + LIVE)
        assert wire.answer().body == LIVE_BODY
        refused(wire, 505)


@pytest.mark.parametrize("send", [Wire.send, Wire.send_in_bytes])
def test_the_preface_of_http_2_switches_a_fresh_connection(wire: Wire, send: Callable[[Wire, bytes], Wire]) -> None:
    send(wire, HTTP2_PREFACE + HTTP2_SETTINGS + HTTP2_PING)
    received = b""
    while HTTP2_PONG not in received:
        more = wire.socket.recv(4096)
        assert more, received
        received += more
    # The server's own SETTINGS are the first frame that it sends.
    assert received[3] == 4


def test_the_preface_of_http_2_behind_a_request_is_refused(wire: Wire) -> None:
    wire.send(GOOD + LIVE + HTTP2_PREFACE + LIVE)
    echoed(wire)
    assert wire.answer().body == LIVE_BODY
    refused(wire, 505)


#: The request is refused from its head and its body skipped: (bytes, status, a field that the answer must have).
REFUSED_AND_KEPT: dict[str, tuple[bytes, int, tuple[str, str]]] = {
    "coded body": (post(ECHO, GOOD_BODY, b"Content-Encoding: br"), 415, ("accept-encoding", "gzip, deflate")),
    "nested codings": (post(ECHO, b"", b"Content-Encoding: gzip,gzip"), 400, ("content-type", "application/json")),
    "media type": (post(ECHO, GOOD_BODY, b"Content-Type: text/html"), 415, ("content-type", "application/json")),
    "method of a known path": (get(line=b"DELETE /v2/health/live HTTP/1.1"), 405, ("allow", "GET, HEAD")),
    "GET of infer": (get(line=b"GET /v2/models/echo/infer HTTP/1.1"), 405, ("allow", "POST")),
    "POST of live": (post("/v2/health/live", b"x" * 1000), 405, ("allow", "GET, HEAD")),
    "unknown path": (post("/v2/nothing", LIVE), 404, ("content-type", "application/json")),
    "unknown model": (post("/v2/models/nobody/infer", GOOD_BODY), 404, ("content-type", "application/json")),
    "no JSON": (post(ECHO, LIVE), 400, ("content-type", "application/json")),
    "no body": (post(ECHO, b""), 400, ("content-type", "application/json")),
}


@pytest.mark.parametrize("name", REFUSED_AND_KEPT)
def test_refused_and_kept_open(server: Server, name: str) -> None:
    data, status, (field, value) = REFUSED_AND_KEPT[name]
    for send in (Wire.send, Wire.send_in_bytes):
        with Wire(server.host, server.port) as wire:
            send(wire, data + LIVE)
            answer = wire.answer()
            assert (answer.status, answer.headers[field]) == (status, value), answer
            assert answer.json()["error"]
            assert "connection" not in answer.headers
            assert wire.answer().body == LIVE_BODY
            wire.half_close().end()


# -- bodies and expectations


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"OPTIONS", b"DELETE"])
@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_a_body_where_none_is_usual_is_consumed_exactly(wire: Wire, method: bytes, framing: str) -> None:
    line = method + b" /v2/health/live HTTP/1.1"
    if framing == "length":
        data = get(b"Content-Length: %d" % len(LIVE), line=line) + LIVE
    else:
        data = get(b"Transfer-Encoding: chunked", line=line) + chunked(LIVE, 7)
    wire.send(data + GOOD)
    assert wire.answer(to_head=method == b"HEAD").status == (200 if method in (b"GET", b"HEAD") else 405)
    echoed(wire)
    wire.half_close().end()


def test_expect_100_continue(wire: Wire) -> None:
    head = b"POST %s HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n"
    wire.send(head % (ECHO.encode(), len(GOOD_BODY)))
    assert wire.answer().status == 100
    wire.silent()
    wire.send(GOOD_BODY)
    echoed(wire)
    # The body comes at once: no interim answer is needed, and none may be taken for the final one.
    wire.send(head % (ECHO.encode(), len(GOOD_BODY)) + GOOD_BODY + LIVE)
    answer = wire.answer()
    while answer.status == 100:
        answer = wire.answer()
    assert answer.json()["outputs"][0]["data"] == [1.0, 2.5]
    assert wire.answer().body == LIVE_BODY


def test_expect_100_continue_with_chunks(wire: Wire) -> None:
    wire.send(CHUNKED_HEAD + b"Expect: 100-continue\r\n\r\n")
    assert wire.answer().status == 100
    wire.send(chunked(GOOD_BODY, 10) + LIVE)
    echoed(wire)
    assert wire.answer().body == LIVE_BODY


def test_a_body_that_was_asked_for_and_is_a_request_instead(wire: Wire) -> None:
    """0-CL desync: what follows the head is the body, whatever it looks like."""
    wire.send(
        b"POST %s HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n" % ECHO.encode() + LIVE
    )
    answer = wire.answer()
    if answer.status == 100:
        answer = wire.answer()
    assert answer.status == 400
    # The rest, "/v2/health/live HTTP/1.1", is no request.
    refused(wire, 400)


def test_expect_of_a_refused_request_has_no_interim_answer(wire: Wire) -> None:
    """Whether the body follows is not known, so the connection ends, whatever comes."""
    wire.send(upload(b"Content-Length: 41", b"Expect: 100-continue", b"Content-Type: text/html") + LIVE)
    refused(wire, 415)


def test_expect_waits_its_turn_in_a_pipeline(wire: Wire) -> None:
    wire.send(GOOD + upload(b"Content-Length: %d" % len(GOOD_BODY), b"Expect: 100-continue").removesuffix(b"hello"))
    echoed(wire)
    assert wire.answer().status == 100
    wire.send(GOOD_BODY)
    echoed(wire)


def test_http_1_0(server: Server) -> None:
    line = b"GET /v2/health/live HTTP/1.0\r\n"
    with Wire(server.host, server.port) as wire:
        wire.send(line + b"\r\n" + LIVE)
        answer = wire.answer()
        assert (answer.status, answer.body, answer.headers["connection"]) == (200, LIVE_BODY, "close")
        wire.end()
    with Wire(server.host, server.port) as wire:
        for _ in range(3):
            answer = wire.send(line + b"Connection: keep-alive\r\n\r\n").answer()
            assert (answer.body, answer.headers["connection"]) == (LIVE_BODY, "keep-alive")


def test_connection_close_is_the_last_request(wire: Wire) -> None:
    wire.send(LIVE + get(b"Connection: close") + LIVE)
    assert "connection" not in wire.answer().headers
    assert wire.answer().headers["connection"] == "close"
    wire.end()


@pytest.mark.parametrize("path", [b"/v2/health/live", b"/v2/models/echo", b"/v2/nothing"])
def test_head_has_the_fields_of_get_and_no_body(wire: Wire, path: bytes) -> None:
    full = wire.send(get(line=b"GET " + path + b" HTTP/1.1")).answer()
    empty = wire.send(get(line=b"HEAD " + path + b" HTTP/1.1") + LIVE).answer(to_head=True)
    assert (empty.status, empty.headers) == (full.status, full.headers)
    assert wire.answer().body == LIVE_BODY


def test_trailers_are_dropped(wire: Wire) -> None:
    trailers = (
        b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\nHost: b\r\nAuthorization: x\r\nContent-Type: text/html\r\n"
    )
    body = chunked(GOOD_BODY, 50).removesuffix(b"\r\n") + trailers + b"\r\n"
    wire.send(CHUNKED_HEAD + b"\r\n" + body + LIVE)
    echoed(wire)
    assert wire.answer().body == LIVE_BODY


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_chunks_of_any_size(server: Server, size: int) -> None:
    data = CHUNKED_HEAD + b"\r\n" + chunked(GOOD_BODY, size)
    for send in (Wire.send, Wire.send_in_bytes):
        with Wire(server.host, server.port) as wire:
            send(wire, data + data + LIVE)
            echoed(wire)
            echoed(wire)
            assert wire.answer().body == LIVE_BODY


def test_a_chunked_request_cut_at_every_byte(wire: Wire) -> None:
    data = CHUNKED_HEAD + b"\r\n" + chunked(GOOD_BODY, 30)
    for cut in range(1, len(data)):
        wire.send(data[:cut])
        wire.send(data[cut:])
        echoed(wire)


def test_a_large_body_in_small_pieces(wire: Wire) -> None:
    rows = 40_000
    data = infer("echo", "x", "FP32", [rows // 40, 2], [0.5, 0.25] * (rows // 40))
    for at in range(0, len(data), 11):
        wire.send(data[at : at + 11])
    echoed(wire, [0.5, 0.25] * (rows // 40))


def test_a_body_as_large_as_the_limit(wire: Wire) -> None:
    padding = MAX_BODY_BYTES - len(GOOD_BODY)
    wire.send(post(ECHO, GOOD_BODY + b" " * padding) + LIVE)
    echoed(wire)
    assert wire.answer().body == LIVE_BODY
    wire.send(CHUNKED_HEAD + b"\r\n" + chunked(GOOD_BODY + b" " * padding, 100_000) + LIVE)
    echoed(wire)
    assert wire.answer().body == LIVE_BODY


def test_413_comes_before_the_body(wire: Wire) -> None:
    wire.send(get(b"Content-Length: 99999999999", line=b"POST /v2/models/echo/infer HTTP/1.1"))
    refused(wire, 413)


def test_an_answer_to_a_client_that_is_still_sending_can_be_read(wire: Wire) -> None:
    """Closing with unread bytes would make the kernel send RST, which destroys the answer on its way."""
    wire.send(get(b"Content-Length: 99999999999", line=b"POST /v2/models/echo/infer HTTP/1.1"))
    for _ in range(8):
        wire.send(b"x" * 65536)
    refused(wire, 413)


# -- order


def test_half_close_after_requests_does_not_lose_answers(wire: Wire) -> None:
    wire.send(GOOD + LIVE + GOOD).half_close()
    echoed(wire)
    assert wire.answer().body == LIVE_BODY
    echoed(wire)
    wire.end()


def test_half_close_in_the_middle_of_a_request_ends_the_connection(server: Server) -> None:
    for cut in (10, len(GOOD) - 1):
        with Wire(server.host, server.port) as wire:
            wire.send(LIVE + GOOD[:cut]).half_close()
            assert wire.answer().body == LIVE_BODY
            wire.end()


def test_a_long_pipeline_is_answered_in_order(wire: Wire) -> None:
    count = 500
    requests = []
    for number in range(count):
        requests.append(LIVE if number % 3 == 0 else infer("echo", "x", "FP32", [1, 2], [number, -number], str(number)))
    wire.send(b"".join(requests)).half_close()
    for number in range(count):
        answer = wire.answer()
        assert answer.status == 200
        if number % 3 == 0:
            assert answer.body == LIVE_BODY
        else:
            assert answer.json()["id"] == str(number)
            assert answer.json()["outputs"][0]["data"] == [number, -number]
    wire.end()
