"""--executors shared: one process runs all models of a device; they share it, come and go in it, and survive it."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.askers import greedy_batches
from tests.support.faults import metric, open_descriptors, wait_until
from tests.support.hostile_models import endless
from tests.support.onnx_writer import identity, write_repository
from tests.support.oracle import Oracle, Question, model
from tests.support.server import Server, running
from tests.support.wire import Wire, infer

pytestmark = pytest.mark.slow

SHARED = ("--executors", "shared", "--workers", "1")
EXPLICIT = ("--model-control-mode", "explicit", "--load-model", "*")
MODELS = {"plain": model(), "busy": model(busy_width=256)}
REQUEST_COUNT = 3_000
KILL_COUNT = 3
FOR_EVER = 10**12


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_repository(tmp_path_factory.mktemp("models"), MODELS)


def executor(server: Server) -> int:
    (pid,) = server.pids("executor")
    return pid


def choose(serial: int) -> Question:
    rows = 150 if serial % 100 == 50 else random.Random(serial).choice((1, 1, 2, 3))
    return Question(serial, "busy" if serial % 3 == 0 else "plain", rows)


def ask_all(server: Server, is_over: threading.Event | None = None) -> None:
    """Questions to both models over many connections; every one has one right answer."""
    oracle = Oracle(
        server,
        connection_count=32,
        window=2,
        choose=choose,
        enough=lambda answered: answered >= REQUEST_COUNT and (is_over is None or is_over.is_set()),
    )
    tally = asyncio.run(oracle.run(timeout_s=60))
    assert tally.complaints == []
    assert tally.answered == oracle.asked >= REQUEST_COUNT


def state(server: Server, name: str) -> tuple[str, str]:
    row = next(row for row in server.post("/v2/repository/index", {}).json() if row["name"] == name)
    return row["state"], row["reason"]


@pytest.mark.parametrize("instances", ["1", "2"])
def test_two_models_in_one_process_answer_right(models: Path, instances: str) -> None:
    with running(models, *SHARED, "--instances", instances) as server:
        pid = executor(server)
        ask_all(server)
        assert executor(server) == pid
        assert metric(server, "headrace_queue_depth") == 0


@pytest.mark.parametrize("instances", ["1", "2"])
def test_every_request_has_one_answer_while_the_process_is_killed(models: Path, instances: str) -> None:
    with running(models, *SHARED, "--instances", instances) as server:
        before = open_descriptors(server)
        kills_over = threading.Event()

        def kill() -> None:
            try:
                for _ in range(KILL_COUNT):
                    victim = executor(server)
                    wait_until(lambda: metric(server, "headrace_queue_depth") > 8, "requests in flight")
                    os.kill(victim, signal.SIGKILL)
                    server.wait_replaced("executor", victim)
            finally:
                kills_over.set()

        killer = threading.Thread(target=kill)
        killer.start()
        ask_all(server, kills_over)
        killer.join()
        assert metric(server, "headrace_worker_restarts_total", role="executor", cause="died") == KILL_COUNT
        wait_until(lambda: metric(server, "headrace_connections") == 1, "all connections closed")
        wait_until(lambda: open_descriptors(server) == before, "as many descriptors as before")


def test_a_greedy_model_leaves_the_other_its_share(tmp_path: Path) -> None:
    """One instance runs both. While the modest model is asked for one row at a time, the greedy one, whose runs take
    many times as long, gets a batch or two done for each.
    """
    write_repository(tmp_path / "models", {"greedy": model(busy_width=256), "modest": model()})
    with running(tmp_path / "models", *SHARED, "--max-batch-size", "64") as server:
        count = 150
        done = greedy_batches(server, 6, 64, count)
        assert 0 < done <= 3 * count


class Asking:
    """A client that asks `plain` without pause."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._is_over = threading.Event()
        self.answered = 0
        self.failures: list[bytes] = []
        self._thread = threading.Thread(target=self._ask)

    def __enter__(self) -> Asking:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._is_over.set()
        self._thread.join()

    def _ask(self) -> None:
        with Wire(self._server.host, self._server.port, timeout_s=20) as wire:
            while not self._is_over.is_set():
                self.answered += 1
                answer = wire.send(infer("plain", "x", "INT64", [1, 2], [self.answered, 0])).answer()
                if answer.status != 200 or answer.json()["outputs"][0]["data"] != [3 * self.answered + 7, 7]:
                    self.failures.append(answer.body)


