"""What users of other servers complain about, as far as models, batches and processes are concerned: a test for each.

The numbers are those of the threads in the trackers of triton-inference-server (server), its onnxruntime_backend, and
tensorflow/serving.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.faults import metric, open_descriptors, private_bytes, reset, stopped, thread_states, wait_until
from tests.support.hostile_models import endless
from tests.support.onnx_writer import add_sub, batch_probe, identity, mlp, write_repository
from tests.support.server import Server, running
from tests.support.wire import Wire, infer

pytestmark = pytest.mark.slow

FOR_EVER = 10**12
EXPLICIT = ("--model-control-mode", "explicit", "--load-model")


def echo(number: float) -> bytes:
    return infer("echo", "x", "FP32", [1, 4], [number] * 4)


def never_ready(root: Path, name: str) -> None:
    """A model whose check before serving does not end: what loads for minutes elsewhere."""
    folder = write_repository(root, {name: endless()}) / name / "golden"
    folder.mkdir()
    tensor = {"datatype": "INT64", "shape": [1, 1], "data": [FOR_EVER]}
    (folder / "a.request.json").write_text(json.dumps({"inputs": [{"name": "x", **tensor}]}))
    (folder / "a.response.json").write_text(json.dumps({"outputs": [{"name": "y", **tensor}]}))


def change(server: Server, name: str, call: str) -> int:
    return server.request("POST", f"/v2/repository/models/{name}/{call}", b"{}", timeout_s=30).status


@pytest.fixture
def loading(tmp_path: Path) -> Iterator[Server]:
    """`slow` is loading, and will be as long as the test lasts; `echo` serves, `other` is there."""
    write_repository(tmp_path, {"echo": identity(), "other": identity()})
    never_ready(tmp_path, "slow")
    with running(tmp_path, "--workers", "1", *EXPLICIT, "echo") as server, ThreadPoolExecutor() as pool:
        asking = pool.submit(server.request, "POST", "/v2/repository/models/slow/load", b"{}", timeout_s=60)
        wait_until(lambda: "model_loading" in server.log(), "loading")
        yield server
        assert change(server, "slow", "unload") == 200
        # Who had asked for the load hears that it came to nothing.
        answer = asking.result(20)
        assert (answer.status, "it was unloaded meanwhile" in answer.json()["error"]) == (400, True)


def test_a_model_that_loads_for_minutes_stalls_neither_requests_nor_control(loading: Server) -> None:
    """server#8958, #8117, #6443; tensorflow/serving#1866, #910, #385: one front end, one loading thread, all wait."""
    with Wire(loading.host, loading.port) as wire:
        for number in range(200):
            answer = wire.send(echo(number)).answer()
            assert (answer.status, answer.json()["outputs"][0]["data"]) == (200, [number] * 4)
        # Another model comes, goes and comes again meanwhile.
        for call in ("load", "unload", "load"):
            assert change(loading, "other", call) == 200
        assert wire.send(infer("other", "x", "FP32", [1, 4], [1] * 4)).answer().status == 200
    rows = {row["name"]: row["state"] for row in loading.post("/v2/repository/index", {}).json()}
    assert rows == {"echo": "READY", "other": "READY", "slow": "LOADING"}


def test_a_model_that_still_warms_up_is_not_ready_and_says_so(loading: Server) -> None:
    """server#7776; tensorflow/serving#385, #733: readiness before the first, slow calls."""
    assert loading.get("/v2/models/slow/ready").status == 503
    answer = loading.post("/v2/models/slow/infer", {"inputs": []})
    assert (answer.status, "LOADING" in answer.json()["error"]) == (503, True)
    assert answer.headers["retry-after"] == "1"
    # A model that came later makes the server no less ready.
    assert loading.get("/v2/health/ready").status == 200


def test_unloading_and_failing_to_load_give_everything_back(tmp_path: Path) -> None:
    """onnxruntime_backend#198, #268; server#5841, #6836; tensorflow/serving#1215: arenas that never shrink."""
    write_repository(tmp_path, {"echo": identity(), "large": mlp(64, 4000, 10)})
    write_repository(tmp_path, {"bad": identity().replace(b"Identity", b"Identitx")})
    with running(tmp_path, "--workers", "1", *EXPLICIT, "echo") as server:

        def cycle(count: int) -> None:
            for _ in range(count):
                assert change(server, "large", "load") == 200
                assert change(server, "large", "unload") == 200
                assert change(server, "bad", "load") == 400
                assert change(server, "bad", "unload") == 200

        def holdings() -> tuple[int, dict[str, list[int]]]:
            wait_until(lambda: len(server.pids("executor")) == 1, "the executor of echo alone")
            pids = server.pids("supervisor") + server.pids("worker")
            return sum(map(private_bytes, pids)), open_descriptors(server)

        cycle(4)
        bytes_before, descriptors_before = holdings()
        cycle(8)
        bytes_after, descriptors_after = holdings()
        assert descriptors_after == descriptors_before
        assert bytes_after < bytes_before + (2 << 20)


