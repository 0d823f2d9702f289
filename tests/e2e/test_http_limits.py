"""Clients that are slow, idle, greedy or many: what they get, and that nobody else notices."""

from __future__ import annotations

import contextlib
import os
import select
import struct
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.faults import cpu_s, metric, open_descriptors, private_bytes, reset, stopped, wait_until
from tests.support.onnx_writer import Graph, identity, write_repository
from tests.support.server import Server, executable, running, running_command
from tests.support.wire import LIVE, LIVE_BODY, Wire, infer, post

pytestmark = pytest.mark.slow

HEAD_TIMEOUT_S = 1
IDLE_TIMEOUT_S = 2
#: Time-outs are looked at once a second.
TICK_S = 1
SLACK_S = 1.5
WIDTH = 65536
ECHO = infer("echo", "x", "FP32", [1, 2], [1, 2.5])


def wide() -> bytes:
    """`x` FP32 [-1, 1] -> `y` FP32 [-1, WIDTH], each row x, x, x, ...: a small request with a large reply."""
    graph = Graph("wide")
    graph.input("x", "FP32", [-1, 1])
    graph.constant("ones", "FP32", [1, WIDTH], struct.pack("<f", 1.0) * WIDTH)
    graph.node("MatMul", ["x", "ones"], ["y"])
    graph.output("y", "FP32", [-1, WIDTH])
    return graph.model()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    models = {"echo": identity("FP32", (-1, 2)), "wide": wide()}
    return write_repository(tmp_path_factory.mktemp("models"), models)


@pytest.fixture(scope="module")
def server(models: Path) -> Iterator[Server]:
    """One worker, so that whoever is slow shares it with everybody else."""
    limits = ("--head-timeout", HEAD_TIMEOUT_S, "--idle-timeout", IDLE_TIMEOUT_S)
    queue = ("--max-batch-size", 8, "--queue-rows", 256)
    with running(models, "--workers", "1", *map(str, limits + queue)) as server:
        yield server


@pytest.fixture
def wire(server: Server) -> Iterator[Wire]:
    with Wire(server.host, server.port) as wire:
        yield wire


def dribble(wire: Wire, data: bytes, pause_s: float, for_s: float) -> float:
    """Sends a byte after each pause until the server answers or closes; how many seconds that took."""
    started = time.monotonic()
    for at in range(len(data)):
        if time.monotonic() - started > for_s:
            break
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            wire.send(data[at : at + 1])
        if select.select([wire.socket], [], [], pause_s)[0]:
            return time.monotonic() - started
    raise AssertionError(f"the server let a slow client go on for {for_s} s")


def timed_out(wire: Wire) -> None:
    answer = wire.answer()
    assert (answer.status, answer.headers["connection"]) == (408, "close")
    wire.end()


# -- time-outs


def test_a_slow_head_gets_408(wire: Wire) -> None:
    took_s = dribble(wire, LIVE * 5, 0.2, HEAD_TIMEOUT_S + TICK_S + SLACK_S)
    assert took_s >= HEAD_TIMEOUT_S
    timed_out(wire)


def test_a_head_that_stops_behind_an_answered_request_gets_408(wire: Wire) -> None:
    wire.send(ECHO + LIVE[:20])
    assert wire.answer().status == 200
    timed_out(wire)


@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_a_slow_body_gets_408(wire: Wire, framing: str) -> None:
    head = b"POST /v2/models/echo/infer HTTP/1.1\r\nHost: a\r\n"
    wire.send(
        head + (b"Content-Length: 1000\r\n\r\n" if framing == "length" else b"Transfer-Encoding: chunked\r\n\r\n")
    )
    data = b" " * 1000 if framing == "length" else b"1\r\n \r\n" * 200
    # 20 bytes a second; 240 are asked for.
    assert dribble(wire, data, 0.05, 3 * HEAD_TIMEOUT_S + 2 * TICK_S + SLACK_S) >= HEAD_TIMEOUT_S
    timed_out(wire)


def test_a_body_at_a_fair_rate_is_waited_for(wire: Wire) -> None:
    data = post("/v2/models/echo/infer", ECHO.partition(b"\r\n\r\n")[2] + b" " * 2000)
    for at in range(0, len(data) - 60, 60):
        wire.send(data[at : at + 60])
        assert not select.select([wire.socket], [], [], 0.1)[0], wire.answer()
    wire.send(data[at + 60 :])
    assert wire.answer().status == 200


