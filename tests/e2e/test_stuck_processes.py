"""Processes that live but stand still are found and replaced; nobody else notices, and a pause of all is no reason."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.faults import metric, stopped, wait_until, worker_of
from tests.support.hostile_models import endless
from tests.support.onnx_writer import identity, write_repository
from tests.support.server import Server, running
from tests.support.wire import LIVE, LIVE_BODY, Wire, infer

pytestmark = pytest.mark.slow

#: The shortest that can be asked for.
LIMIT_S = 2.0
FOR_EVER = 10**12


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_repository(
        tmp_path_factory.mktemp("models"), {"echo": identity("FP32", (-1, 2)), "endless": endless()}
    )


@pytest.fixture
def server(models: Path) -> Iterator[Server]:
    with running(models, "--workers", "2", "--stuck-after", str(LIMIT_S), "--drain-timeout", "5") as server:
        yield server


def echo(number: float) -> bytes:
    return infer("echo", "x", "FP32", [1, 2], [number, -number], str(number))


def rounds(count: int) -> bytes:
    return infer("endless", "x", "INT64", [1, 1], [count])


def executor_of(server: Server, number: int) -> int:
    return next(pid for pid, command in server.processes().items() if command == f"headrace-e{number}")


def stuck_count(server: Server, role: str) -> float:
    return metric(server, "headrace_worker_restarts_total", role=role, cause="stuck")


def test_a_stopped_executor_is_replaced_and_its_requests_are_answered(server: Server) -> None:
    victim = executor_of(server, 0)
    with contextlib.ExitStack() as stack:
        wire = stack.enter_context(Wire(server.host, server.port))
        other = stack.enter_context(Wire(server.host, server.port))
        stack.enter_context(stopped(victim))
        started = time.monotonic()
        wire.send(echo(1))
        # The other model's requests do not wait.
        for _ in range(20):
            asked = time.monotonic()
            assert other.send(rounds(3)).answer().status == 200
            assert time.monotonic() - asked < 1
        wire.socket.settimeout(LIMIT_S + 8)
        answer = wire.answer()
        assert (answer.status, answer.json()["id"]) == (200, "1")
        assert LIMIT_S - 1 < time.monotonic() - started < LIMIT_S + 5
    assert "executor_stuck" in server.log()
    # Another process may answer before the supervisor has seen its end.
    wait_until(lambda: victim not in server.processes(), "it is gone")
    wait_until(lambda: stuck_count(server, "executor") == 1, "the death is counted")
    assert metric(server, "headrace_worker_restarts_total", role="executor", cause="died") == 0


def test_an_endless_run_is_ended_and_its_input_refused(server: Server) -> None:
    """A model whose runs are known to be short gets ten times their p99, or the limit if that is longer."""
    with Wire(server.host, server.port) as wire, Wire(server.host, server.port) as mate:
        for count in range(25):
            assert wire.send(rounds(count)).answer().status == 200
        wire.send(rounds(FOR_EVER))
        mate.send(rounds(1))
        wire.socket.settimeout(40)
        mate.socket.settimeout(40)
        assert mate.answer().json()["outputs"][0]["data"] == [1]
        answer = wire.answer()
        assert (answer.status, "executor" in answer.json()["error"]) == (500, True)
        deaths = stuck_count(server, "executor")
        assert 2 <= deaths <= 3
        # Refused without being run.
        assert wire.send(rounds(FOR_EVER)).answer().status == 500
        assert wire.send(rounds(2)).answer().status == 200
        assert stuck_count(server, "executor") == deaths
    # Where it was when it was ended.
    assert '"stack":"run onnx_backend.py:' in server.log()


def test_a_run_of_a_model_that_is_not_known_yet_has_longer(server: Server) -> None:
    with Wire(server.host, server.port) as wire:
        # How many rounds take longer than the limit depends on the machine.
        begun = time.monotonic()
        wire.send(rounds(200_000)).answer()
        per_round_s = (time.monotonic() - begun) / 200_000
        wire.socket.settimeout(60)
        count, took_s = int(1.3 * LIMIT_S / per_round_s), 0.0
        while took_s < LIMIT_S + 0.3:
            begun = time.monotonic()
            assert wire.send(rounds(count)).answer().status == 200
            took_s = time.monotonic() - begun
            count += count // 2
    assert stuck_count(server, "executor") == 0


def test_a_stopped_worker_is_replaced_and_its_listener_served(server: Server) -> None:
    victim = server.pids("worker")[0]
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(Wire(server.host, server.port)) for _ in range(16)]
        for wire in held:
            assert wire.send(LIVE).answer().body == LIVE_BODY
        mine = [wire for wire in held if worker_of(server, wire.socket.getsockname()[1]) == victim]
        others = [wire for wire in held if wire not in mine]
        assert mine and others
        stack.enter_context(stopped(victim))
        started = time.monotonic()
        late = [stack.enter_context(Wire(server.host, server.port, timeout_s=LIMIT_S + 8)) for _ in range(16)]
        for number, wire in enumerate(late):
            wire.send(echo(number))
        for number, wire in enumerate(others):
            wire.send(echo(number))
            assert wire.answer().status == 200
        # Half of them wait in the queue of the stopped worker's listener: its successor answers.
        for number, wire in enumerate(late):
            assert wire.answer().json()["id"] == str(number)
        assert time.monotonic() - started < LIMIT_S + 5
    assert victim not in server.processes()
    assert "worker_stuck" in server.log()
    assert stuck_count(server, "worker") == 1


def test_a_pause_of_everything_replaces_nobody(server: Server) -> None:
    before = server.processes()
    with Wire(server.host, server.port) as wire:
        with contextlib.ExitStack() as stack:
            for pid in before:
                stack.enter_context(stopped(pid))
            wire.send(echo(1))
            time.sleep(1.3 * LIMIT_S)
        assert wire.answer().status == 200
        wait_until(lambda: server.get("/v2/health/live").status == 200, "both workers")
    assert server.processes() == before
    assert "_stuck" not in server.log()


def test_a_model_that_does_not_end_loading_is_refused(tmp_path: Path) -> None:
    """Its golden check runs for ever; the neighbour is served from the start."""
    root = write_repository(tmp_path, {"echo": identity("FP32", (-1, 2)), "endless": endless()})
    (root / "endless" / "golden").mkdir()
    tensor = {"datatype": "INT64", "shape": [1, 1], "data": [FOR_EVER]}
    for what, name in (("request", "x"), ("response", "y")):
        document = {"inputs" if what == "request" else "outputs": [{"name": name, **tensor}]}
        (root / "endless" / "golden" / f"for_ever.{what}.json").write_text(json.dumps(document))
    with running(root, "--workers", "1", "--load-timeout", "1") as server:
        row = next(row for row in server.post("/v2/repository/index", {}).json() if row["name"] == "endless")
        assert (row["state"], row["reason"]) == ("UNAVAILABLE", "it did not load within 1 s (--load-timeout)")
        with Wire(server.host, server.port) as wire:
            assert wire.send(echo(1)).answer().status == 200
