"""gRPC calls that break its rules: each fails with its status, the connection lives, and the next call is right."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from tests.reference import infer_wire as wire_twin
from tests.support import http2_frames as h2
from tests.support.h2_peer import H2Peer
from tests.support.onnx_writer import identity, write_repository
from tests.support.server import Server, running

pytestmark = pytest.mark.slow

PATH = b"/inference.GRPCInferenceService/ModelInfer"
OK, INVALID_ARGUMENT, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, UNIMPLEMENTED, INTERNAL = 0, 3, 4, 8, 12, 13
LIMIT_BYTES = 1 << 20
VALUES = struct.pack("<2f", 1.5, 2.5)


def model_infer() -> bytes:
    request = wire_twin.REQUEST(model_name="echo")
    request.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    request.raw_input_contents.append(VALUES)
    return bytes(request.SerializeToString())


GOOD = h2.message(model_infer())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = write_repository(tmp_path_factory.mktemp("models"), {"echo": identity("FP32", (-1, 2))})
    with running(root, "--workers", "1", "--max-body-bytes", str(LIMIT_BYTES)) as server:
        yield server


def call(data: bytes, *more: tuple[bytes, bytes], end: bool = True) -> bytes:
    frames = h2.headers(1, h2.grpc_fields(PATH, *more))
    return frames + h2.frame(h2.DATA, h2.END_STREAM if end else 0, 1, data)


def replaced(name: bytes, value: bytes) -> bytes:
    fields = [(key, value if key == name else old) for key, old in h2.grpc_fields(PATH)]
    return h2.headers(1, fields) + h2.frame(h2.DATA, h2.END_STREAM, 1, GOOD)


CASES: list[tuple[str, bytes, set[int]]] = [
    ("no message", call(b""), {INTERNAL, INVALID_ARGUMENT, UNIMPLEMENTED}),
    ("half a prefix", call(b"\0\0\0"), {INTERNAL}),
    ("less than the prefix says", call(GOOD[:-1]), {INTERNAL}),
    ("more than the prefix says", call(GOOD + b"\0"), {INTERNAL}),
    ("two messages", call(GOOD + GOOD), {INTERNAL, UNIMPLEMENTED}),
    ("above the limit, by the prefix alone", call(b"\0" + struct.pack(">I", LIMIT_BYTES + 1), end=False), {8}),
    ("4 GiB, by the prefix alone", call(b"\0\xff\xff\xff\xff", end=False), {RESOURCE_EXHAUSTED}),
    ("compressed without a coding", call(b"\1" + GOOD[1:]), {INTERNAL}),
    ("compressed with identity", call(b"\1" + GOOD[1:], (b"grpc-encoding", b"identity")), {INTERNAL}),
    ("compressed, but no gzip", call(b"\1" + GOOD[1:], (b"grpc-encoding", b"gzip")), {INTERNAL, INVALID_ARGUMENT}),
    ("a flag of 2", call(b"\2" + GOOD[1:]), {INTERNAL}),
    ("an unknown coding", call(GOOD, (b"grpc-encoding", b"brotli")), {UNIMPLEMENTED}),
    ("plain in gzip's stream", call(GOOD, (b"grpc-encoding", b"gzip")), {OK}),
    ("-bin that is no base64", call(GOOD, (b"trace-bin", b"!!!")), {OK, INTERNAL, INVALID_ARGUMENT}),
    ("te other than trailers", replaced(b"te", b"gzip"), {-1}),
    ("an unknown scheme", replaced(b":scheme", b"gopher"), {OK, INTERNAL, INVALID_ARGUMENT}),
    ("a deadline that has passed", call(GOOD, (b"grpc-timeout", b"0n")), {DEADLINE_EXCEEDED}),
    *(
        (f"timeout {text!r}", call(GOOD, (b"grpc-timeout", text)), {INVALID_ARGUMENT})
        for text in (b"", b"5", b"S", b"-5S", b"+5S", b"5s", b"5SS", b"123456789S", b"1.5S", b"0x5S", b"5\xb5")
    ),
    ("a timeout behind a space, which HTTP/2 forbids", call(GOOD, (b"grpc-timeout", b" 5S")), {-1}),
    ("the longest timeout", call(GOOD, (b"grpc-timeout", b"99999999H")), {OK}),
]


@pytest.mark.parametrize(("sent", "statuses"), [row[1:] for row in CASES], ids=[row[0] for row in CASES])
def test_a_broken_call_fails_alone(server: Server, sent: bytes, statuses: set[int]) -> None:
    """-1 in the statuses: the frames are against HTTP/2, and the stream is reset."""
    with H2Peer(server.host, server.port) as peer:
        peer.send(sent)
        if statuses == {-1}:
            peer.wait(h2.RST_STREAM, 1)
        else:
            peer.answer(1)
            status = peer.field(1, b"grpc-status")
            assert status is not None, peer.fields
            assert int(status) in statuses, peer.fields
            if int(status) == UNIMPLEMENTED and b"grpc-encoding" in sent:
                assert peer.field(1, b"grpc-accept-encoding") is not None, peer.fields
        peer.frames.clear()
        reply = peer.send(h2.headers(3, h2.grpc_fields(PATH)) + h2.frame(h2.DATA, 1, 3, GOOD)).answer(3)
        assert peer.field(3, b"grpc-status") == b"0", peer.fields
        assert VALUES in reply


def test_the_end_of_a_call_may_come_in_any_frame(server: Server) -> None:
    """END_STREAM with the last byte, alone behind it, or with trailers; bytes one by one."""
    endings = [
        h2.frame(h2.DATA, 1, 1, GOOD),
        h2.frame(h2.DATA, 0, 1, GOOD) + h2.frame(h2.DATA, 1, 1),
        h2.frame(h2.DATA, 0, 1, GOOD) + h2.headers(1, [(b"x-last", b"1")], end=True),
        b"".join(h2.frame(h2.DATA, 0, 1, GOOD[at : at + 1]) for at in range(len(GOOD))) + h2.frame(h2.DATA, 1, 1),
    ]
    for ending in endings:
        with H2Peer(server.host, server.port) as peer:
            assert VALUES in peer.send(h2.headers(1, h2.grpc_fields(PATH)) + ending).answer(1)
            assert peer.field(1, b"grpc-status") == b"0", peer.fields
