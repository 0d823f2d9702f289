"""Floods of HTTP/2 frames: what they end with, and that other clients do not notice.

During each attack two innocent clients, gRPC's ModelInfer and HTTP/1.1, ask all the time: every answer is right. The
attacked connection ends, or its streams do, within its bounds; then no row, connection or memory is left.
HEADRACE_STRESS raises the counts.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.reference import infer_wire as wire_twin
from tests.support import http2_frames as h2
from tests.support.faults import wait_quiet
from tests.support.h2_peer import Code, H2Peer
from tests.support.onnx_writer import identity, write_repository
from tests.support.server import Server, running
from tests.support.wire import Wire, infer

pytestmark = pytest.mark.slow

SCALE = 1 + 20 * int(os.environ.get("HEADRACE_STRESS", "0"))
# AddressSanitizer keeps what was freed for a while.
MAX_GROWTH_BYTES = (512 if os.environ.get("HEADRACE_VARIANT") == "asan" else 16) << 20
SETTLE_NS = 10_000_000_000
MODEL_INFER = b"/inference.GRPCInferenceService/ModelInfer"
LIVE = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/v2/health/live"), (b":authority", b"a")]
POST = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/v2/models/echo/infer"), (b":authority", b"a")]
CALM, PROTOCOL, FLOW = Code.ENHANCE_YOUR_CALM, Code.PROTOCOL_ERROR, Code.FLOW_CONTROL_ERROR


def model_infer() -> bytes:
    request = wire_twin.REQUEST(model_name="echo")
    request.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    request.raw_input_contents.append(struct.pack("<2f", 1.5, 2.5))
    return bytes(request.SerializeToString())


MESSAGE = model_infer()
VALUES = struct.pack("<2f", 1.5, 2.5)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = write_repository(tmp_path_factory.mktemp("models"), {"echo": identity("FP32", (-1, 2))})
    with running(root, "--workers", "1") as server:
        yield server


class Innocents:
    """Two clients that ask one question after the other until told to stop; an error is raised at the end."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._is_over = threading.Event()
        self._errors: list[BaseException] = []
        self.counts = {"grpc": 0, "http": 0}
        self._threads = [threading.Thread(target=self._run, args=(ask,)) for ask in (self._grpc, self._http)]

    def __enter__(self) -> Innocents:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()
        if self._errors:
            raise self._errors[0]

    def _run(self, ask: Callable[[], None]) -> None:
        try:
            ask()
        except BaseException as error:
            self._errors.append(error)

    def _grpc(self) -> None:
        while True:
            with H2Peer(self._server.host, self._server.port) as peer:
                for stream in range(1, 401, 2):
                    peer.frames.clear()
                    reply = peer.send(h2.call(stream, MODEL_INFER, MESSAGE)).answer(stream)
                    assert VALUES in reply, reply
                    assert peer.field(stream, b"grpc-status") == b"0", peer.fields[stream]
                    self.counts["grpc"] += 1
                    if self._is_over.is_set():
                        return

    def _http(self) -> None:
        question = infer("echo", "x", "FP32", [1, 2], [1.5, 2.5])
        with Wire(self._server.host, self._server.port) as wire:
            while True:
                answer = wire.send(question).answer()
                assert answer.status == 200, answer
                assert json.loads(answer.body)["outputs"][0]["data"] == [1.5, 2.5]
                self.counts["http"] += 1
                if self._is_over.is_set():
                    return


def resident_bytes(server: Server) -> int:
    (worker,) = server.pids("worker")
    return int(Path(f"/proc/{worker}/statm").read_text().split()[1]) * 4096


def reset(stream: int) -> bytes:
    return h2.frame(h2.RST_STREAM, 0, stream, (8).to_bytes(4, "big"))


def window(stream: int, increment: int) -> bytes:
    return h2.frame(h2.WINDOW_UPDATE, 0, stream, increment.to_bytes(4, "big"))


def streams(frames: Callable[[int], bytes]) -> Callable[[int], bytes]:
    """The same on every stream: the n-th step is on stream 2n + 1."""
    return lambda n: frames(2 * n + 1)


def slowly(step: Callable[[int], bytes]) -> Callable[[int], bytes]:
    """With 5 ms between two packets: libnghttp2 counts, too, and by another clock."""

    def paused(n: int) -> bytes:
        if n % 50 == 0:
            time.sleep(0.005)
        return step(n)

    return paused


def opened(stream: int) -> bytes:
    return h2.headers(stream, POST)


def asked(stream: int) -> bytes:
    return h2.headers(stream, LIVE, end=True)