def test_idle_connections_are_closed_without_a_word(server: Server) -> None:
    with Wire(server.host, server.port) as fresh, Wire(server.host, server.port) as used:
        used.send(LIVE).answer()
        started = time.monotonic()
        for wire in (fresh, used):
            wire.end()
            assert IDLE_TIMEOUT_S * 0.9 <= time.monotonic() - started <= IDLE_TIMEOUT_S + TICK_S + SLACK_S


def test_waiting_for_the_model_is_not_idleness(server: Server, wire: Wire) -> None:
    with stopped(server.pids("executor")[0]):
        wire.send(ECHO + LIVE + LIVE[:10])
        wire.silent(IDLE_TIMEOUT_S + TICK_S + 0.5)
    assert wire.answer().status == 200
    assert wire.answer().body == LIVE_BODY


def test_a_client_that_sends_on_after_its_last_answer_is_cut_off(server: Server, wire: Wire) -> None:
    """The connection lingers so that the answer can be read, not for as long as the client likes."""
    wire.send(b"nonsense\r\n\r\n")
    assert wire.answer().status == 400
    started = time.monotonic()
    with pytest.raises((BrokenPipeError, ConnectionResetError)):
        while time.monotonic() - started < 6:
            wire.send(b"x")
            time.sleep(0.05)


# -- order and back-pressure


def test_fast_answers_wait_for_slow_ones_before_them(server: Server, wire: Wire) -> None:
    with stopped(server.pids("executor")[0]):
        wire.send((LIVE + ECHO) * 30)
        assert wire.answer().body == LIVE_BODY
        wire.silent()
    for _ in range(29):
        assert wire.answer().json()["outputs"][0]["data"] == [1.0, 2.5]
        assert wire.answer().body == LIVE_BODY
    assert wire.answer().status == 200


def test_at_most_16_requests_of_a_connection_are_open(server: Server, wire: Wire) -> None:
    with stopped(server.pids("executor")[0]):
        wire.send(ECHO * 40)
        wait_until(lambda: metric(server, "headrace_queue_depth", model="echo") == 16, "16 rows queued")
        wire.silent()
        assert metric(server, "headrace_queue_depth", model="echo") == 16
    for _ in range(40):
        assert wire.answer().status == 200


def wide_request(rows: int, value: float = 1) -> bytes:
    head = (
        b'{"inputs":[{"name":"x","datatype":"FP32","shape":[%d,1],"parameters":{"binary_data_size":%d}}],'
        b'"parameters":{"binary_data_output":true}}' % (rows, 4 * rows)
    )
    body = head + struct.pack("<f", value) * rows
    return post("/v2/models/wide/infer", body, b"Inference-Header-Content-Length: %d" % len(head))


def test_a_client_that_reads_nothing_costs_bounded_memory_and_no_rows(server: Server) -> None:
    worker = server.pids("worker")[0]
    reply_bytes = 8 * WIDTH * 4
    # Once through, so that what is measured is not the first touch.
    with Wire(server.host, server.port) as warm:
        assert len(warm.send(wide_request(8)).answer().body) > reply_bytes
    before = private_bytes(worker)
    with Wire(server.host, server.port, receive_bytes=4096) as greedy:
        greedy.socket.settimeout(0.5)
        with contextlib.suppress(TimeoutError):
            for _ in range(200):
                greedy.send(wide_request(8) * 100)
        wait_until(lambda: metric(server, "headrace_queue_depth", model="wide") == 0, "no row held by a slow reader")
        # What may be open at once, twice while it moves from one buffer to the next.
        assert private_bytes(worker) - before < 2 * 17 * reply_bytes
        with Wire(server.host, server.port) as other:
            slowest_s = 0.0
            for number in range(50):
                started = time.monotonic()
                answer = other.send(wide_request(2, number)).answer()
                slowest_s = max(slowest_s, time.monotonic() - started)
                cut = int(answer.headers["inference-header-content-length"])
                assert answer.body[cut:] == struct.pack("<f", number) * (2 * WIDTH)
            assert slowest_s < 1
        reset(greedy.socket)
    wait_until(lambda: metric(server, "headrace_connections") == 1, "the connection gone")
    wait_until(lambda: private_bytes(worker) - before < 4 * reply_bytes, "the memory given back")


def test_slow_readers_get_every_byte(server: Server) -> None:
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(Wire(server.host, server.port, receive_bytes=8192)) for _ in range(30)]
        for number, wire in enumerate(slow):
            wire.send(wide_request(4, number) + wide_request(1, -number) + LIVE)
        for number, wire in enumerate(slow):
            for rows, value in ((4, number), (1, -number)):
                answer = wire.answer()
                cut = int(answer.headers["inference-header-content-length"])
                assert answer.body[cut:] == struct.pack("<f", value) * (rows * WIDTH)
            assert wire.answer().body == LIVE_BODY


