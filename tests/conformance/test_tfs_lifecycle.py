"""TensorFlow Serving's model configuration: several models, version policies, labels, and the reload call."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest

from server.protocol import messages
from tests.support.onnx_writer import Graph
from tests.support.server import Server, executable, running_command

RELOAD = "/tensorflow.serving.ModelService/HandleReloadConfigRequest"
PREDICT = "/tensorflow.serving.PredictionService/Predict"


def adds(version: int) -> bytes:
    """y = x + version."""
    graph = Graph("adds")
    graph.input("x", "FP32", [-1, 1])
    graph.constant("version", "FP32", [1], struct.pack("<f", version))
    graph.node("Add", ["x", "version"], ["y"])
    graph.output("y", "FP32", [-1, 1])
    return graph.model()


def config_of(base: Path, *, labels: dict[str, int], versions: list[int]) -> Any:
    config = messages.message_class("tensorflow.serving.ModelServerConfig")()
    model = config.model_config_list.config.add(name="m", base_path=str(base / "m"), model_platform="tensorflow")
    model.model_version_policy.specific.versions.extend(versions)
    for label, version in labels.items():
        model.version_labels[label] = version
    return config


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("base")
    for name in ("m", "n"):
        for version in (1, 2, 3):
            folder = base / name / str(version)
            folder.mkdir(parents=True)
            (folder / "model.onnx").write_bytes(adds(version))
    return base


@pytest.fixture(scope="module")
def server(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    file = tmp_path_factory.mktemp("config") / "models.config"
    file.write_text(str(config_of(base, labels={"stable": 1, "canary": 2}, versions=[1, 2])))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [*executable(), "serve", "--as", "tensorflow_model_server", f"--model_config_file={file}"]
    with running_command(
        file.parent, *command, f"--port={port}", f"--rest_api_port={port}", environment={"HEADRACE_WORKERS": "2"}
    ) as server:
        yield server


def predict(server: Server, path: str) -> tuple[int, Any]:
    answer = server.post(f"/v1/models/{path}:predict", {"instances": [[10.0]]})
    return answer.status, json.loads(answer.body)


def reload(server: Server, config: Any) -> Any:
    request = messages.message_class("tensorflow.serving.ReloadConfigRequest")(config=config)
    reply = messages.message_class("tensorflow.serving.ReloadConfigResponse")
    with grpc.insecure_channel(f"{server.host}:{server.port}") as channel:
        return channel.unary_unary(RELOAD, lambda message: message.SerializeToString(), reply.FromString)(
            request, timeout=20
        )


def test_labels_and_versions_choose_the_model(server: Server) -> None:
    assert predict(server, "m") == (200, {"predictions": [[12.0]]})
    assert predict(server, "m/versions/1") == (200, {"predictions": [[11.0]]})
    assert predict(server, "m/labels/stable") == (200, {"predictions": [[11.0]]})
    assert predict(server, "M/labels/canary")[0] == 400
    assert predict(server, "m/labels/can%61ry") == (200, {"predictions": [[12.0]]})
    assert predict(server, "m/versions/3")[0] == 404
    status, answer = predict(server, "m/labels/unheard")
    assert (status, "unheard" in answer["error"]) == (400, True)
    status = server.get("/v1/models/m/labels/canary")
    assert json.loads(status.body)["model_version_status"][0]["version"] == "2"


def test_labels_over_grpc(server: Server) -> None:
    request_class = messages.message_class("tensorflow.serving.PredictRequest")
    reply = messages.message_class("tensorflow.serving.PredictResponse")
    with grpc.insecure_channel(f"{server.host}:{server.port}") as channel:
        call = channel.unary_unary(PREDICT, lambda message: message.SerializeToString(), reply.FromString)
        for label, value in (("stable", 11.0), ("canary", 12.0)):
            request = request_class()
            request.model_spec.name = "m"
            request.model_spec.version_label = label
            request.inputs["x"].dtype = 1
            request.inputs["x"].tensor_shape.dim.add(size=1)
            request.inputs["x"].tensor_shape.dim.add(size=1)
            request.inputs["x"].float_val.append(10.0)
            assert list(call(request, timeout=20).outputs["y"].float_val) == [value]
        request.model_spec.version_label = "unheard"
        with pytest.raises(grpc.RpcError) as refused:
            call(request, timeout=20)
        assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_reload_replaces_the_models(server: Server, base: Path) -> None:
    config = config_of(base, labels={"stable": 2, "canary": 3}, versions=[2, 3])
    config.model_config_list.config.add(name="other", base_path=str(base / "n"), model_platform="tensorflow")
    assert reload(server, config).status.error_code == 0
    assert predict(server, "m") == (200, {"predictions": [[13.0]]})
    assert predict(server, "m/labels/stable") == (200, {"predictions": [[12.0]]})
    assert predict(server, "m/versions/1")[0] == 404
    assert predict(server, "other") == (200, {"predictions": [[13.0]]})


def test_a_reload_that_cannot_be_leaves_everything(server: Server, base: Path, tmp_path: Path) -> None:
    assert reload(server, config_of(base, labels={"stable": 2}, versions=[2, 3])).status.error_code == 0
    elsewhere = config_of(tmp_path, labels={}, versions=[1])
    with pytest.raises(grpc.RpcError) as refused:
        reload(server, elsewhere)
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "beside those" in refused.value.details()
    with pytest.raises(grpc.RpcError) as refused:
        reload(server, messages.message_class("tensorflow.serving.ModelServerConfig")())
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert predict(server, "m") == (200, {"predictions": [[13.0]]})


def test_a_label_moves_when_its_version_is_ready(server: Server, base: Path) -> None:
    """While it loads, and where it cannot be loaded, the label stands for the version before it, also where another
    version answers requests without a label.
    """
    assert reload(server, config_of(base, labels={"stable": 1}, versions=[1, 2])).status.error_code == 0
    assert predict(server, "m/labels/stable") == (200, {"predictions": [[11.0]]})
    with ThreadPoolExecutor(1) as pool:
        reloading = pool.submit(reload, server, config_of(base, labels={"stable": 3}, versions=[2, 3]))
        while not reloading.done():
            assert predict(server, "m/labels/stable")[0] == 200
        assert reloading.result().status.error_code == 0
    assert predict(server, "m/labels/stable") == (200, {"predictions": [[13.0]]})
    assert predict(server, "m/versions/1")[0] == 404
    (base / "m" / "4").mkdir()
    (base / "m" / "4" / "model.onnx").write_bytes(b"no model")
    assert reload(server, config_of(base, labels={"stable": 4}, versions=[4])).status.error_code == 0
    assert predict(server, "m/labels/stable") == (200, {"predictions": [[13.0]]})
    assert reload(server, config_of(base, labels={}, versions=[3])).status.error_code == 0
    assert predict(server, "m/labels/stable")[0] == 400
