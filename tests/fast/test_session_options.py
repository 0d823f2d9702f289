"""What server/executor/onnx_backend.py tells ONNX Runtime about a model that has a configuration."""

from __future__ import annotations

from pathlib import Path

import onnxruntime as ort
import pytest

from server.executor import onnx_backend
from server.executor.backend import LoadError
from server.executor.onnx_backend import OnnxBackend
from server.models.model_config import DEFAULT_SESSION, SessionSettings
from server.models.providers import Provider
from tests.support import onnx_writer


def options(settings: SessionSettings) -> ort.SessionOptions:
    return onnx_backend._session_options(settings)


def test_defaults() -> None:
    found, plain = options(DEFAULT_SESSION), ort.SessionOptions()
    assert (found.execution_mode, found.inter_op_num_threads) == (ort.ExecutionMode.ORT_SEQUENTIAL, 1)
    for name in ("enable_cpu_mem_arena", "enable_mem_pattern", "graph_optimization_level"):
        assert getattr(found, name) == getattr(plain, name)


def test_each_setting() -> None:
    found = options(
        SessionSettings(
            is_parallel=True,
            inter_op_threads=3,
            mem_arena=False,
            mem_pattern=False,
            entries=(("session.use_device_allocator_for_initializers", "1"),),
        )
    )
    assert (found.execution_mode, found.inter_op_num_threads) == (ort.ExecutionMode.ORT_PARALLEL, 3)
    assert (found.enable_cpu_mem_arena, found.enable_mem_pattern) == (False, False)
    assert found.get_session_config_entry("session.use_device_allocator_for_initializers") == "1"


@pytest.mark.parametrize(
    ("level", "name"),
    [(-1, "ORT_ENABLE_BASIC"), (0, "ORT_ENABLE_ALL"), (1, "ORT_ENABLE_EXTENDED"), (2, "ORT_DISABLE_ALL")],
)
def test_graph_level(level: int, name: str) -> None:
    found = options(SessionSettings(graph_level=level))
    assert found.graph_optimization_level == getattr(ort.GraphOptimizationLevel, name)


def test_a_model_loads_with_all_of_it(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(onnx_writer.identity())
    settings = SessionSettings(is_parallel=True, inter_op_threads=2, mem_arena=False, graph_level=2)
    OnnxBackend(tmp_path / "model.onnx", intra_op_threads=1, settings=settings)
    with pytest.raises(LoadError, match="expected: OpenVINOExecutionProvider for openvino:CPU; found: ONNX Runtime "):
        OnnxBackend(
            tmp_path / "model.onnx",
            intra_op_threads=1,
            settings=SessionSettings(providers=(Provider("OpenVINOExecutionProvider"),)),
        )
