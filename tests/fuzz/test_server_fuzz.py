"""A whole server under hostile connections: broken requests, random splits, pipelining, ends at any point.

A connection whose bytes were left whole must get every answer once and in order. After all of them the server is the
same one, healthy, and holds nothing: no row, no connection, no line about an error in its log.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import socket
import struct
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.reference import infer_wire as wire_twin
from tests.reference import tensor_proto as predict_twin
from tests.support import http2_frames as h2
from tests.support.faults import wait_quiet
from tests.support.onnx_writer import identity, write_repository
from tests.support.server import Server, running
from tests.support.wire import LIVE, LIVE_BODY, Wire, chunked, infer, post

pytestmark = pytest.mark.slow

STRESS = int(os.environ.get("HEADRACE_STRESS", "0"))
SEEDS = range(int(os.environ.get("HEADRACE_FUZZ_FROM", "0")), 60 * STRESS or 4)
CONNECTIONS = 60
#: How long a hostile client waits for an answer that may never come.
PATIENCE_S = 0.03
ECHO = "/v2/models/echo/infer"
MODEL_INFER = b"/inference.GRPCInferenceService/ModelInfer"
STREAM_INFER = b"/inference.GRPCInferenceService/ModelStreamInfer"
PREDICT = b"/tensorflow.serving.PredictionService/Predict"
GET_MODEL_STATUS = b"/tensorflow.serving.ModelService/GetModelStatus"
REFLECTION = b"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
#: Bytes that mean something to a parser somewhere.
SPICE = [b"\r\n", b"\n", b"\r\n\r\n", b"\0", b" ", b":", b"0\r\n\r\n", b"ffffffff", b"\xff\xff\xff\xff"]
SPICE += [b"{", b"[", b'"', LIVE, h2.PREFACE]
SPICE += [b"Transfer-Encoding: chunked\r\n", b"Content-Length: 5\r\n", b"Expect: 100-continue\r\n"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = write_repository(tmp_path_factory.mktemp("models"), {"echo": identity("FP32", (-1, 2))})
    with running(root, "--workers", "1", "--max-body-bytes", str(4 << 20)) as server:
        yield server


# ---- requests


def json_body(r: random.Random, name: str) -> bytes:
    rows = r.choice([1, 1, 2, 70])
    data = [r.choice([0, 1.5, -2e30, 7]) for _ in range(2 * rows)]
    tensor = {"name": "x", "datatype": "FP32", "shape": [rows, 2], "data": data}
    return json.dumps({"id": name, "inputs": [tensor]}).encode()


def binary_request(r: random.Random, name: str) -> bytes:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": 8}}
    head = json.dumps({"id": name, "inputs": [tensor]}).encode()
    return post(ECHO, head + struct.pack("<2f", 1, r.random()), b"Inference-Header-Content-Length: %d" % len(head))


def chunked_request(r: random.Random, name: str) -> bytes:
    head = b"POST " + ECHO.encode() + b" HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + chunked(json_body(r, name), r.choice([1, 7, 1000]))


def http1_request(r: random.Random, name: str) -> tuple[bytes, str]:
    """A good request and the id that its answer will have, or '' for one that is no inference."""
    kind = r.randrange(7)
    if kind == 0:
        return LIVE, ""
    if kind == 1:
        return b"GET /v2/models/echo HTTP/1.1\r\nHost: a\r\n\r\n", ""
    if kind == 2:
        return chunked_request(r, name), name
    if kind == 3:
        return binary_request(r, name), name
    if kind == 4:
        return post(ECHO, json_body(r, name), b"Expect: 100-continue"), name
    if kind == 5:
        return post("/v2/models/none/infer", b"x" * r.choice([0, 10, 5000])), ""
    return post(ECHO, json_body(r, name)), name


def infer_message(r: random.Random, name: str) -> bytes:
    rows = r.choice([1, 2, 70])
    request = wire_twin.REQUEST(model_name="echo", id=name)
    request.inputs.add(name="x", datatype="FP32", shape=[rows, 2])
    request.raw_input_contents.append(struct.pack("<2f", 1.5, r.random()) * rows)
    return bytes(request.SerializeToString())


def predict_message(r: random.Random) -> bytes:
    rows = r.choice([1, 2, 70])
    request = predict_twin.REQUEST()
    request.model_spec.name = r.choice(["echo", "echo", "none", ""])
    tensor = request.inputs["x"]
    tensor.dtype = predict_twin.NUMBERS["FP32"]
    for size in (rows, 2):
        tensor.tensor_shape.dim.add(size=size)
    if r.randrange(2):
        tensor.tensor_content = struct.pack("<2f", 1.5, r.random()) * rows
    else:
        tensor.float_val.append(r.random())
    return bytes(request.SerializeToString())


def http2_stream(r: random.Random, stream: int) -> list[bytes]:
    """The frames of one good stream."""
    kind = r.randrange(7)
    if kind == 0:
        fields = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/v2/health/live"), (b":authority", b"a")]
        return [h2.headers(stream, fields, end=True)]
    if kind == 1:
        fields = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", ECHO.encode()), (b":authority", b"a")]
        return [h2.headers(stream, fields), h2.frame(h2.DATA, h2.END_STREAM, stream, json_body(r, str(stream)))]
    if kind == 2:
        data = h2.message(infer_message(r, "a")) + h2.message(infer_message(r, "b")) + h2.message(b"")
        return [
            h2.headers(stream, h2.grpc_fields(STREAM_INFER)),
            *(h2.frame(h2.DATA, 0, stream, piece) for piece in pieces(r, data)),
            h2.frame(h2.DATA, h2.END_STREAM, stream),
        ]
    if kind == 3:
        frames = [h2.headers(stream, h2.grpc_fields(REFLECTION))]
        frames += [h2.frame(h2.DATA, 0, stream, h2.message(b"\x3a\x00")) for _ in range(3)]
        return [*frames, h2.frame(h2.DATA, h2.END_STREAM, stream)]
    path, message = MODEL_INFER, infer_message(r, str(stream))
    if kind == 4:
        path, message = PREDICT, predict_message(r)
    elif kind == 5:
        path, message = GET_MODEL_STATUS, predict_message(r)  # both begin with a ModelSpec
    return [
        h2.headers(stream, h2.grpc_fields(path)),
        *(h2.frame(h2.DATA, 0, stream, piece) for piece in pieces(r, h2.message(message))),
        h2.frame(h2.DATA, h2.END_STREAM, stream),
    ]


def http2_noise(r: random.Random, streams: int) -> bytes:
    """A frame that may come at any time, right or wrong."""
    stream = 2 * r.randrange(streams + 1) + 1
    code = struct.pack(">I", r.choice([0, 5, 8, 1 << 31, 0xFFFFFFFF]))
    setting = struct.pack(">HI", r.choice([1, 3, 4, 5, 6]), r.choice([0, 1, 65536, 1 << 24]))
    return r.choice(
        [
            h2.frame(h2.RST_STREAM, 0, stream, code),
            h2.frame(h2.PING, r.randrange(2), 0, r.randbytes(8)),
            h2.frame(h2.WINDOW_UPDATE, 0, r.choice([0, stream]), code),
            h2.frame(h2.PRIORITY, 0, stream, r.randbytes(5)),
            h2.frame(h2.SETTINGS, 0, 0, setting),
            h2.frame(h2.GOAWAY, 0, 0, code * 2),
            h2.frame(h2.CONTINUATION, 4, stream, b""),
            h2.frame(r.randrange(12), r.randrange(256), stream, r.randbytes(r.randrange(20))),
        ]
    )


# ---- mutation and transport


def pieces(r: random.Random, data: bytes) -> list[bytes]:
    cuts = sorted(r.randrange(len(data) + 1) for _ in range(r.choice([0, 1, 3, 10])))
    return [data[at:end] for at, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def mutate(r: random.Random, data: bytes) -> bytes:
    for _ in range(r.choice([1, 1, 2, 5])):
        at = r.randrange(len(data) + 1)
        end = min(len(data), at + r.choice([1, 1, 4, 100]))
        piece = r.choice([b"", bytes([r.randrange(256)]), r.choice(SPICE), data[at:end] * 2, r.randbytes(end - at)])
        data = data[:at] + piece + data[end:]
    return data


def reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def abuse(r: random.Random, server: Server, data: bytes) -> None:
    """Sends in pieces, reads now and then, and leaves in some way at some point."""
    sent = pieces(r, data)
    if r.random() < 0.4:
        sent = sent[: r.randrange(len(sent) + 1)]
    with server.connect() as connection, contextlib.suppress(OSError):
        connection.settimeout(PATIENCE_S)
        for piece in sent:
            connection.sendall(piece)
            if r.random() < 0.1:
                connection.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    connection.recv(r.choice([1, 100, 65536]))
                connection.settimeout(PATIENCE_S)
        end = r.randrange(4)
        if end == 0:
            reset(connection)
        elif end == 1:
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass
        elif end == 2:
            connection.recv(65536)


def clean_http1(r: random.Random, server: Server, number: int) -> None:
    """Good requests in one stream of bytes, then FIN: every answer, in order, and the end."""
    requests = [http1_request(r, f"{number}-{index}") for index in range(r.choice([1, 3, 40]))]
    with Wire(server.host, server.port) as wire:
        for piece in pieces(r, b"".join(data for data, _ in requests)):
            wire.send(piece)
        wire.half_close()
        for data, name in requests:
            answer = wire.answer()
            while answer.status == 100:
                answer = wire.answer()
            if name:
                assert answer.status == 200, answer
                length = answer.headers.get("inference-header-content-length")
                assert json.loads(answer.body[: int(length)] if length else answer.body)["id"] == name
            elif data == LIVE:
                assert answer.body == LIVE_BODY
        wire.end()


def clean_http2(r: random.Random, server: Server) -> None:
    """Good streams, interleaved, then FIN: every stream ends once, and nothing else is said about it."""
    count = r.choice([1, 4, 30])
    waiting = [http2_stream(r, 2 * index + 1) for index in range(count)]
    frames = [h2.PREFACE, h2.frame(h2.SETTINGS, 0, 0), h2.frame(h2.WINDOW_UPDATE, 0, 0, struct.pack(">I", 1 << 24))]
    opened = 0
    while any(waiting):
        choice = r.choice([index for index, left in enumerate(waiting) if left and index <= opened])
        opened += choice == opened
        frames.append(waiting[choice].pop(0))
    received = b""
    with server.connect() as connection:
        for piece in pieces(r, b"".join(frames)):
            connection.sendall(piece)
        connection.shutdown(socket.SHUT_WR)
        while data := connection.recv(65536):
            received += data
    ended: Counter[int] = Counter()
    for frame in h2.split_frames(received):
        assert frame.kind != h2.RST_STREAM, frame
        if frame.kind in (h2.DATA, h2.HEADERS) and frame.flags & h2.END_STREAM:
            ended[frame.stream] += 1
    assert ended == {2 * index + 1: 1 for index in range(count)}


def hostile(r: random.Random) -> bytes:
    if r.random() < 0.5:
        parts = [http1_request(r, f"h{index}")[0] for index in range(r.choice([1, 2, 30]))]
        r.shuffle(parts)
        return mutate(r, b"".join(parts))
    streams = r.choice([1, 3, 20])
    frames = [frame for index in range(streams) for frame in http2_stream(r, 2 * index + 1)]
    for _ in range(r.choice([0, 1, 5])):
        frames.insert(r.randrange(len(frames) + 1), http2_noise(r, streams))
    if r.random() < 0.3:
        r.shuffle(frames)
    data = h2.PREFACE + h2.frame(h2.SETTINGS, 0, 0) + b"".join(frames)
    return mutate(r, data) if r.random() < 0.6 else data


# ---- what must hold afterwards


@pytest.mark.parametrize("seed", SEEDS)
def test_hostile_connections_leave_no_trace(server: Server, seed: int) -> None:
    r = random.Random(seed)
    pids = server.processes()
    for number in range(CONNECTIONS):
        kind = r.random()
        if kind < 0.15:
            clean_http1(r, server, number)
        elif kind < 0.3:
            clean_http2(r, server)
        else:
            abuse(r, server, hostile(r))
    wait_quiet(server)
    assert server.processes() == pids
    with Wire(server.host, server.port) as wire:
        assert wire.send(infer("echo", "x", "FP32", [1, 2], [1, 2.5])).answer().status == 200
    assert not re.search(r"error|traceback|sanitizer", server.log(), re.IGNORECASE), server.log()