@pytest.mark.parametrize("ending", ["close", "half-close", "error"])
def test_a_slow_reader_gets_every_answer_before_the_connection_closes(server: Server, ending: str) -> None:
    """The answers that are due when the kernel's buffer is full go out before the end, however the end came."""
    last = {
        "close": LIVE.replace(b"Host: a", b"Host: a\r\nConnection: close"),
        "half-close": LIVE,
        "error": b"x\r\n\r\n",
    }
    with Wire(server.host, server.port, receive_bytes=8192) as wire:
        wire.send(b"".join(wide_request(8, number) for number in range(6)) + last[ending])
        if ending == "half-close":
            wire.half_close()
        wait_until(lambda: metric(server, "headrace_inflight_requests", model="wide") == 0, "all rows answered")
        time.sleep(2 * TICK_S + SLACK_S if ending == "error" else 0.05)
        for number in range(6):
            answer = wire.answer()
            cut = int(answer.headers["inference-header-content-length"])
            assert answer.body[cut:] == struct.pack("<f", number) * (8 * WIDTH)
        assert wire.answer().status == (400 if ending == "error" else 200)
        wire.end()


# -- many


def test_a_thousand_connections(models: Path) -> None:
    with contextlib.ExitStack() as stack:
        # 1024 slabs: however few rows of each are filled before it runs, there is one left for every request.
        queue = ("--queue-rows", "4096", "--max-batch-size", "4")
        server = stack.enter_context(running(models, "--workers", "1", *queue))
        before = open_descriptors(server)
        wires = [stack.enter_context(Wire(server.host, server.port)) for _ in range(1000)]
        for wire in wires:
            wire.send(ECHO)
        for wire in wires:
            assert wire.answer().status == 200
        assert metric(server, "headrace_connections") >= 1000
        for wire in wires[::-1]:
            wire.send(LIVE)
        for wire in wires:
            assert wire.answer().body == LIVE_BODY
            wire.socket.close()
        wait_until(lambda: metric(server, "headrace_connections") == 1, "all connections closed")
        assert open_descriptors(server) == before


def test_requests_that_come_at_once_have_room_where_others_are_done(models: Path) -> None:
    """A worker that was held up reads them in one turn; the executor, awake, takes them in small batches meanwhile."""
    statuses: Counter[int] = Counter()
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(running(models, "--workers", "1"))
        (worker,) = server.pids("worker")
        wires = [stack.enter_context(Wire(server.host, server.port)) for _ in range(600)]
        for _ in range(8):
            with stopped(worker):
                for wire in wires:
                    wire.send(ECHO)
            statuses.update(wire.answer().status for wire in wires)
    # A slab with a row that runs is not free yet: now and then that is all of them.
    assert set(statuses) <= {200, 503}
    assert statuses[503] <= 4800 // 500, statuses


@pytest.fixture
def few_descriptors(models: Path, tmp_path: Path) -> Iterator[Server]:
    """A server in which each process may have 256 descriptors."""
    shell = ("sh", "-c", 'ulimit -n 256; exec "$@"', "sh")
    ports = ("--http-port", "0", "--grpc-port", "0", "--metrics-port", "0")
    with running_command(tmp_path, *shell, *executable(), "serve", str(models), "--workers", "1", *ports) as server:
        yield server


def test_more_connections_than_descriptors(few_descriptors: Server) -> None:
    server = few_descriptors
    worker = server.pids("worker")[0]
    served = 0
    with contextlib.ExitStack() as stack:
        wires = []
        for _ in range(1000):
            wire = Wire(server.host, server.port, timeout_s=1)
            stack.enter_context(wire)
            wires.append(wire)
        started, used_s = time.monotonic(), cpu_s(worker)
        # The port that orchestrators probe still answers, quickly.
        for _ in range(10):
            probed = time.monotonic()
            assert server.get("/v2/health/live", port=server.metrics_port, timeout_s=1).status == 200
            assert time.monotonic() - probed < 0.5
            time.sleep(0.1)
        assert len(os.listdir(f"/proc/{worker}/fd")) <= 256
        for wire in wires[:150]:
            assert wire.send(LIVE).answer().body == LIVE_BODY
            served += 1
        assert (cpu_s(worker) - used_s) / (time.monotonic() - started) < 0.3
    assert served == 150
    left = time.monotonic()
    assert server.get("/v2/health/ready").status == 200
    assert time.monotonic() - left < 2
    assert server.pids("worker") == [worker]
