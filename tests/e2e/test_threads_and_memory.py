"""What a server takes of its host: threads within a quota, shared out over models; no model that memory cannot hold."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from server import hostinfo
from tests.support import onnx_writer
from tests.support.cgroup import inside, quota_group
from tests.support.onnx_writer import write_repository
from tests.support.server import Server, executable, running, running_command

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="no /proc")


def threads(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/task"))


def executor_threads(server: Server) -> list[int]:
    return [threads(pid) for pid in server.pids("executor")]


def models(count: int) -> dict[str, bytes]:
    return {f"m{index}": onnx_writer.mlp() for index in range(count)}


def explained(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return next(line for line in done.stdout.splitlines() if line.startswith("# device: "))


def test_a_container_with_one_and_a_half_processors(tmp_path: Path) -> None:
    """One thread computes: with two the kernel would stop all processes of the container in each period."""
    write_repository(tmp_path / "models", models(1))
    command = [*executable(), "explain", str(tmp_path / "models")]
    with quota_group(1.5) as group:
        assert "1 x 1 threads" in explained(inside(group, *command))
        serve = inside(group, *executable(), "serve", str(tmp_path / "models"), "--http-port", "0")
        with running_command(tmp_path, *serve, "--metrics-port", "0") as limited:
            assert limited.post("/v2/models/m0/infer", request()).status == 200
            found = executor_threads(limited)
    # Its main thread, the instance's, and none of a pool.
    assert found == [2]


def test_one_allowed_processor(tmp_path: Path) -> None:
    """As with `docker run --cpuset-cpus`: no more threads than that, and none that is pinned to another processor."""
    write_repository(tmp_path / "models", models(1))
    first = str(min(os.sched_getaffinity(0)))
    command = ["taskset", "-c", first, *executable(), "serve", str(tmp_path / "models"), "--http-port", "0"]
    with running_command(tmp_path, *command, "--metrics-port", "0") as server:
        assert server.post("/v2/models/m0/infer", request()).status == 200
        assert executor_threads(server) == [2]
        for pid in server.pids("executor"):
            for task in os.listdir(f"/proc/{pid}/task"):
                assert os.sched_getaffinity(int(task)) == {int(first)}


def test_threads_are_shared_out_over_models(tmp_path: Path) -> None:
    """Four cores for four models: two threads each in place of four; with --intra-op-threads as many as it says."""
    write_repository(tmp_path / "one", models(1))
    write_repository(tmp_path / "four", models(4))
    options = ("--workers", "1", "--compute-cores", "4")
    with running(tmp_path / "one", *options) as alone:
        assert executor_threads(alone) == [2 + 3]
    with running(tmp_path / "four", *options) as shared:
        assert executor_threads(shared) == [2 + 1] * 4
    with running(tmp_path / "four", "--workers", "1", "--intra-op-threads", "3") as told:
        assert executor_threads(told) == [2 + 2] * 4


def test_nothing_computes_between_requests(tmp_path: Path) -> None:
    """Pools of ONNX Runtime spin after a run unless they are told not to: here nobody has the processors for it."""
    path = tmp_path / "heavy.onnx"
    path.write_bytes(onnx_writer.heavy(layers=2))
    with running(path, "--workers", "1", "--intra-op-threads", "4") as server:
        (executor,) = server.pids("executor")
        spent_ns = []
        for _ in range(20):
            assert server.post("/v2/models/heavy/infer", request(32)).status == 200
            before_ns = run_ns(executor)
            assert server.get("/v2/health/live").status == 200
            spent_ns.append(run_ns(executor) - before_ns)
    assert sum(spent_ns) < 2_000_000, spent_ns


def run_ns(pid: int) -> int:
    """Processor time of all threads: schedstat counts what /proc/PID/stat has in ticks of 10 ms."""
    folder = Path(f"/proc/{pid}/task")
    return sum(int((task / "schedstat").read_text().split()[0]) for task in folder.iterdir())


def request(rows: int = 1) -> dict[str, object]:
    tensor = {"name": "x", "datatype": "FP32", "shape": [rows, 64], "data": [0.5] * 64 * rows}
    return {"inputs": [tensor]}


def with_weights_beside(location: str) -> bytes:
    """An identity and a tensor of one byte whose value is in another file. TensorProto: external_data = 13,
    data_location = 14.
    """
    graph = onnx_writer.Graph("large")
    graph.input("x", "FP32", [-1, 64])
    entry = onnx_writer._bytes(1, "location") + onnx_writer._bytes(2, location)
    tensor = onnx_writer._integer(1, 1) + onnx_writer._integer(2, onnx_writer.ELEMENT_TYPES["UINT8"])
    tensor += onnx_writer._bytes(8, "w") + onnx_writer._bytes(13, entry) + onnx_writer._integer(14, 1)
    graph.initializers += onnx_writer._bytes(5, tensor)
    graph.node("Identity", ["x"], ["y"])
    graph.output("y", "FP32", [-1, 64])
    return graph.model()


def larger_than_memory(folder: Path) -> Path:
    """A repository with such a model; the file that makes it so."""
    memory = hostinfo.memory()
    assert memory is not None
    write_repository(folder, {"large": with_weights_beside("weights.bin")})
    weights = folder / "large" / "1" / "weights.bin"
    with weights.open("wb") as file:
        # A file with a hole takes no room on the disk.
        file.truncate(memory.total_bytes + (1 << 30))
    return weights


def test_nothing_but_a_model_larger_than_memory(tmp_path: Path) -> None:
    larger_than_memory(tmp_path)
    command = [*executable(), "serve", str(tmp_path), "--http-port", "0", "--metrics-port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == os.EX_DATAERR, done.stderr
    assert "none of the 1 models found can be served\n  large 1: it needs " in done.stderr


def test_a_model_larger_than_memory_is_refused_and_the_others_serve(tmp_path: Path) -> None:
    weights = larger_than_memory(tmp_path)
    write_repository(tmp_path, models(1))
    with running(tmp_path, "--workers", "1", "--model-control-mode", "explicit", "--load-model", "*") as server:
        assert server.post("/v2/models/m0/infer", request()).status == 200
        answer = server.post("/v2/repository/models/large/load", {})
        assert answer.status == 400, answer.body
        assert "MiB of memory beside what runs" in answer.body.decode()
        with weights.open("wb") as file:
            file.truncate(1)
        assert server.post("/v2/repository/models/large/load", {}).status == 200
        assert server.post("/v2/models/large/infer", request()).status == 200
