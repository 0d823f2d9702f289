"""Clients that spend little and would make the server spend much, or that leave while answers are due.

Each attack is followed by proof that others are served and that the worker's memory has not grown with the attack.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import http2_frames as h2
from tests.support.onnx_writer import identity, write_repository
from tests.support.server import Server, running
from tests.support.wire import LIVE, LIVE_BODY, Wire, infer, post

pytestmark = pytest.mark.slow

STREAM_INFER = b"/inference.GRPCInferenceService/ModelStreamInfer"
SERVER_LIVE = b"/inference.GRPCInferenceService/ServerLive"
REFLECTION = b"/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
OPENING = h2.PREFACE + h2.frame(h2.SETTINGS, 0, 0)
# AddressSanitizer keeps what was freed for a while.
MAX_GROWTH_BYTES = (512 if os.environ.get("HEADRACE_VARIANT") == "asan" else 48) << 20
GOOD = infer("echo", "x", "FP32", [1, 2], [1, 2.5])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = write_repository(tmp_path_factory.mktemp("models"), {"echo": identity("FP32", (-1, 2))})
    with running(root, "--workers", "1") as server:
        yield server


def resident_bytes(server: Server) -> int:
    (worker,) = server.pids("worker")
    return int(Path(f"/proc/{worker}/statm").read_text().split()[1]) * 4096


def frames_until(wire: Wire, wanted: int, stream: int) -> list[h2.Frame]:
    """What the server sends up to a frame of this kind on this stream."""
    received = b""
    while True:
        found = list(h2.split_frames(received))
        if any(frame.kind == wanted and frame.stream == stream for frame in found):
            return found
        data = wire.socket.recv(1 << 16)
        assert data, f"expected frame {wanted} on stream {stream}, the connection ended after {found}"
        received += data


def test_a_header_list_that_grows_while_it_is_decoded_is_refused(server: Server) -> None:
    """4 KiB in the table, then one byte for each time it is meant: 16 KiB on the wire for 64 MiB of header list."""
    before = resident_bytes(server)
    stuffed = h2.literal(b"x", b"v" * 4000, first=0x40) + b"\xbe" * 12_000
    with Wire(server.host, server.port) as wire:
        wire.send(OPENING)
        for stream in range(1, 41, 2):
            wire.send(h2.headers(stream, h2.grpc_fields(SERVER_LIVE), more=stuffed))
        frames_until(wire, h2.RST_STREAM, 39)
        wire.send(h2.call(41, SERVER_LIVE, b""))
        frames_until(wire, h2.DATA, 41)
        assert resident_bytes(server) - before < MAX_GROWTH_BYTES


@pytest.mark.parametrize("path", [STREAM_INFER, REFLECTION])
def test_replies_that_nobody_takes_stop_the_reading_of_requests(server: Server, path: bytes) -> None:
    """Five bytes in, a hundred or thousands out, and never a window: the stream's requests wait in the client."""
    before = resident_bytes(server)
    one = h2.message(b"" if path == STREAM_INFER else b"\x22\x1einference.GRPCInferenceService")
    flood = h2.frame(h2.DATA, 0, 1, one * (16_000 // len(one)))
    with Wire(server.host, server.port, timeout_s=0.5) as wire:
        wire.send(OPENING + h2.frame(h2.SETTINGS, 0, 0, struct.pack(">HI", 4, 0)))
        wire.send(h2.headers(1, h2.grpc_fields(path)))
        with contextlib.suppress(OSError):
            for _ in range(600):
                wire.send(flood)
                began_ns = time.monotonic_ns()
                with Wire(server.host, server.port) as other:
                    assert other.send(LIVE).answer().body == LIVE_BODY
                assert time.monotonic_ns() - began_ns < 1_000_000_000
        assert resident_bytes(server) - before < MAX_GROWTH_BYTES


def test_a_message_that_cannot_be_read_ends_only_its_stream(server: Server) -> None:
    with Wire(server.host, server.port) as wire:
        wire.send(OPENING + h2.headers(1, h2.grpc_fields(REFLECTION)))
        wire.send(h2.frame(h2.DATA, 0, 1, h2.message(b"\xff\xff\xff")))
        frames_until(wire, h2.HEADERS, 1)
        wire.send(h2.call(3, SERVER_LIVE, b""))
        frames_until(wire, h2.DATA, 3)


def test_an_http2_client_that_has_left_in_mid_request_is_not_waited_for(server: Server) -> None:
    with Wire(server.host, server.port, timeout_s=3) as wire:
        wire.send(OPENING + h2.headers(1, h2.grpc_fields(SERVER_LIVE)) + h2.frame(h2.DATA, 0, 1, b"\0\0"))
        wire.half_close()
        while wire.socket.recv(1 << 16):
            pass


def test_no_grpc_inference_on_the_port_for_metrics(server: Server) -> None:
    with Wire(server.host, server.metrics_port) as wire:
        wire.send(OPENING + h2.call(1, SERVER_LIVE, b""))
        (answer,) = [frame for frame in frames_until(wire, h2.HEADERS, 1) if frame.kind == h2.HEADERS]
        assert answer.flags & h2.END_STREAM


@pytest.mark.parametrize("attempt", range(20))
def test_an_answer_in_flight_outlives_a_broken_request_and_a_fin_behind_it(server: Server, attempt: int) -> None:
    """Many rows, so that the model still runs when the end of the client's bytes is seen."""
    rows = 60
    with Wire(server.host, server.port) as wire:
        wire.send(infer("echo", "x", "FP32", [rows, 2], [1.5] * 2 * rows) + b"BROKEN\r\n").half_close()
        first = wire.answer()
        assert first.status == 200
        assert json.loads(first.body)["outputs"][0]["shape"] == [rows, 2]
        assert wire.answer().status == 400
        wire.end()


def test_bodies_that_are_only_announced_do_not_use_up_what_all_may_hold(server: Server) -> None:
    """40 x 60 MB announced, a byte sent of each: another client's 60 MB and partial request are still taken."""
    head = post("/v2/models/echo/infer", b"").replace(b"Content-Length: 0", b"Content-Length: 60000000")
    with contextlib.ExitStack() as opened:
        for _ in range(40):
            opened.enter_context(Wire(server.host, server.port)).send(head + b"{")
        opened.enter_context(Wire(server.host, server.port)).send(head + b"{").silent(0.1)
        with Wire(server.host, server.port) as other:
            other.send(GOOD[:-5])
            other.silent(0.05)
            assert other.send(GOOD[-5:]).answer().status == 200
