"""A whole server under HTTP/1.1 clients that pipeline, cut, mutate and leave: order, counts and balance.

Each connection is a script of requests whose answers are known. Scripts that are sent as they are must get every
answer in order, up to the one that ends the connection; mutated ones may get anything that is HTTP. After a batch the
server is the same one, healthy, and holds nothing: no row, call, connection or descriptor, no error in its log.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import struct
import time
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.support.faults import metric, open_descriptors, private_bytes, reset, wait_until
from tests.support.onnx_writer import fails_on_index, identity, write_repository
from tests.support.server import Server, running
from tests.support.wire import LIVE, Wire, chunked, infer, post

pytestmark = pytest.mark.slow

STRESS = int(os.environ.get("HEADRACE_STRESS", "0"))
SEEDS = range(int(os.environ.get("HEADRACE_FUZZ_FROM", "0")), 50 * STRESS or 4)
CONNECTIONS = 60
#: Bytes that mean something to a parser of heads, chunks or JSON.
SPICE = [b"\r\n", b"\n", b"\r", b"\r\n\r\n", b"\0", b" ", b":", b";", b"0\r\n\r\n", b"f" * 16, b"{", b"]", b'"', b"\\u"]
SPICE += [
    b"Transfer-Encoding: chunked\r\n",
    b"Content-Length: 0\r\n",
    b"Expect: 100-continue\r\n",
    b"-",
    b"1e999",
    LIVE,
]
#: What a worker may keep of memory after a batch: its buffers, and what Python's allocator holds.
KEPT_BYTES = (48 << 20) if os.environ.get("HEADRACE_VARIANT") != "asan" else (1 << 30)


class Request(NamedTuple):
    """Bytes of a request, the status of its answer, what its body must hold, whether the connection ends with it."""

    data: bytes
    status: int
    holds: bytes = b""
    is_last: bool = False
    is_head: bool = False


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    models = {"echo": identity("FP32", (-1, 2)), "free": identity("FP64", [-1, -1]), "fails": fails_on_index(16)}
    root = write_repository(tmp_path_factory.mktemp("models"), models)
    with running(root, "--workers", "2", "--max-batch-size", "16", "--max-body-bytes", str(1 << 20)) as server:
        yield server


def body(r: random.Random, name: str) -> tuple[str, bytes]:
    """Model and JSON body of a good inference; its id is the name."""
    model = r.choice(["echo", "echo", "free", "fails"])
    rows = r.choice([1, 1, 2, 17, 40])
    if model == "fails":
        tensor = {"name": "index", "datatype": "INT64", "shape": [rows, 1], "data": [3] * rows}
    else:
        datatype = "FP32" if model == "echo" else "FP64"
        data = [r.choice([0, 1.5, -2e30]) for _ in range(2 * rows)]
        tensor = {"name": "x", "datatype": datatype, "shape": [rows, 2], "data": data}
    return model, json.dumps({"id": name, "inputs": [tensor]}).encode()


def good(r: random.Random, name: str) -> Request:
    model, content = body(r, name)
    path = f"/v2/models/{model}/infer"
    holds = f'"id":"{name}"'.encode()
    kind = r.randrange(4)
    if kind == 0:
        head = f"POST {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        return Request(head + chunked(content, r.choice([1, 9, 5000])), 200, holds)
    if kind == 1:
        return Request(post(path, content, b"Expect: 100-continue"), 200, holds)
    if kind == 2:
        tensor = {"name": "x", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": 8}}
        text = json.dumps({"id": name, "inputs": [tensor]}).encode()
        length = b"Inference-Header-Content-Length: %d" % len(text)
        return Request(post("/v2/models/echo/infer", text + struct.pack("<2f", 1, 2), length), 200, holds)
    return Request(post(path, content), 200, holds)


def other(r: random.Random) -> Request:
    """Answered, and the connection goes on."""
    return r.choice(
        [
            Request(LIVE, 200, b"live"),
            Request(b"\r\n" + LIVE, 200, b"live"),
            Request(b"GET /v2/models/echo HTTP/1.1\r\nHost: a\r\n\r\n", 200, b'"echo"'),
            Request(b"HEAD /v2/models/echo HTTP/1.1\r\nHost: a\r\n\r\n", 200, is_head=True),
            Request(b"GET /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nGET / HTT", 404, b"error"),
            Request(b"DELETE /v2/models/echo HTTP/1.1\r\nHost: a\r\n\r\n", 405, b"error"),
            Request(post("/v2/models/none/infer", b"x" * r.choice([0, 1, 9000])), 404, b"none"),
            Request(post("/v2/models/echo/infer", b"{" * r.choice([1, 9000])), 400, b"error"),
            Request(
                post("/v2/models/echo/infer", b"x" * r.choice([1, 90000]), b"Content-Type: text/html"), 415, b"error"
            ),
            Request(post("/v2/models/echo/infer", b"GET / HTTP/1.1\r\n\r\n", b"Content-Encoding: br"), 415, b"error"),
            Request(infer("fails", "index", "INT64", [2, 1], [1, 16]), 400, b"idx=16"),
            Request(infer("echo", "x", "FP32", [2, 2], [1, 2, 3]), 400, b"error"),
        ]
    )


def last(r: random.Random) -> Request:
    """Answered, and ends the connection."""
    head = b"POST /v2/models/echo/infer HTTP/1.1\r\nHost: a\r\n"
    return r.choice(
        [
            Request(LIVE.replace(b"Host", b"Connection: close\r\nHost"), 200, b"live", True),
            Request(LIVE.replace(b"1.1", b"1.0"), 200, b"live", True),
            Request(b"GARBAGE\r\n\r\n", 400, b"error", True),
            Request(b"GET / HTTP/1.1\r\n\r\n", 400, b"Host", True),
            Request(head + b"Content-Length: 9999999\r\n\r\n", 413, b"error", True),
            Request(head + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400, b"error", True),
            Request(head + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhelloX", 400, b"chunk", True),
            Request(head + b"Content-Encoding: br\r\nTransfer-Encoding: chunked\r\n\r\n", 415, b"error", True),
            Request(
                head + b"Connection: close\r\nContent-Type: a/b\r\nContent-Length: 9\r\n\r\n123456789", 415, b"", True
            ),
        ]
    )


def script(r: random.Random, number: int) -> list[Request]:
    count = r.choice([1, 2, 15, 40, 120])
    requests = [good(r, f"{number}-{index}") if r.random() < 0.5 else other(r) for index in range(count)]
    return requests + ([last(r)] if r.random() < 0.5 else [])


def pieces(r: random.Random, data: bytes) -> list[bytes]:
    cuts = sorted(r.randrange(len(data) + 1) for _ in range(r.choice([0, 1, 3, 20])))
    return [data[at:end] for at, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def mutated(r: random.Random, data: bytes) -> bytes:
    for _ in range(r.choice([1, 1, 2, 6])):
        at = r.randrange(len(data) + 1)
        end = min(len(data), at + r.choice([1, 1, 4, 100]))
        piece = r.choice([b"", bytes([r.randrange(256)]), r.choice(SPICE), data[at:end] * 2, r.randbytes(end - at)])
        data = data[:at] + piece + data[end:]
    return data


def play(r: random.Random, server: Server, requests: list[Request]) -> None:
    """Sent as they are, with FIN behind: every answer in order, nothing for what follows the last, then the end."""
    data = b"".join(request.data for request in requests)
    if requests[-1].is_last and r.random() < 0.5:
        data += LIVE * r.choice([1, 30])
    with Wire(server.host, server.port) as wire:
        for piece in pieces(r, data):
            wire.send(piece)
        if r.random() < 0.5 or not requests[-1].is_last:
            wire.half_close()
        for place, request in enumerate(requests):
            while (answer := wire.answer(request.is_head)).status == 100:
                pass
            seen = f"answer {place} of {len(requests)} to {request.data[:200]!r}: {answer}"
            assert answer.status == request.status and request.holds in answer.body, seen
            assert (answer.headers.get("connection") == "close") == request.is_last, seen
        wire.end()


def abuse(r: random.Random, server: Server, data: bytes) -> None:
    """Sent in pieces, some of it; read now and then; left by FIN, RST or half a close, at any point."""
    sent = pieces(r, data)
    if r.random() < 0.5:
        sent = sent[: r.randrange(len(sent) + 1)]
    with Wire(server.host, server.port, timeout_s=0.02) as wire, contextlib.suppress(OSError):
        for piece in sent:
            wire.send(piece)
            if r.random() < 0.1:
                with contextlib.suppress(TimeoutError):
                    wire.socket.recv(r.choice([1, 100, 65536]))
        end = r.randrange(4)
        if end == 0:
            reset(wire.socket)
        elif end == 1:
            wire.half_close()
        if end:
            wire.socket.recv(65536)


def assert_quiet(server: Server) -> None:
    """Only the scrape's own connection is open; no call is in flight and no row is taken."""
    wanted = {"connections": 1.0, "inflight_requests": 0.0, "queue_depth": 0.0}
    wait_until(lambda: {name: metric(server, f"headrace_{name}") for name in wanted} == wanted, str(wanted))


