"""What runs a model: chosen by --device and by its configuration, shown wherever a model is shown, refused by name."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from server.models.live_load import idle, measured, without
from server.models.placement import Put, decide
from tests.support import clients
from tests.support.exposition import parse
from tests.support.onnx_writer import Graph
from tests.support.server import Server, executable, running, running_command

pytestmark = pytest.mark.slow

DIGITS = Path("server/demo/digits/1/model.onnx").resolve()
ROOT = Path(__file__).resolve().parents[2]
OPENVINO = "OpenVINOExecutionProvider"
ANY_PORT = ("--http-port", "0", "--metrics-port", "0")
ROWS = [[float((row * 7 + column) % 17) for column in range(64)] for row in range(9)]


def serve(*arguments: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """`headrace serve` that is expected to end by itself."""
    return subprocess.run(
        [*executable(), "serve", *arguments, *ANY_PORT],
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def probabilities(server: Server, rows: list[list[float]]) -> list[float]:
    value = {"inputs": [{"name": "image", "datatype": "FP32", "shape": [len(rows), 64], "data": rows}]}
    answer = server.post("/v2/models/digits/infer", value)
    assert answer.status == 200, answer.body
    return list(json.loads(answer.body)["outputs"][0]["data"])


def nodes(server: Server, model: str) -> dict[tuple[str, str], float]:
    """(device, provider) -> nodes, of headrace_model_nodes."""
    families = parse(server.get("/metrics", port=server.metrics_port).body)
    found = [(dict(labels), value) for (_, labels), value in families["headrace_model_nodes"].samples.items()]
    return {(of["device"], of["provider"]): value for of, value in found if of["model"] == model}


@pytest.mark.parametrize("device", ["cuda", "cuda:1", "tensorrt", "strict"])
def test_a_device_that_is_not_there_ends_the_server(device: str) -> None:
    done = serve("--device", device)
    assert done.returncode == os.EX_UNAVAILABLE
    assert done.stderr.startswith(f"error: --device {device} cannot be used: "), done.stderr
    assert done.stderr.count(f"--device {device}") == 1, done.stderr
    assert "expected: " in done.stderr and "fix: " in done.stderr and "--device cpu" in done.stderr


def test_each_device_of_a_list_has_to_work() -> None:
    done = serve("--device", "cpu,cuda:1")
    assert done.returncode == os.EX_UNAVAILABLE
    assert done.stderr.startswith("error: --device cuda:1 cannot be used: "), done.stderr
    done = serve("--device", "cpu,strict")
    assert (
        done.returncode == os.EX_USAGE and "or several of the devices between commas, got 'cpu,strict'" in done.stderr
    )


def test_an_unknown_device_is_a_usage_error() -> None:
    done = serve("--device", "gpu")
    assert done.returncode == os.EX_USAGE and "expected auto, strict, fastest, cpu, cuda" in done.stderr


def test_the_cpu_is_shown_as_what_runs_the_model() -> None:
    with running("--workers", "1", "--device", "cpu") as server:
        found = nodes(server, "digits")
        assert list(found) == [("cpu", "CPUExecutionProvider")] and found["cpu", "CPUExecutionProvider"] > 3
        assert json.loads(server.get("/v2/models/digits/config").body)["instance_group"][0]["kind"] == "KIND_CPU"
        server.wait_log('"event":"model_placed"')


def test_explain_says_who_runs_each_node(tmp_path: Path) -> None:
    done = subprocess.run([*executable(), "explain", DIGITS], capture_output=True, text=True, timeout=60, check=True)
    assert "# device: cpu, " in done.stdout
    assert "on CPUExecutionProvider: Gemm x2, " in done.stdout
    broken = tmp_path / "broken.onnx"
    graph = Graph("unknown")
    graph.input("x", "FP32", [-1, 2])
    graph.node("NoSuchOperator", ["x"], ["y"])
    graph.output("y", "FP32", [-1, 2])
    broken.write_bytes(graph.model())
    done = subprocess.run([*executable(), "explain", broken], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == os.EX_UNAVAILABLE and "cannot be loaded: " in done.stderr
    plain = subprocess.run(
        [*executable(), "explain", "--no-load", broken], capture_output=True, text=True, timeout=60, check=True
    )
    assert "# device: auto, " in plain.stdout and "nodes:" not in plain.stdout


def test_fastest_takes_what_it_measured(tmp_path: Path) -> None:
    """Whatever the measurement says here, the model runs there, and a model that names its device is left alone."""
    python = clients.python("openvino")
    for name in ("digits", "own"):
        (tmp_path / "models" / name / "1").mkdir(parents=True)
        (tmp_path / "models" / name / "1" / "model.onnx").write_bytes(DIGITS.read_bytes())
    (tmp_path / "models" / "own" / "config.pbtxt").write_text(
        'optimization { execution_accelerators { cpu_execution_accelerator { name: "openvino" } } }\n'
    )
    command = [python, "-m", "server", "serve", str(tmp_path / "models"), "--device", "fastest", *ANY_PORT]
    with running_command(tmp_path, *command, environment={"PYTHONPATH": str(ROOT)}) as server:
        (line,) = [json.loads(text) for text in server.log().splitlines() if '"device_measured"' in text]
        assert line["model"] == "digits" and set(line["rows_us"]) == {"cpu", "openvino:CPU"}
        cells = {
            device: [(int(rows), int(us * 1000)) for rows, us in times.items()]
            for device, times in line["rows_us"].items()
        }
        action = decide(measured(without(idle(1), "digits", 1), cells, 1, 1))
        assert isinstance(action, Put) and action.devices == (line["device"],)
        (device, _), *_ = nodes(server, "digits")
        assert device == line["device"]
        assert list(nodes(server, "own")) == [("openvino:CPU", OPENVINO)]
        assert len(probabilities(server, ROWS)) == 90


def test_fastest_measures_nothing_where_there_is_only_the_cpu() -> None:
    with running("--device", "fastest") as server:
        assert '"device_measured"' not in server.log()
        assert list(nodes(server, "digits")) == [("cpu", "CPUExecutionProvider")]


def test_openvino_runs_models_and_answers_as_the_cpu_does(tmp_path: Path) -> None:
    """With the ONNX Runtime that has it built in, by the server's word and by a model's own."""
    python = clients.python("openvino")
    repository = tmp_path / "models"
    for name, config in (("digits", ""), ("own", '{ name: "openvino" }')):
        (repository / name / "1").mkdir(parents=True)
        (repository / name / "1" / "model.onnx").write_bytes(DIGITS.read_bytes())
        if config:
            (repository / name / "config.pbtxt").write_text(
                f"optimization {{ execution_accelerators {{ cpu_execution_accelerator {config} }} }}\n"
            )
    environment = {"PYTHONPATH": str(ROOT)}

    def start(device: str) -> list[str]:
        return [python, "-m", "server", "serve", str(repository), "--device", device, *ANY_PORT]

    with running_command(tmp_path, *start("cpu"), environment=environment) as server:
        assert list(nodes(server, "digits")) == [("cpu", "CPUExecutionProvider")]
        assert list(nodes(server, "own")) == [("openvino:CPU", OPENVINO)]
        expected = probabilities(server, ROWS)
    with running_command(tmp_path, *start("openvino"), environment=environment) as server:
        assert list(nodes(server, "digits")) == [("openvino:CPU", OPENVINO)]
        assert probabilities(server, ROWS) == pytest.approx(expected, rel=1e-3, abs=1e-6)
        # Memory is bound once for each batch size and filled again and again.
        for row in range(len(ROWS)):
            assert probabilities(server, [ROWS[row]]) == pytest.approx(
                expected[10 * row : 10 * row + 10], rel=1e-3, abs=1e-6
            )
        assert "openvino:CPU" in server.output()
    explained = subprocess.run(
        [python, "-m", "server", "explain", DIGITS],
        env={**os.environ, **environment, "HEADRACE_DEVICE": "openvino"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert f"nodes: 8 of 8 on {OPENVINO}" in explained.stdout


def test_one_model_on_two_devices(tmp_path: Path) -> None:
    """Both have it, whoever answers gives the same answer, and a new executor has it on both again."""
    python = clients.python("openvino")
    repository = tmp_path / "models"
    for name, config in (("digits", "instance_group { count: 2 }"), ("own", "instance_group { kind: KIND_CPU }")):
        (repository / name / "1").mkdir(parents=True)
        (repository / name / "1" / "model.onnx").write_bytes(DIGITS.read_bytes())
        (repository / name / "config.pbtxt").write_text(config)
    command = [python, "-m", "server", "serve", str(repository), "--device", "openvino,cpu", *ANY_PORT]
    with running_command(tmp_path, *command, environment={"PYTHONPATH": str(ROOT)}) as server:
        both = {("cpu", "CPUExecutionProvider"), ("openvino:CPU", OPENVINO)}
        assert set(nodes(server, "digits")) == both
        assert list(nodes(server, "own")) == [("cpu", "CPUExecutionProvider")]
        groups = json.loads(server.get("/v2/models/digits/config").body)["instance_group"]
        assert [(group["name"], group["kind"], group["count"]) for group in groups] == [
            ("digits_0", "KIND_CPU", 2),
            ("digits_1", "KIND_CPU", 2),
        ]
        families = parse(server.get("/metrics", port=server.metrics_port).body)
        counts = {
            dict(labels)["device"]: value
            for (_, labels), value in families["headrace_model_device_instances"].samples.items()
            if dict(labels)["model"] == "digits"
        }
        assert counts == {"cpu": 2, "openvino:CPU": 2}
        expected = probabilities(server, ROWS)

        def ask(row: int) -> bool:
            here = probabilities(server, [ROWS[row % len(ROWS)]])
            at = 10 * (row % len(ROWS))
            return here == pytest.approx(expected[at : at + 10], rel=1e-3, abs=1e-6)

        def ask_all() -> None:
            with ThreadPoolExecutor(8) as pool:
                assert all(pool.map(ask, range(400)))

        ask_all()
        placed = [json.loads(line) for line in server.log().splitlines() if '"model_placed"' in line]
        (executor,) = {line["pid"] for line in placed if line["model"] == "digits"}
        os.kill(executor, signal.SIGKILL)
        ask_all()
        assert set(nodes(server, "digits")) == both
        assert "cpu, openvino:CPU" in server.output() or "openvino:CPU, cpu" in server.output()
    explained = subprocess.run(
        [python, "-m", "server", "explain", str(repository / "digits")],
        env={**os.environ, "PYTHONPATH": str(ROOT), "HEADRACE_DEVICE": "openvino,cpu"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    found = [line for line in explained.stdout.splitlines() if line.startswith("# device: ")]
    assert [line.partition(",")[0] for line in found] == ["# device: openvino:CPU", "# device: cpu"]


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one processor has no use for a second thread")
def test_openvino_has_the_threads_that_the_model_has(tmp_path: Path) -> None:
    python = clients.python("openvino")
    found = []
    for threads in ("1", "2"):
        (folder := tmp_path / threads).mkdir()
        command = [python, "-m", "server", "serve", str(DIGITS), "--device", "openvino", *ANY_PORT]
        with running_command(
            folder, *command, "--intra-op-threads", threads, environment={"PYTHONPATH": str(ROOT)}
        ) as server:
            (executor,) = server.pids("executor")
            found.append(len(os.listdir(f"/proc/{executor}/task")))
    assert found[1] > found[0]


def test_openvinos_plug_in_serves_on_intels_processors_and_says_so_elsewhere(tmp_path: Path) -> None:
    if "HEADRACE_EXECUTABLE" in os.environ:
        pytest.skip("about the plug-in in an environment: the executable has none")
    folder = clients.package_file("openvinoplugin", "onnxruntime_ep_openvino/__init__.py").parents[1]
    environment = {"PYTHONPATH": f"{ROOT}:{folder}"}
    if "GenuineIntel" in Path("/proc/cpuinfo").read_text():
        command = [sys.executable, "-m", "server", "serve", str(DIGITS), "--device", "openvino", *ANY_PORT]
        with running_command(tmp_path, *command, environment=environment) as server:
            assert ("openvino:CPU", OPENVINO) in nodes(server, "model")
    else:
        done = serve("--device", "openvino", environment=environment)
        assert done.returncode == os.EX_UNAVAILABLE
        assert "found: none, it offers Intel's devices only" in done.stderr
