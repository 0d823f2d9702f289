"""Whether a model fits into the memory that there is."""

from __future__ import annotations

from pathlib import Path

from server.config import ServeConfig
from server.models import repository
from server.models.lane_settings import settings_of
from server.models.memory_policy import PROCESS_BYTES, expected_bytes, shortage
from tests.support.onnx_writer import Graph, identity

GIB = 1 << 30


def expected(tmp_path: Path, content: bytes) -> int:
    (tmp_path / "m").mkdir(exist_ok=True)
    (tmp_path / "m" / "model.onnx").write_bytes(content)
    (found,) = repository.scan(tmp_path / "m")
    return expected_bytes(found, settings_of(found, ServeConfig()))


def test_what_a_model_needs(tmp_path: Path) -> None:
    small = expected(tmp_path, identity())
    assert PROCESS_BYTES < small < PROCESS_BYTES + (1 << 20)
    graph = Graph("large")
    graph.input("x", "FP32", [-1, 4])
    graph.constant("weights", "UINT8", [2 << 20], bytes(2 << 20))
    graph.node("Identity", ["x"], ["y"])
    graph.output("y", "FP32", [-1, 4])
    assert expected(tmp_path, graph.model()) > small + (2 << 20)


def test_one_that_fits_and_one_that_does_not() -> None:
    assert shortage(GIB, None, 0) == ""
    assert shortage(GIB, GIB, 0) == ""
    assert shortage(3 * GIB, 2 * GIB, 0).startswith(
        "it needs about 3072 MiB of memory beside what runs, 2048 MiB are available: unload a model"
    )
    assert "1024 of them for models that load" in shortage(2 * GIB, 2 * GIB, GIB)