BOMB = h2.literal(b"x", b"v" * 4000, first=0x40) + b"\xbe" * 12_000
#: Name, what comes first, the n-th step, how many steps, codes the connection ends with.
FLOODS: list[tuple[str, bytes, Callable[[int], bytes], int, tuple[Code, ...]]] = [
    ("rapid reset", b"", streams(lambda s: h2.call(s, MODEL_INFER, MESSAGE) + reset(s)), 3000, (CALM,)),
    (
        "rapid reset of heads",
        b"",
        streams(lambda s: h2.headers(s, h2.grpc_fields(MODEL_INFER)) + reset(s)),
        3000,
        (CALM,),
    ),
    ("rapid reset, slower", b"", slowly(streams(lambda s: opened(s) + reset(s))), 3000, (CALM,)),
    ("made you reset: window of 0", b"", streams(lambda s: opened(s) + window(s, 0)), 4000, (PROTOCOL,)),
    ("made you reset: window overflow", b"", streams(lambda s: opened(s) + window(s, (1 << 31) - 1)), 4000, (CALM,)),
    (
        "made you reset: bad fields",
        b"",
        streams(lambda s: h2.headers(s, [*POST, (b"connection", b"close")])),
        4000,
        (CALM,),
    ),
    (
        "made you reset: content-length",
        b"",
        streams(lambda s: h2.headers(s, [*POST, (b"content-length", b"9")]) + h2.frame(h2.DATA, 1, s, b"x")),
        4000,
        (CALM,),
    ),
    (
        "made you reset: PRIORITY on itself",
        b"",
        streams(lambda s: opened(s) + h2.frame(h2.PRIORITY, 0, s, s.to_bytes(4, "big") + b"\0")),
        4000,
        (CALM, PROTOCOL),
    ),
    (
        "CONTINUATION without end",
        h2.frame(h2.HEADERS, 1, 1, h2.literal(b":method", b"GET")),
        lambda n: h2.frame(h2.CONTINUATION, 0, 1, h2.literal(b"x%d" % n, b"v" * 1000)),
        4000,
        (CALM,),
    ),
    (
        "empty CONTINUATION",
        h2.frame(h2.HEADERS, 1, 1, h2.literal(b":method", b"GET")),
        lambda n: h2.frame(h2.CONTINUATION, 0, 1),
        9000,
        (CALM,),
    ),
    ("PING", b"", lambda n: h2.frame(h2.PING, 0, 0, bytes(8)), 9000, (CALM,)),
    ("PING beside a stream", opened(1), lambda n: h2.frame(h2.PING, 0, 0, bytes(8)), 9000, (CALM,)),
    ("SETTINGS", b"", lambda n: h2.frame(h2.SETTINGS, 0, 0), 9000, (CALM,)),
    ("empty DATA", opened(1), lambda n: h2.frame(h2.DATA, 0, 1), 9000, (CALM,)),
    ("PRIORITY", b"", lambda n: h2.frame(h2.PRIORITY, 0, 1, bytes(4) + b"\x0f"), 9000, (CALM, PROTOCOL)),
    ("empty HEADERS", b"", streams(lambda s: h2.frame(h2.HEADERS, 5, s)), 4000, (CALM,)),
    ("HPACK bomb", b"", streams(lambda s: h2.headers(s, LIVE, more=BOMB)), 1500, (CALM,)),
    ("window overflow of the connection", b"", lambda n: window(0, (1 << 31) - 1), 2, (FLOW,)),
    (
        "an endless varint",
        b"",
        lambda n: h2.frame(h2.HEADERS, 5, 1, b"\x7f" + b"\xff" * 9000),
        2,
        (Code.COMPRESSION_ERROR,),
    ),
]


def flood(peer: H2Peer, step: Callable[[int], bytes], count: int) -> int:
    """Sends until the server has had enough: bytes sent."""
    sent = 0
    with contextlib.suppress(ConnectionError):
        for at in range(0, count, 50):
            data = b"".join(step(n) for n in range(at, min(at + 50, count)))
            peer.send(data)
            sent += len(data)
    return sent


@pytest.mark.parametrize(
    ("begin", "step", "count", "codes"), [row[1:] for row in FLOODS], ids=[row[0] for row in FLOODS]
)
def test_a_flood_ends_its_connection_and_nobody_notices(
    server: Server, begin: bytes, step: Callable[[int], bytes], count: int, codes: tuple[Code, ...]
) -> None:
    pids = server.processes()
    wait_quiet(server)
    before = resident_bytes(server)
    with Innocents(server) as innocents:
        for _ in range(SCALE):
            with H2Peer(server.host, server.port) as peer:
                peer.send(begin)
                flood(peer, step, count)
                # A reset that outran the GOAWAY is an end too.
                peer.end()
                if peer.find(h2.GOAWAY) is not None:
                    assert Code(peer.goaway()[1]) in codes, peer.goaway()
        enough = {name: count + 5 for name, count in innocents.counts.items()}
        deadline = time.monotonic_ns() + SETTLE_NS
        while any(innocents.counts[name] < enough[name] for name in enough) and time.monotonic_ns() < deadline:
            time.sleep(0.005)
    assert all(innocents.counts[name] >= enough[name] for name in enough), innocents.counts
    wait_quiet(server)
    assert resident_bytes(server) - before < MAX_GROWTH_BYTES
    assert server.processes() == pids
