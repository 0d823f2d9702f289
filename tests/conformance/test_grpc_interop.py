"""The interoperability cases of the gRPC project, mapped to our services, with the clients of three other projects."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from server.protocol import messages
from tests.conformance import grpc_calls
from tests.conformance.grpc_calls import REQUEST, STREAM_RESPONSE, V2, Call, Result, payload, returned
from tests.support import onnx_writer
from tests.support.server import Server, running

pytestmark = pytest.mark.slow

OK, CANCELLED, DEADLINE_EXCEEDED, NOT_FOUND, UNIMPLEMENTED = 0, 1, 4, 5, 12
LARGE_BYTES = (271_828, 314_159)
#: The sizes of the interoperability suite's streams.
PING_PONG_BYTES = (27_182, 8, 1_828, 45_904)
#: The suite's special message, as the name of a model that is not there.
SPECIAL = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈, 100 % \t\n"
METADATA = (
    ("x-grpc-test-echo-initial", "test_initial_metadata_value"),
    ("x-grpc-test-echo-trailing-bin", b"\xab\xab\xab"),
    ("x-empty-bin", b""),
    ("x-long", "v" * 4000),
    ("x-all-bin", bytes(range(256))),
)
WATCH = "/grpc.health.v1.Health/Watch"
EMPTY = messages.message_class("inference.ServerLiveRequest")().SerializeToString()
STREAM = V2 + "ModelStreamInfer"


def pattern(size: int) -> bytes:
    """Bytes that are not the same anywhere else."""
    return bytes(itertools.islice(itertools.cycle(range(251)), size))


def named(model: str) -> bytes:
    return bytes(REQUEST(model_name=model).SerializeToString())


def images(*sizes: int) -> list[bytes]:
    return [payload(pattern(size)) for size in sizes]


CALLS = {
    "empty_unary": Call(V2 + "ServerLive", [EMPTY]),
    **{f"large_unary {size}": Call(V2 + "ModelInfer", images(size)) for size in LARGE_BYTES},
    "empty_stream": Call(STREAM, stream=True),
    "ping_pong": Call(STREAM, images(*PING_PONG_BYTES), stream=True),
    "large_ping_pong": Call(STREAM, images(*LARGE_BYTES), stream=True),
    "cancel_after_begin": Call(STREAM, images(10), stream=True, cancel="begun"),
    "cancel_after_first_response": Call(STREAM, images(*PING_PONG_BYTES), stream=True, cancel="replied"),
    "timeout": Call(STREAM, images(10), stream=True, timeout_ms=100, open=True),
    "custom_metadata": Call(V2 + "ModelInfer", images(10), metadata=METADATA),
    "custom_metadata stream": Call(STREAM, images(10, 11), stream=True, metadata=METADATA),
    "special_status_message": Call(V2 + "ModelInfer", [named(SPECIAL)]),
    "status stream": Call(STREAM, [named(SPECIAL)], stream=True, metadata=[("triton_grpc_error", "true")]),
    "error in stream": Call(STREAM, [named("nobody"), payload(b"after")], stream=True),
    "unimplemented_method": Call(V2 + "Nothing", [EMPTY]),
    "unimplemented_service": Call("/nobody.Service/Nothing", [EMPTY]),
    "still alive": Call(V2 + "ModelInfer", images(10)),
}


@pytest.fixture(scope="module")
def interop_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    models = {"bytes": onnx_writer.identity("UINT8", [-1, -1])}
    with running(onnx_writer.write_repository(tmp_path_factory.mktemp("bytes"), models), "--workers", "1") as server:
        yield server


@pytest.fixture(scope="module")
def results(interop_server: Server, request: pytest.FixtureRequest) -> dict[str, Result]:
    """Case -> what this stack got."""
    if reason := grpc_calls.missing(request.param):
        pytest.skip(reason)
    return grpc_calls.run(request.param, interop_server, CALLS)


def not_found(model: str) -> str:
    return f"Request for unknown model: '{model}' is not found"


def check_replies(case: str, result: Result) -> None:
    sent = [REQUEST.FromString(one).raw_input_contents[0] for one in CALLS[case].messages]
    assert [returned(one, stream=CALLS[case].stream) for one in result.replies] == sent


def check_error_in_stream(result: Result) -> None:
    error, after = result.replies
    assert STREAM_RESPONSE.FromString(error).error_message == not_found("nobody")
    assert returned(after, stream=True) == b"after"


@pytest.mark.parametrize("case", CALLS)
@pytest.mark.parametrize("results", grpc_calls.STACKS, indirect=True)
def test_interop(results: dict[str, Result], case: str) -> None:
    result = results[case]
    name = case.partition(" ")[0]
    if name.startswith("cancel"):
        assert result.code == CANCELLED, result
        assert len(result.replies) == (name == "cancel_after_first_response")
    elif name == "timeout":
        assert result.code == DEADLINE_EXCEEDED, result
    elif name in ("special_status_message", "status"):
        assert (result.code, result.text) == (NOT_FOUND, not_found(SPECIAL))
    elif name.startswith("unimplemented"):
        assert result.code == UNIMPLEMENTED, result
        assert not result.replies
    else:
        assert result.code == OK, result
        if case == "empty_unary":
            assert result.replies == [b"\x08\x01"]
        elif case == "error in stream":
            check_error_in_stream(result)
        else:
            check_replies(case, result)
