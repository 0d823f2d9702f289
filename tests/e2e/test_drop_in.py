"""headrace in place of tritonserver and of tensorflow_model_server: their command lines, their ports, their answers."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from server.demo import files
from tests.support.server import Server, executable, running_command

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
DEMO = next(Path(files.MODEL).rglob("model.onnx"))


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def put(folder: Path) -> Path:
    folder.mkdir(parents=True)
    shutil.copy(DEMO, folder / "model.onnx")
    return folder.parent


def running(tmp_path: Path, *command: str) -> contextlib.AbstractContextManager[Server]:
    folder = tmp_path / "output"
    folder.mkdir()
    return running_command(folder, *command)


def called(tmp_path: Path, name: str) -> list[str]:
    """The executable under another name."""
    link = tmp_path / name
    link.symlink_to(executable()[0])
    return [str(link)]


def grpc_is_served(target: str) -> None:
    command = [sys.executable, "-m", "tests.support.grpc_driver", target, "0.1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0 and '"failed": []' in done.stdout, done.stderr


def predict(server: Server, name: str, port: int) -> Any:
    body = b'{"instances": [[' + b",".join([b"1.0"] * 64) + b"]]}"
    answer = server.request("POST", f"/v1/models/{name}:predict", body, port=port)
    assert answer.status == 200
    return answer.json()["predictions"]


@pytest.mark.parametrize("by_name", [True, False])
def test_tritonserver(tmp_path: Path, by_name: bool) -> None:
    put(tmp_path / "models" / "digits" / "3")
    http, grpc, metrics = free_ports(3)
    front = called(tmp_path, "tritonserver") if by_name else [*executable(), "serve", "--as", "tritonserver"]
    with running(
        tmp_path,
        *front,
        f"--model-repository={tmp_path / 'models'}",
        f"--http-port={http}",
        "--grpc-port",
        str(grpc),
        f"-metrics-port={metrics}",
        "--allow-grpc=true",
        "--log-format=ISO8601",
        "--pinned-memory-pool-byte-size=1000",
    ) as server:
        assert (server.port, server.metrics_port) == (http, metrics)
        assert server.get("/v2").json()["name"] == "triton"
        assert server.get("/v2/models/digits", port=grpc).json()["versions"] == ["3"]
        grpc_is_served(f"127.0.0.1:{grpc}")
        body = {"inputs": [{"name": "image", "shape": [1, 64], "datatype": "FP32", "data": [1.0] * 64}]}
        assert server.post("/v2/models/digits/versions/3/infer", body).json()["model_version"] == "3"
        assert server.get("/metrics", port=metrics).status == 200
        first = server.log().splitlines()[0]
        assert first == "tritonserver: --pinned-memory-pool-byte-size has no effect: models run on the processor"


def test_tensorflow_model_server(tmp_path: Path) -> None:
    base = put(tmp_path / "export" / "123")
    grpc, rest = free_ports(2)
    path = tmp_path / "socket"
    with running(
        tmp_path,
        *called(tmp_path, "tensorflow_model_server"),
        f"--port={grpc}",
        f"--rest_api_port={rest}",
        "--model_name=mnist",
        f"--model_base_path={base}",
        f"--grpc_socket_path={path}",
        "--rest_api_timeout_in_ms=60000",
        "--rest_api_enable_cors_support=true",
    ) as server:
        assert server.port == rest
        from_a_page = server.request("GET", "/v1/models/mnist", headers={"Origin": "https://example.org"})
        assert from_a_page.headers["access-control-allow-origin"] == "*"
        status = server.get("/v1/models/mnist").json()
        assert list(status) == ["model_version_status"] and status["model_version_status"][0]["version"] == "123"
        (answer,) = predict(server, "mnist", rest)
        assert set(answer) == {"probabilities", "label"}
        assert predict(server, "mnist/versions/123", grpc) == [answer]
        grpc_is_served(f"127.0.0.1:{grpc}")
        grpc_is_served(f"unix:{path}")
        assert "tensorflow_model_server: --rest_api_timeout_in_ms has no effect: " in server.log()
    assert not path.exists()


def test_tensorflow_model_server_with_files(tmp_path: Path) -> None:
    first, second = put(tmp_path / "a" / "1"), put(tmp_path / "b" / "1")
    put(second / "2")
    models = tmp_path / "models.config"
    models.write_text(
        f"""model_config_list {{
          config {{ name: "one" base_path: "{first}" model_platform: "tensorflow" }}
          config {{ name: "two" base_path: "{second}" model_version_policy {{ specific {{ versions: 1 }} }} }}
        }}""",
        encoding="utf-8",
    )
    batching = tmp_path / "batching.config"
    batching.write_text("max_batch_size { value: 16 } batch_timeout_micros { value: 250 }", encoding="utf-8")
    (grpc,) = free_ports(1)
    with running(
        tmp_path,
        *executable(),
        "serve",
        "--as=tensorflow_model_server",
        f"--port={grpc}",
        f"--model_config_file={models}",
        "--enable_batching",
        f"--batching_parameters_file={batching}",
        "--file_system_poll_wait_seconds=0",
    ) as server:
        # REST is off; the one port there is speaks it all the same.
        assert server.port == grpc
        assert server.output().count("auto ≤16, 250 µs") == 2
        for name in ("one", "two"):
            assert server.get(f"/v1/models/{name}").json()["model_version_status"][0]["version"] == "1"
            assert len(predict(server, name, grpc)) == 1


@pytest.mark.parametrize(
    ("name", "arguments", "code", "said"),
    [
        ("tritonserver", ["--model-repositry=/m"], 64, "did you mean --model-repository?"),
        (
            "tritonserver",
            ["--model-store=/m", "--grpc-use-ssl=true"],
            64,
            "--grpc-use-ssl is refused: headrace speaks no",
        ),
        ("tritonserver", ["--model-store=/nothing/here"], 66, "no 'here' in it"),
        ("tensorflow_model_server", ["--port=8500"], 64, "expected --model_base_path PATH"),
    ],
)
def test_command_lines_that_cannot_be(tmp_path: Path, name: str, arguments: list[str], code: int, said: str) -> None:
    command = [*called(tmp_path, name), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    assert done.returncode == code
    assert said in done.stderr