def test_requests_of_clients_that_left_do_not_run(tmp_path: Path) -> None:
    """server#7077, #6920, #7512, #4618: cancelled and timed-out work still runs."""
    write_repository(tmp_path, {"echo": identity()})
    with running(tmp_path, "--workers", "1") as server, ExitStack() as stack:
        clients = [stack.enter_context(Wire(server.host, server.port)) for _ in range(20)]
        with stopped(server.pids("executor")[0]):
            for number, wire in enumerate(clients):
                wire.send(echo(number))
            wait_until(lambda: metric(server, "headrace_queue_depth", model="echo") == 20, "all waiting")
            for wire in clients[:15]:
                reset(wire.socket)
            wait_until(lambda: metric(server, "headrace_queue_depth", model="echo") == 5, "those who left are gone")
        for number, wire in enumerate(clients[15:], start=15):
            assert wire.answer().json()["outputs"][0]["data"] == [number] * 4
        assert metric(server, "headrace_inferences_total", model="echo") == 5


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        # Over the batch dimension with its name, without it, and where there is none.
        ('max_batch_size: 8\ninput { name: "INPUT0" data_type: TYPE_FP32 dims: [ -1, 16 ] }', "expected [16]"),
        ('max_batch_size: 0\ninput { name: "INPUT0" data_type: TYPE_FP32 dims: [ 16 ] }', "expected [-1, 16]"),
        ('max_batch_size: 8\ninput { name: "INPUT0" data_type: TYPE_FP32 dims: [ 4 ] }', "expected [16]"),
    ],
)
def test_dims_that_do_not_fit_say_which_would(config: str, expected: str, tmp_path: Path) -> None:
    """server#1889, #7462, #1338, #4065; onnxruntime_backend#165: `expects 4 dims, specifies 4 dims`."""
    write_repository(tmp_path, {"pair": add_sub(), "echo": identity()})
    (tmp_path / "pair" / "config.pbtxt").write_text(config)
    with running(tmp_path, "--workers", "1") as server:
        rows = {row["name"]: row for row in server.post("/v2/repository/index", {}).json()}
        reason = rows["pair"]["reason"]
        assert rows["pair"]["state"] == "UNAVAILABLE"
        assert reason.startswith("config.pbtxt line 2: input[0].dims: ")
        assert expected in reason
        # And without a configuration there is nothing to get wrong.
        assert server.get("/v2/models/echo/config").json()["input"][0]["dims"] == [4]


def test_no_batch_is_larger_than_asked_for_and_each_is_counted(tmp_path: Path) -> None:
    """server#8141, #3116, #3624, #7271: batches of max(preferred) + 1, small odd batches; sizes nobody can see."""
    write_repository(tmp_path, {"probe": batch_probe()})
    (tmp_path / "probe" / "config.pbtxt").write_text(
        "max_batch_size: 4\ndynamic_batching { preferred_batch_size: [ 4 ] max_queue_delay_microseconds: 1000 }\n"
    )
    with running(tmp_path, "--workers", "2") as server, ExitStack() as stack:
        clients = [stack.enter_context(Wire(server.host, server.port)) for _ in range(40)]
        with stopped(server.pids("executor")[0]):
            for wire in clients:
                wire.send(infer("probe", "x", "FP32", [1, 1], [1]))
            wait_until(lambda: metric(server, "headrace_queue_depth", model="probe") == 40, "all waiting")
        sizes = [wire.answer().json()["outputs"][0]["data"][0] for wire in clients]
        assert max(sizes) <= 4
        # What waited ran in full batches.
        assert sizes.count(4) >= 32
        counted = server.get("/v2/models/probe/stats").json()["model_stats"][0]["batch_stats"]
        seen = {size: sizes.count(size) // size for size in set(sizes)}
        assert {row["batch_size"]: row["compute_infer"]["count"] for row in counted} == seen


def test_an_executor_has_the_threads_of_its_cores_and_no_more(tmp_path: Path) -> None:
    """server#6932, #5077, #6325; onnxruntime_backend#245; onnxruntime#8313: a pool as large as the host."""
    write_repository(tmp_path, {"echo": identity()})
    usable = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(usable)})
    try:
        with running(tmp_path) as server:
            # The main thread and the instance: with one core there is nobody to share a batch with.
            (executor,) = server.pids("executor")
            assert len(thread_states(executor)) == 2
            assert len(server.pids("worker")) == 1
            assert "affinity" not in server.log()
            with Wire(server.host, server.port) as wire:
                assert wire.send(echo(1)).answer().status == 200
    finally:
        os.sched_setaffinity(0, usable)
