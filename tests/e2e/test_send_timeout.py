"""Clients that take nothing of their answers: after --send-timeout the answer is given up, whatever else they send.

A client that pings, or asks for more on other streams, makes no progress on the one that waits.
"""

from __future__ import annotations

import contextlib
import json
import queue
import signal
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from server.protocol import messages
from tests.support import http2_frames as h2
from tests.support.h2_peer import Code, H2Peer
from tests.support.onnx_writer import identity, write_repository
from tests.support.server import Server, running
from tests.support.wire import LIVE, LIVE_BODY, Wire, infer

pytestmark = pytest.mark.slow

STREAM_INFER = "/inference.GRPCInferenceService/ModelStreamInfer"
ROWS = 500
NO_WINDOW = struct.pack(">HI", 4, 0)
BODY = infer("echo", "x", "FP32", [ROWS, 2], [1.5] * 2 * ROWS).partition(b"\r\n\r\n")[2]
FIELDS = [
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/v2/models/echo/infer"),
    (b":authority", b"a"),
    (b"content-type", b"application/json"),
]
LONGEST_NS = 20_000_000_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = write_repository(tmp_path_factory.mktemp("models"), {"echo": identity("FP32", (-1, 2))})
    with running(root, "--workers", "1", "--send-timeout", "1") as server:
        yield server


def ask(stream: int) -> bytes:
    return h2.headers(stream, FIELDS) + h2.frame(h2.DATA, h2.END_STREAM, stream, BODY)


def window(stream: int, increment: int) -> bytes:
    return h2.frame(h2.WINDOW_UPDATE, 0, stream, increment.to_bytes(4, "big"))


def ping_until_reset(peer: H2Peer, stream: int) -> None:
    """Pings as fast as they are answered, but not so fast that they are a flood: the server's clock decides."""
    began_ns = time.monotonic_ns()
    peer.socket.settimeout(0.05)
    while peer.find(h2.RST_STREAM, stream) is None:
        assert time.monotonic_ns() - began_ns < LONGEST_NS, f"expected a reset of stream {stream}, got {peer.frames}"
        peer.send(h2.frame(h2.PING, 0, 0, bytes(8)))
        with contextlib.suppress(TimeoutError):
            while peer.find(h2.RST_STREAM, stream) is None:
                assert peer.read(), "the connection ended"
    peer.socket.settimeout(5)


def resident_bytes(server: Server) -> int:
    (worker,) = server.pids("worker")
    return int(Path(f"/proc/{worker}/statm").read_text().split()[1]) * 4096


