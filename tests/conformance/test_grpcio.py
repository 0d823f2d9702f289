"""grpcio, sync and aio, with its packages for reflection, health and status; its keep-alive and its limits."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import clients, onnx_writer
from tests.support.server import Server, running

pytestmark = pytest.mark.slow
DRIVER = Path(__file__).with_name("grpcio_services_driver.py")
TIMEOUT_S = 60
SERVICES = {
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
    "inference.GRPCInferenceService",
    "tensorflow.serving.ModelService",
    "tensorflow.serving.PredictionService",
}
MODELS = {"bytes": onnx_writer.identity("UINT8", [-1, -1])}


def command(server: Server, scenario: str) -> list[str]:
    return [clients.python("grpcio"), "-W", "error", str(DRIVER), f"{server.host}:{server.port}", scenario]


def run(server: Server, scenario: str) -> Any:
    done = subprocess.run(command(server, scenario), capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def bytes_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = onnx_writer.write_repository(tmp_path_factory.mktemp("bytes"), MODELS)
    with running(root, "--workers", "1", "--max-body-bytes", str(4 << 20)) as server:
        yield server


def test_reflection_describes_what_can_then_be_called(bytes_server: Server) -> None:
    found = run(bytes_server, "reflection")
    assert set(found["methods"]) == SERVICES
    assert {"ModelInfer", "ModelStreamInfer", "ServerLive", "RepositoryIndex"} <= set(
        found["methods"]["inference.GRPCInferenceService"]
    )
    assert {"Predict", "GetModelMetadata"} <= set(found["methods"]["tensorflow.serving.PredictionService"])
    assert (found["fields"]["inputs"], found["fields"]["raw_input_contents"]) == (5, 7)
    assert found["ready"] is True
    assert found["inferred"] == "reflected"
    assert found["state"]["model_version_status"][0]["state"] == "AVAILABLE"


def test_both_versions_of_reflection(bytes_server: Server) -> None:
    found = run(bytes_server, "reflection_versions")
    assert found["v1"] == found["v1alpha"]
    services, file, method, message, symbol, name = found["v1"]
    assert {one["name"] for one in services["listServicesResponse"]["service"]} == SERVICES
    for reply in (file, method, message):
        assert reply["fileDescriptorResponse"]["fileDescriptorProto"], reply
    for reply in (symbol, name):
        assert reply["errorResponse"]["errorCode"] == 5, reply


@pytest.mark.parametrize("scenario", ["health", "health_aio"])
def test_health(bytes_server: Server, scenario: str) -> None:
    serving = dict.fromkeys(("", "bytes", "inference.GRPCInferenceService"), "SERVING")
    found = run(bytes_server, scenario)
    assert found["checks"] == {**serving, "nobody": "NOT_FOUND"}
    assert found["watches"] == {**serving, "nobody": "SERVICE_UNKNOWN"}


def test_keep_alive_pings_during_a_call(bytes_server: Server) -> None:
    found = run(bytes_server, "keepalive")
    assert found == {"watch": "DEADLINE_EXCEEDED", "after": "SERVING", "connections": 1}


def test_message_sizes(bytes_server: Server) -> None:
    found = run(bytes_server, "sizes")
    assert found.pop("large") == [True, True]
    assert len(found) == 3
    for name, (answer, is_alive) in found.items():
        assert answer[0] == "RESOURCE_EXHAUSTED", (name, answer)
        assert is_alive, name


def watched(server: Server, scenario: str, *, unload: bool = False) -> list[list[str]]:
    """[service, status] as the driver's two watches said them, through the end of the server."""
    driver = subprocess.Popen(command(server, scenario), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with driver:
        try:
            assert driver.stdout is not None and driver.stderr is not None
            lines = [json.loads(next(driver.stdout)) for _ in range(2)]
            assert sorted(lines) == [["", "SERVING"], ["bytes", "SERVING"]]
            if unload:
                assert server.post("/v2/repository/models/bytes/unload", {}).status == 200
                lines.append(json.loads(next(driver.stdout)))
            server.process.send_signal(signal.SIGTERM)
            lines += [json.loads(line) for line in driver.stdout]
            assert driver.wait(TIMEOUT_S) == 0, driver.stderr.read()
        finally:
            driver.kill()  # or an error here would wait for it
    return lines


def test_watch_tells_of_an_unloaded_model_and_of_a_drain(tmp_path: Path) -> None:
    root = onnx_writer.write_repository(tmp_path, MODELS)
    # Longer than a second, in which watchers are told.
    how = ("--workers", "1", "--model-control-mode", "explicit", "--load-model", "*", "--drain-delay", "2")
    with running(root, *how) as server:
        lines = watched(server, "watch", unload=True)
        server.wait_stopped()
    assert lines[2] in (["bytes", "NOT_SERVING"], ["bytes", "SERVICE_UNKNOWN"])
    assert [text for name, text in lines if name == ""] == ["SERVING", "NOT_SERVING", "ended CANCELLED"]


def test_a_watch_that_stays_does_not_hold_the_end_up(tmp_path: Path) -> None:
    root = onnx_writer.write_repository(tmp_path, MODELS)
    with running(root, "--workers", "1", "--drain-timeout", "2") as server:
        lines = watched(server, "watch_to_the_end")
        server.wait_stopped()
    assert [text for _, text in lines if text.startswith("ended")] == ["ended UNAVAILABLE"] * 2
