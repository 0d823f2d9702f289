"""server/_fast/string_tensor and ONNX Runtime: any bytes go through a model of strings and come back."""

from __future__ import annotations

import ctypes
from pathlib import Path

import pytest

from server._fast.string_tensor import assign, is_known_layout
from server.executor.backend import LoadError, ModelError, TensorBuffer
from server.executor.onnx_backend import STRINGS_MODEL, OnnxBackend
from server.protocol.datatypes import BY_NAME
from tests.reference import bytes_form
from tests.support import onnx_writer

BYTES = BY_NAME["BYTES"].code


def load(folder: Path, model: bytes) -> OnnxBackend:
    (folder / "model.onnx").write_bytes(model)
    return OnnxBackend(folder / "model.onnx", intra_op_threads=1)


def through(backend: OnnxBackend, elements: list[bytes], dims: tuple[int, ...]) -> tuple[tuple[int, ...], bytes]:
    form = bytes_form.pack(elements)
    memory = ctypes.create_string_buffer(form, len(form) + 1)
    (output,) = backend.run([TensorBuffer("x", BYTES, dims, ctypes.addressof(memory))], ["y"])
    assert output.size_bytes == len(form)
    return output.dims, ctypes.string_at(output.address, output.size_bytes) if output.size_bytes else b""


def test_the_model_inside_is_the_writer_s() -> None:
    assert onnx_writer.string_source() == STRINGS_MODEL


@pytest.mark.parametrize(
    ("elements", "dims"),
    [
        ([b"a", b"", b"\xff\0\xfe"], (3,)),
        ([b"x" * n for n in (14, 15, 16, 17)], (2, 2)),
        ([b"\0" * 100_000, b"\xc3" * 3_000_000], (2, 1, 1)),
        ([], (0,)),
        ([], (2, 0)),
        ([b"one"], ()),
        ([bytes([n % 256]) * (n % 40) for n in range(3000)], (1, 3000)),
    ],
)
def test_identity(tmp_path: Path, elements: list[bytes], dims: tuple[int, ...]) -> None:
    backend = load(tmp_path, onnx_writer.identity("BYTES", [-1] * len(dims)))
    for _ in range(3):
        assert through(backend, elements, dims) == (dims, bytes_form.pack(elements))


def test_a_model_refuses_and_goes_on(tmp_path: Path) -> None:
    backend = load(tmp_path, onnx_writer.identity("BYTES", [-1, 2]))
    with pytest.raises(ModelError):
        through(backend, [b"a"], (1, 1))
    assert through(backend, [b"a", b"b"], (1, 2)) == ((1, 2), bytes_form.pack([b"a", b"b"]))


def test_another_layout_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by a crash: only the words of the string itself are looked at."""
    words = (ctypes.c_uint64 * 4)(0xDEAD, 3, 0x636261, 0)
    assert not is_known_layout(ctypes.addressof(words), b"abc")
    assert not is_known_layout(0, b"abc")
    words[0] = ctypes.addressof(words) + 16
    assert is_known_layout(ctypes.addressof(words), b"abc")
    assert not is_known_layout(ctypes.addressof(words), b"abd")
    assert not is_known_layout(ctypes.addressof(words), b"ab")
    monkeypatch.setattr("server.executor.onnx_backend.STRINGS_TEXT", b"abd")
    with pytest.raises(LoadError, match="it was built with another C\\+\\+ library"):
        load(tmp_path, onnx_writer.identity("BYTES", [-1]))


def test_a_form_that_is_too_long_is_refused() -> None:
    form = ctypes.create_string_buffer(b"\5\0\0\0hello", 9)
    with pytest.raises(ValueError, match="expected 1 elements in at most 8 bytes"):
        assign(0, 1, ctypes.addressof(form), 8)