@pytest.fixture
def changing(tmp_path: Path) -> Iterator[tuple[Server, Path]]:
    root = write_repository(tmp_path / "models", {**MODELS, "endless": endless()})
    with running(root, *SHARED, *EXPLICIT, "--load-timeout", "1.5", "--stuck-after", "2") as server:
        yield server, root


def test_models_come_and_go_while_another_is_served(changing: tuple[Server, Path]) -> None:
    server, root = changing
    pid = executor(server)
    with Asking(server) as asking:
        for _ in range(5):
            assert server.post("/v2/repository/models/busy/unload", {}).status == 200
            assert server.post("/v2/models/busy/infer", {}).status in (400, 404)
            assert server.post("/v2/repository/models/busy/load", {}).status == 200
            with Wire(server.host, server.port) as wire:
                wire.socket.sendall(Question(1, "busy", 2).encoded())
                assert wire.answer().status == 200
        # A version in place of another, too.
        write_repository(root, {"busy": model()}, version=2)
        assert server.post("/v2/repository/models/busy/load", {}).status == 200
        assert server.get("/v2/models/busy").json()["versions"] == ["2"]
    assert asking.failures == [] and asking.answered > 20
    wait_until(lambda: server.pids("executor") == [pid], "only the one process, the same as at first")
    assert metric(server, "headrace_worker_restarts_total", role="executor", cause="died") == 0


def test_the_last_model_takes_the_process_with_it(changing: tuple[Server, Path]) -> None:
    server, _ = changing
    pid = executor(server)
    for name in ("busy", "plain", "endless"):
        assert server.post(f"/v2/repository/models/{name}/unload", {}).status == 200
    wait_until(lambda: not server.pids("executor"), "no executor without models")
    assert server.post("/v2/repository/models/plain/load", {}).status == 200
    with Wire(server.host, server.port) as wire:
        wire.socket.sendall(Question(1, "plain", 2).encoded())
        assert wire.answer().status == 200
    assert executor(server) != pid
    assert metric(server, "headrace_worker_restarts_total", role="executor", cause="died") == 0


def test_a_model_that_cannot_be_loaded_is_refused_alone(changing: tuple[Server, Path]) -> None:
    """Broken, or with a check that never ends: neither is seen by the process that serves."""
    server, root = changing
    pid = executor(server)
    (root / "broken" / "1").mkdir(parents=True)
    (root / "broken" / "1" / "model.onnx").write_bytes(model(busy_width=8).replace(b"Tanh", b"Tank"))
    shutil.copytree(root / "endless", root / "stuck")
    golden(root / "stuck", FOR_EVER)
    with Asking(server) as asking:
        for name, reason in (("broken", "Tank"), ("stuck", "--load-timeout")):
            answer = server.request("POST", f"/v2/repository/models/{name}/load", b"{}", timeout_s=20)
            assert (answer.status, reason in answer.body.decode()) == (400, True), answer.body
            assert state(server, name)[0] == "UNAVAILABLE"
    assert asking.failures == [] and asking.answered > 20
    assert executor(server) == pid


def test_a_model_whose_load_ends_its_process_ends_no_other(changing: tuple[Server, Path]) -> None:
    server, root = changing
    pid = executor(server)
    shutil.copytree(root / "endless", root / "deadly")
    golden(root / "deadly", FOR_EVER)
    is_over = threading.Event()
    killed = set()

    def kill() -> None:
        while not is_over.wait(0.01):
            for other in set(server.pids("executor")) - {pid} - killed:
                os.kill(other, signal.SIGKILL)
                killed.add(other)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        with Asking(server) as asking:
            answer = server.request("POST", "/v2/repository/models/deadly/load", b"{}", timeout_s=20)
    finally:
        is_over.set()
        killer.join()
    assert (answer.status, "died 4 times while it loaded" in answer.body.decode()) == (400, True), answer.body
    assert asking.failures == [] and asking.answered > 20
    assert len(killed) == 4 and executor(server) == pid