def sockets_of(server: Server) -> int:
    (worker,) = server.pids("worker")
    count = 0
    for entry in Path(f"/proc/{worker}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            count += entry.readlink().name.startswith("socket:")
    return count


def test_pings_do_not_keep_an_answer_without_a_window(server: Server) -> None:
    with H2Peer(server.host, server.port, settings=NO_WINDOW) as peer:
        peer.send(ask(1)).wait(h2.HEADERS, 1)
        ping_until_reset(peer, 1)
        reset = peer.find(h2.RST_STREAM, 1)
        assert reset is not None
        assert int.from_bytes(reset.payload, "big") == Code.CANCEL
        peer.send(ask(3) + window(3, 1 << 20))
        assert json.loads(peer.answer(3))["outputs"][0]["shape"] == [ROWS, 2]


def test_a_client_that_takes_a_byte_now_and_then_is_answered(server: Server) -> None:
    """Progress renews the time: an answer that takes three times as long is whole."""
    with H2Peer(server.host, server.port, settings=NO_WINDOW) as peer:
        peer.send(ask(1)).wait(h2.HEADERS, 1)
        peer.socket.settimeout(0.2)
        began_ns = time.monotonic_ns()
        while time.monotonic_ns() - began_ns < 3_500_000_000:
            peer.send(window(1, 1))
            with contextlib.suppress(TimeoutError):
                assert peer.read(), "the connection ended"
        peer.socket.settimeout(5)
        assert peer.find(h2.RST_STREAM, 1) is None, peer.frames
        peer.send(window(1, 1 << 20))
        assert json.loads(peer.answer(1))["outputs"][0]["shape"] == [ROWS, 2]


def test_what_blocked_answers_held_is_free_again(server: Server) -> None:
    """A hundred answers at a time, given up: rows and memory do not add up over the rounds."""
    resident: list[int] = []
    for _ in range(3):
        with H2Peer(server.host, server.port, settings=NO_WINDOW) as peer:
            streams = range(1, 201, 2)
            peer.send(b"".join(ask(stream) for stream in streams))
            for stream in streams:
                peer.wait(h2.HEADERS, stream)
            ping_until_reset(peer, streams[-1])
            for stream in streams:
                peer.wait(h2.RST_STREAM, stream)
        resident.append(resident_bytes(server))
    assert resident[-1] - resident[0] < 4 << 20, resident


def test_an_http1_client_that_takes_nothing_is_cut(server: Server) -> None:
    before = sockets_of(server)
    request = infer("echo", "x", "FP32", [1000, 2], [1.5] * 2000)
    began_ns = time.monotonic_ns()
    with Wire(server.host, server.port, timeout_s=0.1, receive_bytes=4096) as wire:
        at = 0
        # Asks on for as long as that is taken; a slow machine is no full window. The kernel keeps what it has for a
        # client that asks for nothing: that the server let go, its descriptors say.
        while at == 0 or sockets_of(server) > before:
            assert time.monotonic_ns() - began_ns < LONGEST_NS, "expected the server to cut the connection"
            with contextlib.suppress(TimeoutError, ConnectionError):
                while True:
                    at += wire.socket.send(request[at % len(request) :])
        with Wire(server.host, server.port) as other:
            assert other.send(LIVE).answer().body == LIVE_BODY


def test_a_stream_of_inferences_may_rest_between_two_of_them(server: Server) -> None:
    request_class = messages.message_class("inference.ModelInferRequest")
    reply_class = messages.message_class("inference.ModelStreamInferResponse")
    asked: queue.Queue[object] = queue.Queue()
    with grpc.insecure_channel(f"{server.host}:{server.port}") as channel:
        call = channel.stream_stream(STREAM_INFER, request_class.SerializeToString, reply_class.FromString)
        replies = call(iter(asked.get, None), timeout=30)
        for value in (1.0, 2.0):
            request = request_class(model_name="echo", raw_input_contents=[struct.pack("<2f", value, value)])
            request.inputs.add(name="x", datatype="FP32", shape=[1, 2])
            asked.put(request)
            assert struct.unpack("<2f", next(replies).infer_response.raw_output_contents[0]) == (value, value)
            # Longer than the time-out and the tick in which it is noticed.
            time.sleep(2.2)
        asked.put(None)
        assert list(replies) == []


def test_a_stream_without_a_question_does_not_hold_the_end_up(tmp_path: Path) -> None:
    request_class = messages.message_class("inference.ModelInferRequest")
    reply_class = messages.message_class("inference.ModelStreamInferResponse")
    root = write_repository(tmp_path, {"echo": identity("FP32", (-1, 2))})
    asked: queue.Queue[object] = queue.Queue()
    with running(root, "--workers", "1") as server:
        with grpc.insecure_channel(f"{server.host}:{server.port}") as channel:
            call = channel.stream_stream(STREAM_INFER, request_class.SerializeToString, reply_class.FromString)
            replies = call(iter(asked.get, None), timeout=30)
            request = request_class(model_name="echo", raw_input_contents=[bytes(8)])
            request.inputs.add(name="x", datatype="FP32", shape=[1, 2])
            asked.put(request)
            assert next(replies).infer_response.model_name == "echo"
            server.process.send_signal(signal.SIGTERM)
            with pytest.raises(grpc.RpcError) as ended:
                next(replies)
            assert ended.value.code() == grpc.StatusCode.UNAVAILABLE
            asked.put(None)
        server.wait_stopped()
