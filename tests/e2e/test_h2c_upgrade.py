"""HTTP/2 that begins as HTTP/1.1 (RFC 7540 section 3.2), and content codings on it."""

from __future__ import annotations

import base64
import gzip
import json
import shutil
import subprocess
import zlib
from collections.abc import Iterator

import pytest

from tests.support.http2_frames import DATA, END_STREAM, HEADERS, PREFACE, SETTINGS, frame, headers, split_frames
from tests.support.onnx_writer import identity, write_repository
from tests.support.server import Server, running
from tests.support.wire import LIVE, LIVE_BODY, Wire, post

pytestmark = pytest.mark.slow

#: SETTINGS_MAX_CONCURRENT_STREAMS 100, as curl offers.
OFFER = b"AAMAAABk"
CURL = shutil.which("curl")
INFER = "/v2/models/any/infer"
MAX_BODY_BYTES = 2 << 20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    models = write_repository(tmp_path_factory.mktemp("models"), {"any": identity("FP32", (-1, -1))})
    with running(models, "--workers", "1", "--max-body-bytes", str(MAX_BODY_BYTES)) as server:
        yield server


@pytest.fixture
def wire(server: Server) -> Iterator[Wire]:
    with Wire(server.host, server.port) as wire:
        yield wire


def offer(
    line: bytes = b"GET /v2/health/live HTTP/1.1",
    settings: bytes = OFFER,
    connection: bytes = b"Upgrade, HTTP2-Settings",
    protocol: bytes = b"h2c",
    more: bytes = b"",
) -> bytes:
    lines = [line, b"Host: a", b"Connection: " + connection, b"Upgrade: " + protocol, b"HTTP2-Settings: " + settings]
    return b"\r\n".join([*lines, *([more] if more else []), b"", b""])


class Http2:
    """A client that has switched: frames of one connection, read strictly."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.input = b""

    def reply(self, stream: int) -> bytes:
        """The body of a stream, when it has ended."""
        while True:
            frames = list(split_frames(self.input))
            mine = [one for one in frames if one.stream == stream]
            if any(one.flags & END_STREAM for one in mine if one.kind in (DATA, HEADERS)):
                assert frames[0].kind == SETTINGS
                return b"".join(one.payload for one in mine if one.kind == DATA)
            more = self.wire.socket.recv(1 << 16)
            assert more, f"expected the end of stream {stream}, the connection ended after {frames}"
            self.input += more


def upgraded(wire: Wire, request: bytes) -> Http2:
    wire.send(request)
    status, fields = wire.head()
    assert (status, fields) == (101, {"connection": "Upgrade", "upgrade": "h2c"})
    client = Http2(wire)
    client.input, wire._input = wire._input, b""
    return client


def fields(method: bytes, path: bytes, *more: tuple[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    return [(b":method", method), (b":scheme", b"http"), (b":path", path), (b":authority", b"a"), *more]


def request(stream: int, body: bytes, *more: tuple[bytes, bytes]) -> bytes:
    return headers(stream, fields(b"POST", INFER.encode(), *more)) + b"".join(
        frame(DATA, END_STREAM if at + 16384 >= len(body) else 0, stream, body[at : at + 16384])
        for at in range(0, max(len(body), 1), 16384)
    )


def body(columns: int = 2) -> bytes:
    data = [0.5] * columns
    return json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, columns], "data": data}]}).encode()


def echoed(reply: bytes, columns: int = 2) -> None:
    assert json.loads(reply)["outputs"][0]["data"] == [0.5] * columns, reply[:200]


def test_the_request_becomes_stream_1_and_others_follow(wire: Wire) -> None:
    client = upgraded(wire, offer())
    assert client.reply(1) == LIVE_BODY
    wire.send(PREFACE + frame(SETTINGS, 0, 0) + request(3, body()) + request(5, body()))
    echoed(client.reply(3))
    echoed(client.reply(5))


def test_the_preface_comes_with_the_request(wire: Wire) -> None:
    client = upgraded(wire, offer() + PREFACE + frame(SETTINGS, 0, 0) + request(3, body()))
    assert client.reply(1) == LIVE_BODY
    echoed(client.reply(3))


@pytest.mark.parametrize("settings", [b"", OFFER, b"AAMAAABkAAQCAAAAAAIAAAAA", b"AAR_____"])
def test_settings(wire: Wire, settings: bytes) -> None:
    assert upgraded(wire, offer(settings=settings)).reply(1) == LIVE_BODY


def test_options_in_any_order_and_case(wire: Wire) -> None:
    asked = offer(connection=b"keep-alive, http2-settings,UPGRADE", protocol=b"websocket, H2C")
    assert upgraded(wire, asked).reply(1) == LIVE_BODY


def test_head_and_a_query(server: Server) -> None:
    with Wire(server.host, server.port) as wire:
        assert upgraded(wire, offer(b"HEAD /v2/health/live?a=b HTTP/1.1")).reply(1) == b""
    with Wire(server.host, server.port) as wire:
        reply = upgraded(wire, offer(b"GET /v2/nothing HTTP/1.1")).reply(1)
        assert json.loads(reply)["error"]


def test_on_the_metrics_port(server: Server) -> None:
    with Wire(server.host, server.metrics_port) as wire:
        assert b"headrace_" in upgraded(wire, offer(b"GET /metrics HTTP/1.1")).reply(1)


IGNORED = {
    "no base64": offer(settings=b"!!!!"),
    "base64 with padding": offer(settings=b"AAMAAABkAA=="),
    "five characters": offer(settings=b"AAMAA"),
    "no whole entry": offer(settings=b"AAMAAA"),
    "a setting that may not be": offer(settings=base64.urlsafe_b64encode(b"\0\x02\0\0\0\x07")),
    "settings twice": offer(more=b"HTTP2-Settings: " + OFFER),
    "no settings": offer().replace(b"HTTP2-Settings: AAMAAABk\r\n", b""),
    "not in Connection": offer(connection=b"keep-alive"),
    "only one in Connection": offer(connection=b"Upgrade"),
    "over TLS": offer(protocol=b"h2"),
    "another protocol": offer(protocol=b"websocket"),
    "HTTP/1.0": offer(b"GET /v2/health/live HTTP/1.0", connection=b"Upgrade, HTTP2-Settings, keep-alive"),
    "a body": offer(more=b"Content-Length: 5") + b"hello",
}


@pytest.mark.parametrize("name", IGNORED)
def test_what_is_no_offer_is_answered_as_before(wire: Wire, name: str) -> None:
    wire.send(IGNORED[name] + LIVE)
    assert [wire.answer().body for _ in range(2)] == [LIVE_BODY] * 2
    wire.half_close().end()


def test_an_offer_behind_an_answer_that_is_due_is_ignored(wire: Wire) -> None:
    wire.send(post(INFER, body()) + offer() + LIVE)
    echoed(wire.answer().body)
    assert [wire.answer().body for _ in range(2)] == [LIVE_BODY] * 2


def test_a_second_offer_is_no_http_2(wire: Wire) -> None:
    """What follows has to be the client's preface."""
    client = upgraded(wire, offer() + offer())
    received = client.input
    while more := wire.socket.recv(1 << 16):
        received += more
    assert next(one.kind for one in split_frames(received)) == SETTINGS