def golden(folder: Path, rounds: int) -> None:
    (folder / "golden").mkdir()
    tensor = {"datatype": "INT64", "shape": [1, 1], "data": [rounds]}
    for what, name in (("request", "x"), ("response", "y")):
        document = {"inputs" if what == "request" else "outputs": [{"name": name, **tensor}]}
        (folder / "golden" / f"case.{what}.json").write_text(json.dumps(document))


def test_one_that_is_broken_from_the_start_leaves_the_others(tmp_path: Path) -> None:
    root = write_repository(tmp_path / "models", {**MODELS, "astuck": endless()})
    golden(root / "astuck", FOR_EVER)
    with running(root, *SHARED, "--load-timeout", "1") as server:
        # It was the first: the process was ended for it, and started with the others.
        assert state(server, "astuck") == ("UNAVAILABLE", "it did not load within 1 s (--load-timeout)")
        ask_all(server)
        assert metric(server, "headrace_worker_restarts_total", role="executor", cause="stuck") == 1


def test_an_endless_run_is_ended_and_its_input_refused(changing: tuple[Server, Path]) -> None:
    """Whose input it is is found out while the neighbour's requests are all answered."""
    server, _ = changing

    def rounds(count: int) -> bytes:
        return infer("endless", "x", "INT64", [1, 1], [count])

    with Asking(server) as asking, Wire(server.host, server.port, timeout_s=60) as wire:
        for count in range(25):
            assert wire.send(rounds(count)).answer().status == 200
        answer = wire.send(rounds(FOR_EVER)).answer()
        assert (answer.status, "executor" in answer.json()["error"]) == (500, True)
        deaths = metric(server, "headrace_worker_restarts_total", role="executor", cause="stuck")
        assert 2 <= deaths <= 3
        assert wire.send(rounds(FOR_EVER)).answer().status == 500
        assert wire.send(rounds(2)).answer().status == 200
        assert metric(server, "headrace_worker_restarts_total", role="executor", cause="stuck") == deaths
    assert asking.failures == []


def test_a_process_that_stands_still_is_replaced(changing: tuple[Server, Path]) -> None:
    server, _ = changing
    pid = executor(server)
    with Wire(server.host, server.port, timeout_s=20) as wire, Wire(server.host, server.port, timeout_s=20) as other:
        os.kill(pid, signal.SIGSTOP)
        assert wire.send(infer("plain", "x", "INT64", [1, 2], [1, 2])).answer().status == 200
        assert other.send(infer("endless", "x", "INT64", [1, 1], [3])).answer().status == 200
    # It may answer, once it is told to end, before it does.
    server.wait_replaced("executor", pid)
    stuck = {"role": "executor", "cause": "stuck"}
    wait_until(lambda: metric(server, "headrace_worker_restarts_total", **stuck) == 1, "one that stood still")


def test_the_memory_of_one_process_is_told_once(models: Path) -> None:
    with running(models, *SHARED) as server:
        text = server.get("/metrics", port=server.metrics_port).body.decode()
        assert text.count('process_resident_memory_bytes{role="executor"') == 1
        stats = server.get("/v2/models/stats").json()["model_stats"]
        assert [entry["memory_usage"] for entry in stats] == [[], []]
        assert "one executor for all models on cpu: busy, plain" in server.output()


def test_each_model_has_its_own_executor_on_the_cpu(tmp_path: Path) -> None:
    root = write_repository(tmp_path / "models", {"a": identity("FP32", (-1, 2)), "b": identity("FP32", (-1, 2))})
    with running(root, "--workers", "1", "--executors", "auto", "--device", "cpu") as server:
        assert len(server.pids("executor")) == 2
