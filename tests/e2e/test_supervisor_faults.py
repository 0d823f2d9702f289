"""What the supervisor meets besides deaths: models that cannot come back, no descriptors left, nobody who reads."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.faults import metric, stopped, wait_until
from tests.support.onnx_writer import identity, write_repository
from tests.support.server import Server, executable, running, start
from tests.support.wire import Wire, infer

pytestmark = pytest.mark.slow

ECHO = infer("echo", "x", "FP32", [1, 2], [1, 2.5])


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return write_repository(
        tmp_path / "models", {"echo": identity("FP32", (-1, 2)), "other": identity("FP32", (-1, 2))}
    )


@contextlib.contextmanager
def waiting(server: Server, count: int) -> Iterator[list[Wire]]:
    """Connections with a request each, all waiting for an executor that dies at the end of the setup."""
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Wire(server.host, server.port)) for _ in range(count)]
        pid = server.pids("executor")[0]
        with stopped(pid):
            for wire in clients:
                wire.send(ECHO)
            wait_until(lambda: metric(server, "headrace_queue_depth", model="echo") == count, "all waiting")
            os.kill(pid, signal.SIGKILL)
        yield clients


def test_requests_that_wait_for_a_model_that_cannot_be_loaded_again_are_refused(models: Path) -> None:
    with running(models, "--workers", "2") as server:
        (models / "echo" / "1" / "model.onnx").write_bytes(b"no model")
        with waiting(server, 20) as clients:
            for wire in clients:
                answer = wire.answer()
                assert answer.status == 503, answer
                assert "echo" in answer.json()["error"]
                answer = wire.send(ECHO).answer()
                assert (answer.status, "retry-after" in answer.headers) == (503, False)
        assert metric(server, "headrace_queue_depth", model="echo") == 0
        assert metric(server, "headrace_inflight_requests", model="echo") == 0
        assert server.post("/v2/models/other/infer", {"inputs": []}).status == 400


def test_an_executor_that_dies_while_the_server_stops_is_replaced_for_what_is_in_flight(
    models: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "server"
    folder.mkdir()
    server = start(folder, models, "--workers", "2", "--drain-timeout", "20")
    try:
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(Wire(server.host, server.port)) for _ in range(10)]
            pid = server.pids("executor")[0]
            with stopped(pid):
                for wire in clients:
                    wire.send(ECHO)
                wait_until(lambda: metric(server, "headrace_queue_depth", model="echo") == 10, "all waiting")
                os.kill(server.process.pid, signal.SIGTERM)
                wait_until(lambda: "draining" in server.log(), "the drain")
                wait_until(lambda: not accepts(server), "the listeners closed")
                os.kill(pid, signal.SIGKILL)
            for wire in clients:
                assert wire.answer().status == 200
        server.wait_stopped()
    finally:
        server.kill()


def accepts(server: Server) -> bool:
    with contextlib.suppress(OSError), server.connect(timeout_s=1):
        return True
    return False


@pytest.mark.parametrize("role", ["worker", "executor"])
def test_a_child_that_cannot_be_started_is_started_later(models: Path, role: str) -> None:
    with running(models, "--workers", "2") as server:
        _, hard = resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (3, hard))
        victim = server.pids(role)[0]
        os.kill(victim, signal.SIGKILL)
        server.wait_log("child_not_started")
        assert server.process.poll() is None
        assert len(server.pids(role)) == 1
        resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE, (hard, hard))
        server.wait_replaced(role, victim, 2)
        with Wire(server.host, server.port) as wire:
            assert wire.send(ECHO).answer().status == 200


def test_a_server_whose_output_nobody_reads_serves_on(models: Path) -> None:
    """`headrace serve | head -0`, or a log collector that has gone."""
    read, write = os.pipe()
    os.close(read)
    port = free_port()
    command = [
        *executable(),
        "serve",
        str(models),
        "--http-port",
        str(port),
        "--grpc-port",
        "0",
        "--metrics-port",
        "0",
        "--drain-delay",
        "0",
    ]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=write, stderr=write)
    os.close(write)
    try:
        deadline = time.monotonic() + 20
        while True:
            assert process.poll() is None, f"ended with {process.returncode}"
            with contextlib.suppress(OSError), Wire("127.0.0.1", port) as wire:
                if wire.send(ECHO).answer().status == 200:
                    break
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(0.5)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()


def free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