def test_an_offer_and_nothing_else(server: Server) -> None:
    for _ in range(20):
        with Wire(server.host, server.port) as wire:
            wire.send(offer())
    assert server.get("/v2/health/live").status == 200


# -- content codings over HTTP/2


@pytest.fixture
def client(wire: Wire) -> Http2:
    wire.send(PREFACE + frame(SETTINGS, 0, 0))
    return Http2(wire)


@pytest.mark.parametrize(("coding", "encode"), [(b"gzip", gzip.compress), (b"deflate", zlib.compress)])
def test_compressed_bodies(client: Http2, coding: bytes, encode: object) -> None:
    assert callable(encode)
    client.wire.send(request(1, encode(body()), (b"content-encoding", coding)))
    echoed(client.reply(1))
    # many slices
    client.wire.send(request(3, encode(body() + b" " * (MAX_BODY_BYTES // 2)), (b"content-encoding", coding)))
    client.wire.send(request(5, body()))
    echoed(client.reply(3))
    echoed(client.reply(5))


@pytest.mark.parametrize(
    ("data", "coding", "text"),
    [
        (b"hello", b"gzip", "compressed body"),
        (gzip.compress(body())[:-1], b"gzip", "compressed body"),
        (gzip.compress(body()) + b"x", b"gzip", "compressed body"),
        (gzip.compress(bytes(MAX_BODY_BYTES + 1)), b"gzip", "larger than the limit"),
        (gzip.compress(gzip.compress(body())), b"gzip, gzip", "several content codings"),
        (body(), b"br", "content coding not supported"),
    ],
)
def test_bodies_that_cannot_be_read(client: Http2, data: bytes, coding: bytes, text: str) -> None:
    client.wire.send(request(1, data, (b"content-encoding", coding)))
    assert text in json.loads(client.reply(1))["error"]
    client.wire.send(request(3, body()))
    echoed(client.reply(3))


def test_streams_that_are_reset_while_they_are_inflated(client: Http2) -> None:
    bomb = gzip.compress(bytes(MAX_BODY_BYTES), 9)
    for stream in range(1, 41, 2):
        client.wire.send(request(stream, bomb, (b"content-encoding", b"gzip")) + frame(3, 0, stream, bytes(4)))
    client.wire.send(request(41, body()))
    echoed(client.reply(41))


@pytest.mark.parametrize("columns", [2, 1000, 60_000])
def test_compressed_replies(client: Http2, columns: int) -> None:
    data = gzip.compress(body(columns))
    client.wire.send(request(1, data, (b"content-encoding", b"gzip"), (b"accept-encoding", b"deflate")))
    reply = client.reply(1)
    echoed(reply if columns == 2 else zlib.decompress(reply), columns)


# -- curl


@pytest.mark.skipif(CURL is None, reason="no curl on this machine")
@pytest.mark.parametrize("version", ["--http1.1", "--http2", "--http2-prior-knowledge"])
def test_curl(server: Server, version: str) -> None:
    def curl(*arguments: str, data: bytes | None = None) -> bytes:
        command = [str(CURL), "-sS", "--fail-with-body", version, *arguments]
        return subprocess.run(command, input=data, capture_output=True, check=True).stdout

    assert curl(server.url + "/v2/health/live") == LIVE_BODY
    assert curl("-I", server.url + "/v2/health/live").startswith(b"HTTP/")
    echoed(curl("--compressed", "--data-binary", "@-", server.url + INFER, data=body(2000)), 2000)
    coding = ("-H", "Content-Encoding: gzip", "--data-binary", "@-")
    echoed(curl("--compressed", *coding, server.url + INFER, data=gzip.compress(body(2000))), 2000)
