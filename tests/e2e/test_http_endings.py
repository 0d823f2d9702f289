"""Requests that end badly beside others that do not: one answer each, whole, and for the right request."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.support.faults import metric, stopped, wait_until
from tests.support.onnx_writer import fails_on_index, identity, write_repository
from tests.support.server import Server, running
from tests.support.wire import LIVE, Wire, infer

pytestmark = pytest.mark.slow

HEAD_TIMEOUT_S = 1
HEAD = b"POST /v2/models/echo/infer HTTP/1.1\r\nHost: a\r\n"
ECHO = infer("echo", "x", "FP32", [1, 2], [1, 2.5])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    models = {"echo": identity("FP32", (-1, 2)), "fails": fails_on_index(16), "free": identity("FP64", [-1, -1])}
    root = write_repository(tmp_path_factory.mktemp("models"), models)
    limits = ("--head-timeout", str(HEAD_TIMEOUT_S), "--max-body-bytes", str(2 << 20))
    with running(root, "--workers", "1", *limits) as server:
        yield server


@pytest.fixture
def wire(server: Server) -> Iterator[Wire]:
    with Wire(server.host, server.port) as wire:
        yield wire


def executor(server: Server) -> int:
    """Of `echo`."""
    return server.pids("executor")[0]


def test_everything_before_a_broken_request_is_answered_after_a_half_close(server: Server, wire: Wire) -> None:
    with stopped(executor(server)):
        wire.send(ECHO + LIVE + b"GARBAGE\r\n\r\n").half_close()
        wait_until(lambda: metric(server, "headrace_queue_depth", model="echo") == 1, "the first one waiting")
        wire.silent()
    assert [wire.answer().status for _ in range(3)] == [200, 200, 400]
    wire.end()


def test_a_refused_body_that_never_comes_gets_no_second_answer(wire: Wire) -> None:
    wire.send(HEAD + b"Content-Type: text/html\r\nContent-Length: 1000\r\n\r\n")
    assert wire.answer().status == 415
    wire.end()


def test_a_refused_body_at_a_fair_rate_is_read_away(wire: Wire) -> None:
    wire.send(HEAD + b"Content-Type: text/html\r\nContent-Length: 1500\r\n\r\n")
    assert wire.answer().status == 415
    for _ in range(30):
        time.sleep(0.1)
        wire.send(b"x" * 50)
    assert wire.send(LIVE).answer().status == 200


@pytest.mark.parametrize("line", [b"Connection: close\r\n", b"Expect: 100-continue\r\n"])
def test_a_refusal_reaches_a_client_that_is_still_sending(wire: Wire, line: bytes) -> None:
    """Closing at once would reset the connection under the client's feet, and take the answer along."""
    size = 1 << 20
    wire.send(HEAD + line + b"Content-Type: text/html\r\nContent-Length: %d\r\n\r\n" % size)
    wait_s = time.monotonic() + 0.2
    while time.monotonic() < wait_s:
        wire.send(b"x" * 1000)
        time.sleep(0.01)
    answer = wire.answer()
    assert (answer.status, answer.headers["connection"]) == (415, "close")
    wire.end()


def test_bytes_behind_the_last_request_do_not_reset_its_answer(server: Server, wire: Wire) -> None:
    with stopped(executor(server)):
        wire.send(ECHO.replace(b"Host", b"Connection: close\r\nHost", 1) + LIVE)
        for _ in range(20):
            time.sleep(0.01)
            wire.send(LIVE * 10)
    assert wire.answer().status == 200
    wire.send(LIVE)
    wire.end()


def test_the_time_of_a_body_begins_when_it_is_asked_for(server: Server, wire: Wire) -> None:
    """The body of a request behind another one is asked for when that one is answered."""
    body = ECHO.partition(b"\r\n\r\n")[2]
    with stopped(executor(server)):
        wire.send(ECHO + HEAD + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(body))
        time.sleep(2 * HEAD_TIMEOUT_S + 1)
    assert wire.answer().status == 200
    assert wire.answer().status == 100
    time.sleep(0.5)
    # The clock of time-outs ticks once a second: this one passed while the body was awaited.
    wire.silent(HEAD_TIMEOUT_S - 0.6)
    assert wire.send(body).answer().status == 200


@pytest.mark.parametrize("timeout_us", [2**62, 2**63 - 1, 18446744073709552])
def test_a_deadline_beyond_the_clock_is_no_deadline(server: Server, timeout_us: int) -> None:
    """Such a number of microseconds has more nanoseconds than 64 bits hold."""
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}
    answer = server.post("/v2/models/echo/infer", {"parameters": {"timeout": timeout_us}, "inputs": [tensor]})
    assert answer.status == 200, answer


def test_inputs_that_outgrow_their_room_are_too_large_and_not_malformed(server: Server) -> None:
    """Two bytes of JSON make eight of FP64: the body is within its limit, the tensor is not."""
    count = 900_000
    tensor = {"name": "x", "datatype": "FP64", "shape": [1, count], "data": [0] * count}
    body = str({"inputs": [tensor]}).replace("'", '"').replace(" ", "").encode()
    answer = server.request("POST", "/v2/models/free/infer", body)
    assert answer.status == 413, answer
    assert "the inputs take more than" in answer.json()["error"]


def test_a_failure_never_shows_the_reason_of_an_earlier_one(server: Server) -> None:
    """Two rows of a request fail and one reason is told: the other one must not be told to whoever has the row next."""
    reasons = []
    for indices in ([101, 102], [1, 2, 103], [1, 104]):
        tensor = {"name": "index", "datatype": "INT64", "shape": [len(indices), 1], "data": indices}
        reasons.append(server.post("/v2/models/fails/infer", {"inputs": [tensor]}).json()["error"])
    for reason, index in zip(reasons, (101, 103, 104), strict=True):
        assert f"idx={index} " in reason, reasons
