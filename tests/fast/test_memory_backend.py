"""What ONNX Runtime itself says and does when the memory of its process ends, by a real limit."""

from __future__ import annotations

import array
import ctypes
from collections.abc import Callable
from pathlib import Path

import pytest

from server._fast.layout import Arena
from server.executor import onnx_backend
from server.executor.backend import DeviceLostError, ModelError, OutOfMemoryError, TensorBuffer
from server.executor.onnx_backend import OnnxBackend, client_text, run_error
from server.executor.providers import Choice
from server.models.model_config import SessionSettings
from server.models.providers import Provider, of_device
from tests.support.memory import MIB, at_most, data_bytes, wide
from tests.support.onnx_writer import upper_case

FP32, BYTES = 11, 13


@pytest.fixture
def loaded(tmp_path: Path) -> Callable[..., OnnxBackend]:
    def load(content: bytes, *, arena: bool = True) -> OnnxBackend:
        path = tmp_path / "model.onnx"
        path.write_bytes(content)
        return OnnxBackend(path, intra_op_threads=1, settings=SessionSettings(mem_arena=arena), device="cpu")

    return load


def rows(backend: OnnxBackend, count: int, *, is_bound: bool) -> float:
    """Runs so many rows of a half; the last answer."""
    given = array.array("f", [0.5] * count)
    x = TensorBuffer("x", FP32, (count, 1), given.buffer_info()[0])
    if not is_bound:
        (produced,) = backend.run([x], ["y"])
        assert produced.dims == (count, 1)
        return float((ctypes.c_float * count).from_address(produced.address)[count - 1])
    made = array.array("f", [0.0] * count)
    backend.prepare([x], [TensorBuffer("y", FP32, (count, 1), made.buffer_info()[0])])()
    return made[-1]


@pytest.mark.parametrize("is_bound", [True, False])
@pytest.mark.parametrize("arena", [True, False])
def test_a_run_without_memory_is_told_apart_and_the_next_one_is_answered(
    loaded: Callable[..., OnnxBackend], arena: bool, is_bound: bool
) -> None:
    backend = loaded(wide(1 << 20), arena=arena)
    with at_most(100 * MIB):
        with pytest.raises(OutOfMemoryError, match=r"Failed to allocate memory|bad_alloc"):
            rows(backend, 100, is_bound=is_bound)
        assert rows(backend, 4, is_bound=is_bound) == pytest.approx(0.4621, abs=1e-4)


@pytest.mark.parametrize("devices", [(), of_device("cuda:1")])
def test_what_the_arena_keeps_is_given_back_before_a_run_fails(
    loaded: Callable[..., OnnxBackend], devices: tuple[Provider, ...]
) -> None:
    """Blocks of earlier runs serve later ones of their size; for others they are in the way. Also where the build has
    no arena of the device that runs it.
    """
    backend = loaded(wide(1 << 20))
    backend._giving_back = onnx_backend._giving_back(Choice(wanted=devices), SessionSettings())
    assert len(backend._giving_back) == 1 + len(devices)
    with at_most(600 * MIB):
        for count in (4, 9, 20, 33):
            rows(backend, count, is_bound=True)
        kept_bytes = data_bytes()
        with pytest.raises(OutOfMemoryError):
            rows(backend, 1000, is_bound=True)
        assert kept_bytes - data_bytes() > 100 * MIB
        rows(backend, 33, is_bound=True)


def test_strings_that_find_no_memory(loaded: Callable[..., OnnxBackend]) -> None:
    backend = loaded(upper_case())
    count = 4 << 20
    texts = bytes(4 * count)
    address = ctypes.addressof(ctypes.c_char.from_buffer(held := bytearray(texts)))
    with at_most(64 * MIB), pytest.raises(OutOfMemoryError):
        backend.run([TensorBuffer("text", BYTES, (count,), address)], ["upper"])
    assert len(held) == 4 * count


def test_an_error_of_the_device_is_none_of_the_model() -> None:
    text = (
        "[ONNXRuntimeError] : 1 : FAIL : CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; "
        "hostname=node-17 ; file=/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_call.cc ; line=63 ; "
        "expr=cudaStreamSynchronize(stream); "
    )
    lost = run_error(RuntimeError(text))
    assert isinstance(lost, DeviceLostError) and not isinstance(lost, ModelError)
    assert client_text(RuntimeError(text)) == "CUDA failure 700: an illegal memory access was encountered;"


def test_a_long_error_keeps_its_end() -> None:
    """Which says what would be right."""
    text = f"ONNX Runtime only guarantees {'support ' * 60}for domain ai.onnx is till opset 28."
    cut = client_text(RuntimeError(text))
    assert cut.startswith("ONNX Runtime only guarantees support") and cut.endswith("is till opset 28.")
    assert " … " in cut and len(cut.encode()) <= 240
    assert client_text(RuntimeError(text[:200])) == text[:200].strip()


def test_a_reason_that_is_too_long_for_the_arena_ends_with_a_whole_character() -> None:
    tensor = (11, 4, [-1, 2])
    arena = Arena.create(
        inputs=[tensor],
        outputs=[tensor],
        rows_mode=True,
        row_capacity=1,
        slab_count=2,
        owner_count=1,
        instance_count=1,
    )
    for reason in ("x" * 239 + "…", "x" * 300, "ü" * 200, "short"):
        arena.set_state(3, reason)
        kept = arena.model_reason
        assert kept == reason or (kept.endswith("…") and reason.startswith(kept[:-1]) and len(kept.encode()) > 230)
