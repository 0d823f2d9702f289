"""server/protocol/messages.py: the descriptor set is that of protos/, and names find their messages, RPCs and files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2

from server.protocol import messages
from tools import protos

ROOT = Path(__file__).resolve().parents[2]


def test_the_descriptor_set_is_that_of_the_sources(tmp_path: Path) -> None:
    protos.compile_to(tmp_path / "set")
    assert (tmp_path / "set").read_bytes() == messages.DESCRIPTORS.read_bytes(), "run `make protos`"


def test_protobuf_is_loaded_by_the_first_use() -> None:
    code = (
        "import sys; from server.protocol import messages; assert 'google.protobuf' not in sys.modules; "
        "messages.services(); print('google.protobuf' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"


def test_services() -> None:
    assert messages.services() == (
        "grpc.health.v1.Health",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
        "inference.GRPCInferenceService",
        "tensorflow.serving.ModelService",
        "tensorflow.serving.PredictionService",
    )


@pytest.mark.parametrize(
    ("path", "request_name", "reply_name", "streams"),
    [
        ("inference.GRPCInferenceService/ModelInfer", "ModelInferRequest", "ModelInferResponse", (False, False)),
        (
            "inference.GRPCInferenceService/ModelStreamInfer",
            "ModelInferRequest",
            "ModelStreamInferResponse",
            (True, True),
        ),
        ("grpc.health.v1.Health/Watch", "HealthCheckRequest", "HealthCheckResponse", (False, True)),
        ("tensorflow.serving.PredictionService/Predict", "PredictRequest", "PredictResponse", (False, False)),
    ],
)
def test_methods(path: str, request_name: str, reply_name: str, streams: tuple[bool, bool]) -> None:
    method = messages.method(f"/{path}")
    assert method is not None
    assert method.request.DESCRIPTOR.name == request_name
    assert method.reply.DESCRIPTOR.name == reply_name
    assert (method.client_streaming, method.server_streaming) == streams


@pytest.mark.parametrize(
    "path", ["", "/", "/inference.GRPCInferenceService", "/inference.GRPCInferenceService/X", "/a/b"]
)
def test_no_such_method(path: str) -> None:
    assert messages.method(path) is None


@pytest.mark.parametrize(
    "name",
    [
        "inference.ModelInferRequest",
        "tensorflow.TensorProto",
        "tensorflow.serving.SignatureDefMap",
        "google.protobuf.Any",
    ],
)
def test_message_classes(name: str) -> None:
    made = messages.message_class(name)
    assert made.DESCRIPTOR.full_name == name
    assert made is messages.message_class(name)
    with pytest.raises(KeyError):
        messages.message_class(name + "X")


def names(files: list[bytes]) -> list[str]:
    return [descriptor_pb2.FileDescriptorProto.FromString(file).name for file in files]


@pytest.mark.parametrize(
    "symbol",
    [
        "inference.GRPCInferenceService",
        "inference.GRPCInferenceService.ModelInfer",
        "inference.ModelInferRequest",
        "inference.ModelInferRequest.InferInputTensor",
        "inference.ModelInferRequest.model_name",
    ],
)
def test_files_for_reflection(symbol: str) -> None:
    """The file asked for comes first, its imports behind it."""
    found = names(messages.file_of_symbol(symbol))
    assert found == ["inference/grpc_service.proto", "inference/model_config.proto"]
    assert found == names(messages.file_named("inference/grpc_service.proto"))


def test_what_reflection_does_not_find() -> None:
    for symbol in ("", "inference", "inference.Nothing", "inference.ModelInferRequest.nothing", "a.b.c"):
        with pytest.raises(KeyError):
            messages.file_of_symbol(symbol)
    with pytest.raises(KeyError):
        messages.file_named("nothing.proto")


@pytest.mark.parametrize("file", ["inference/grpc_service.proto", "tensorflow_serving/apis/prediction_service.proto"])
def test_imports_are_complete(file: str) -> None:
    """A client can build its own pool from what reflection sends."""
    files = [descriptor_pb2.FileDescriptorProto.FromString(one) for one in messages.file_named(file)]
    assert {name for one in files for name in one.dependency} <= {one.name for one in files}
    assert len(files) == len({one.name for one in files})
