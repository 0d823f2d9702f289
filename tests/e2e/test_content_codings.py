"""Compressed bodies and replies: every way they can come, damaged, too large, many at once, abandoned half-way."""

from __future__ import annotations

import gzip
import json
import struct
import zlib
from collections.abc import Callable, Iterator

import pytest

from tests.support.faults import private_bytes, reset, wait_until
from tests.support.onnx_writer import identity, write_repository
from tests.support.server import Answer, Server, running
from tests.support.wire import LIVE, LIVE_BODY, Wire, chunked, post

pytestmark = pytest.mark.slow

MAX_BODY_BYTES = 4 << 20
INFER = "/v2/models/echo/infer"
#: Takes rows of any length.
LARGE = "/v2/models/any/infer"
CODINGS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "x-gzip": gzip.compress,
}
WINDOW_BITS = {"gzip": 31, "deflate": 15}
VALUES = [0.5 * index for index in range(6)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One worker, so that whoever compresses shares it with everybody else."""
    models = {"echo": identity("FP32", (-1, 2)), "any": identity("FP32", (-1, -1))}
    folder = write_repository(tmp_path_factory.mktemp("models"), models)
    with running(folder, "--workers", "1", "--max-body-bytes", str(MAX_BODY_BYTES)) as server:
        yield server


@pytest.fixture
def wire(server: Server) -> Iterator[Wire]:
    with Wire(server.host, server.port) as wire:
        yield wire


def body(pairs: int = 3) -> bytes:
    """A request that is answered with what it says: pairs of numbers, a row each or, if they are many, all in one."""
    shape = [pairs, 2] if pairs < 1000 else [1, 2 * pairs]
    data = VALUES * (pairs // 3)
    return json.dumps({"inputs": [{"name": "x", "datatype": "FP32", "shape": shape, "data": data}]}).encode()


def coded(data: bytes, coding: str = "gzip", *lines: bytes, path: str = INFER, chunk_bytes: int = 0) -> bytes:
    """A request whose body is these bytes, said to be in that coding."""
    lines = (b"Content-Encoding: " + coding.encode(), *lines)
    if not chunk_bytes:
        return post(path, data, *lines)
    head = [b"POST " + path.encode() + b" HTTP/1.1", b"Host: a", *lines, b"Transfer-Encoding: chunked", b"", b""]
    return b"\r\n".join(head) + chunked(data, chunk_bytes)


def echoed(answer: Answer, rows: int = 3) -> None:
    assert answer.status == 200, answer
    assert answer.json()["outputs"][0]["data"] == VALUES * (rows // 3)


@pytest.mark.parametrize("send", [Wire.send, Wire.send_in_bytes])
@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("chunk_bytes", [0, 1, 7, 1000])
def test_a_compressed_body(wire: Wire, coding: str, chunk_bytes: int, send: Callable[[Wire, bytes], Wire]) -> None:
    request = coded(CODINGS[coding](body()), coding, chunk_bytes=chunk_bytes)
    send(wire, LIVE + request + request + LIVE)
    assert wire.answer().body == LIVE_BODY
    echoed(wire.answer())
    echoed(wire.answer())
    assert wire.answer().body == LIVE_BODY
    wire.half_close().end()


def test_an_empty_body_has_no_coding(wire: Wire) -> None:
    wire.send(coded(b"") + coded(b"", chunk_bytes=1) + LIVE)
    assert [wire.answer().status for _ in range(3)] == [400, 400, 200]


def test_the_json_part_is_counted_as_the_client_wrote_it(wire: Wire) -> None:
    tensor = struct.pack("<6f", *VALUES)
    head = json.dumps(
        {
            "inputs": [
                {"name": "x", "datatype": "FP32", "shape": [3, 2], "parameters": {"binary_data_size": len(tensor)}}
            ],
            "outputs": [{"name": "y", "parameters": {"binary_data": True}}],
        }
    ).encode()
    line = b"Inference-Header-Content-Length: %d" % len(head)
    answer = wire.send(coded(gzip.compress(head + tensor), "gzip", line)).answer()
    assert answer.status == 200, answer
    assert answer.body.endswith(tensor)
    raw = wire.send(coded(gzip.compress(tensor[:8]), "gzip", b"Inference-Header-Content-Length: 0")).answer()
    assert raw.status == 200, raw


@pytest.mark.parametrize("path", ["/v1/models/echo:predict", "/v1/models/echo/versions/1:predict"])
def test_tensorflow_serving_and_kserve_v1(wire: Wire, path: str) -> None:
    data = json.dumps({"instances": [[1.0, 2.0]]}).encode()
    answer = wire.send(coded(gzip.compress(data), path=path)).answer()
    assert (answer.status, answer.json()) == (200, {"predictions": [[1.0, 2.0]]})


def test_a_body_for_a_handler(wire: Wire) -> None:
    wire.send(coded(gzip.compress(b"{}"), path="/v2/models/nobody/infer") + LIVE)
    assert wire.answer().status == 404
    assert wire.answer().body == LIVE_BODY


GZIP = gzip.compress(body())
DAMAGED = {
    "no gzip": body(),
    "zlib": zlib.compress(body()),
    "raw deflate": zlib.compress(body())[2:-4],
    "cut in the head": GZIP[:5],
    "cut in the data": GZIP[:-12],
    "cut in the trailer": GZIP[:-1],
    "check sum": GZIP[:-8] + bytes(8),
    "trailing byte": GZIP + b"\0",
    "trailing member": GZIP + GZIP,
    "trailing request": GZIP + LIVE,
}


@pytest.mark.parametrize("name", DAMAGED)
@pytest.mark.parametrize("chunk_bytes", [0, 5])
def test_a_damaged_body(server: Server, name: str, chunk_bytes: int) -> None:
    with Wire(server.host, server.port) as wire:
        answer = wire.send(coded(DAMAGED[name], chunk_bytes=chunk_bytes) + LIVE).answer()
        assert (answer.status, answer.headers["connection"]) == (400, "close"), answer
        assert "compressed body" in answer.json()["error"]
        wire.end()


def test_gzip_in_gzip_is_read_once(wire: Wire) -> None:
    assert wire.send(coded(gzip.compress(GZIP))).answer().status == 400
    assert wire.send(coded(gzip.compress(GZIP), "gzip, gzip")).answer().status == 400
    assert wire.send(coded(GZIP, "identity, gzip")).answer().status == 200


@pytest.mark.parametrize("chunk_bytes", [0, 1000])
def test_the_limit_is_that_of_the_decompressed_body(server: Server, chunk_bytes: int) -> None:
    for size, status in ((MAX_BODY_BYTES, 400), (MAX_BODY_BYTES + 1, 413)):
        with Wire(server.host, server.port) as wire:
            answer = wire.send(coded(gzip.compress(bytes(size)), chunk_bytes=chunk_bytes)).answer()
            assert answer.status == status, (size, answer)


def test_a_hundred_bombs(server: Server) -> None:
    """All of them are held to the limit, memory comes back, and others are served between their slices."""
    (worker,) = server.pids("worker")
    server.get("/v2/health/live")
    before = private_bytes(worker)
    bomb = coded(gzip.compress(bytes(MAX_BODY_BYTES + 1), 9))
    wires = [Wire(server.host, server.port) for _ in range(100)]
    try:
        with Wire(server.host, server.port) as other:
            for wire in wires:
                wire.send(bomb)
            for _ in range(20):
                assert other.send(LIVE).answer().body == LIVE_BODY
            echoed(other.send(coded(GZIP)).answer())
        assert {wire.answer().status for wire in wires} == {413}
        for wire in wires:
            wire.end()
    finally:
        for wire in wires:
            wire.socket.close()
    wait_until(lambda: private_bytes(worker) < before + (8 << 20), "the memory of 100 bombs coming back")


def test_clients_that_leave_while_their_bodies_are_inflated(server: Server) -> None:
    bomb = coded(gzip.compress(bytes(MAX_BODY_BYTES), 9))
    for _ in range(20):
        wire = Wire(server.host, server.port)
        wire.send(bomb)
        reset(wire.socket)
    assert server.get("/v2/health/live").status == 200


def test_requests_behind_one_that_takes_many_slices(wire: Wire) -> None:
    """They are read when it is answered, whether they came with it or after it."""
    slow = coded(gzip.compress(body() + b" " * (3 << 20)))
    wire.send(slow + LIVE + slow + coded(GZIP)).send(LIVE).half_close()
    echoed(wire.answer())
    assert wire.answer().body == LIVE_BODY
    echoed(wire.answer())
    echoed(wire.answer())
    assert wire.answer().body == LIVE_BODY
    wire.end()


def test_a_long_body_that_hardly_shrinks(wire: Wire) -> None:
    rows = 60_000
    data = zlib.compress(body(rows), 0)
    assert len(data) > 1 << 18
    echoed(wire.send(coded(data, "deflate", path=LARGE)).answer(), rows)
    echoed(wire.send(coded(data, "deflate", path=LARGE, chunk_bytes=65_536)).answer(), rows)


# -- replies


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("gzip, deflate", "gzip"),
        ("gzip;q=0.1, deflate;q=0.2", "deflate"),
        ("gzip;q=0", None),
        ("br, *", None),
        ("identity", None),
    ],
)
@pytest.mark.parametrize("rows", [3, 300, 90_000])
def test_a_compressed_reply(wire: Wire, accepted: str, coding: str | None, rows: int) -> None:
    request = post(LARGE, body(rows), b"Accept-Encoding: " + accepted.encode())
    wire.send(request + LIVE)
    answer = wire.answer()
    if coding is None or rows == 3:
        assert "content-encoding" not in answer.headers
        assert "vary" not in answer.headers
    else:
        assert (answer.headers["content-encoding"], answer.headers["vary"]) == (coding, "Accept-Encoding")
        answer = answer._replace(body=zlib.decompress(answer.body, WINDOW_BITS[coding]))
    echoed(answer, rows)
    assert wire.answer().body == LIVE_BODY


def test_a_compressed_binary_reply_announces_the_plain_json(wire: Wire) -> None:
    request = json.loads(body(900)) | {"outputs": [{"name": "y", "parameters": {"binary_data": True}}]}
    answer = wire.send(post(INFER, json.dumps(request).encode(), b"Accept-Encoding: gzip")).answer()
    plain = gzip.decompress(answer.body)
    json_bytes = int(answer.headers["inference-header-content-length"])
    assert json.loads(plain[:json_bytes])["outputs"][0]["shape"] == [900, 2]
    assert struct.unpack("<1800f", plain[json_bytes:]) == tuple(VALUES * 300)


def test_clients_that_leave_while_their_replies_are_compressed(server: Server) -> None:
    for _ in range(10):
        wire = Wire(server.host, server.port)
        wire.send(post(LARGE, body(60_000), b"Accept-Encoding: gzip"))
        reset(wire.socket)
    assert server.get("/v2/health/live").status == 200


def test_control_replies_stay_plain(server: Server) -> None:
    answer = server.request("GET", "/v2/models/echo", headers={"Accept-Encoding": "gzip"})
    assert "content-encoding" not in answer.headers
    assert answer.json()["name"] == "echo"