@pytest.fixture(scope="module")
def descriptors(server: Server) -> dict[str, list[int]]:
    """How many each process has open while nobody is connected."""
    assert_quiet(server)
    return open_descriptors(server)


@pytest.mark.parametrize("seed", SEEDS)
def test_http1_clients_of_every_kind(server: Server, descriptors: dict[str, list[int]], seed: int) -> None:
    r = random.Random(seed)
    processes = server.processes()
    for number in range(CONNECTIONS):
        requests = script(r, number)
        if r.random() < 0.3:
            play(r, server, requests)
        else:
            data = b"".join(request.data for request in requests)
            abuse(r, server, mutated(r, data) if r.random() < 0.8 else data)
    assert_quiet(server)
    wait_until(lambda: open_descriptors(server) == descriptors, f"descriptors as before: {descriptors}")
    assert server.processes() == processes
    assert max(map(private_bytes, server.pids("worker"))) < KEPT_BYTES
    assert server.get("/v2/health/ready").status == 200
    assert not re.search(r"error|traceback|sanitizer|exception", server.log(), re.IGNORECASE), server.log()


def test_a_deep_pipeline_of_costly_requests_leaves_others_served(server: Server) -> None:
    """256 KiB in one go ask for seconds of work: each loop turn does a little of it, for everybody."""
    page = b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n"
    with Wire(server.host, server.metrics_port) as greedy:
        greedy.send(page * 3000)
        slowest_s = 0.0
        for _ in range(20):
            started = time.monotonic()
            assert server.get("/v2/health/live", port=server.metrics_port).status == 200
            slowest_s = max(slowest_s, time.monotonic() - started)
        assert slowest_s < 1
        for _ in range(100):
            assert greedy.answer().status == 200
        assert max(map(private_bytes, server.pids("worker"))) < KEPT_BYTES
