"""Trains the demo model on scikit-learn's handwritten digits and writes everything that is committed of it.

    python3 -m venv .venvs/train
    .venvs/train/bin/pip install --group train
    .venvs/train/bin/python tools/train_digits.py

writes  server/demo/digits/1/model.onnx   image FP32 [-1,64] -> probabilities FP32 [-1,10], label INT64 [-1]
        server/demo/example.json          one held-out digit as a V2 request body
        samples/0.png .. 9.png            one held-out digit of each class, 8x8, 8-bit grey
        samples/heldout.json              all held-out digits: {"images": [[64 of 0..16] ...], "labels": [0..9 ...]}

The digits are scans of 8x8 blocks with values 0..16 (E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten
Digits", UCI; in scikit-learn's own package, so nothing is fetched). The graph divides every image by its own
brightest pixel, so any scale works: 0..16 as in the data set, 0..1, or the 0..255 of a PNG. In the PNG files a pixel
is 15 times the data set's value, so that reading one gives exactly the same quotients as the original.
"""

# The training dependencies are in an environment of their own, where types are not checked.
# mypy: disable-error-code="import-not-found,import-untyped"
from __future__ import annotations

import json
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnx import TensorProto, checker, helper, numpy_helper
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

ROOT = Path(__file__).resolve().parents[1]
MODEL = ROOT / "server" / "demo" / "digits" / "1" / "model.onnx"
EXAMPLE = ROOT / "server" / "demo" / "example.json"
SAMPLES = ROOT / "samples"
SEED = 7
HELD_OUT_SHARE = 0.25
HIDDEN = 96
LEAST_ACCURACY = 0.97
MOST_MODEL_BYTES = 100_000
MOST_HELD_OUT_BYTES = 200_000
#: 16 * 15 = 240 fits a pixel; see the module's text.
PNG_FACTOR = 15
# Old enough for every ONNX Runtime that is in use.
OPSET = 17
IR_VERSION = 8


def brightest_is_one(images: Any) -> Any:
    """The graph's own first step, for training."""
    return (images / np.maximum(images.max(axis=1, keepdims=True), 1e-6)).astype(np.float32)


def shifted(images: Any, labels: Any) -> tuple[Any, Any]:
    """The images and each of them moved by one pixel in four directions: a digit drawn off centre is still that
    digit.
    """
    squares = images.reshape(-1, 8, 8)
    moved = [squares]
    for axis, step in ((1, 1), (1, -1), (2, 1), (2, -1)):
        copy = np.roll(squares, step, axis=axis)
        edge = 0 if step == 1 else -1
        if axis == 1:
            copy[:, edge, :] = 0
        else:
            copy[:, :, edge] = 0
        moved.append(copy)
    return np.concatenate(moved).reshape(-1, 64), np.concatenate([labels] * len(moved))


def build(network: MLPClassifier) -> bytes:
    """The trained network as an ONNX model."""
    (first, second), (first_bias, second_bias) = network.coefs_, network.intercepts_
    constants = {
        "least": np.array(1e-6, np.float32),
        "w1": first.astype(np.float32),
        "b1": first_bias.astype(np.float32),
        "w2": second.astype(np.float32),
        "b2": second_bias.astype(np.float32),
    }
    nodes = [
        helper.make_node("ReduceMax", ["image"], ["peak"], axes=[1], keepdims=1),
        helper.make_node("Max", ["peak", "least"], ["divisor"]),
        helper.make_node("Div", ["image", "divisor"], ["scaled"]),
        helper.make_node("Gemm", ["scaled", "w1", "b1"], ["h1"]),
        helper.make_node("Relu", ["h1"], ["h2"]),
        helper.make_node("Gemm", ["h2", "w2", "b2"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
        helper.make_node("ArgMax", ["scores"], ["label"], axis=1, keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 64])],
        [
            helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 10]),
            helper.make_tensor_value_info("label", TensorProto.INT64, ["batch"]),
        ],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION, producer_name="headrace"
    )
    checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def png(image: Any) -> bytes:
    """An 8-bit grey PNG of one 8x8 image with values 0..16."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = (image.reshape(8, 8) * PNG_FACTOR).astype(np.uint8)
    header = struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0)
    scanlines = b"".join(b"\0" + row.tobytes() for row in rows)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(scanlines, 9))
        + chunk(b"IEND", b"")
    )


def main() -> int:
    digits = load_digits()
    train_images, held_images, train_labels, held_labels = train_test_split(
        digits.data, digits.target, test_size=HELD_OUT_SHARE, random_state=SEED, stratify=digits.target
    )
    network = MLPClassifier((HIDDEN,), alpha=1e-3, max_iter=200, tol=1e-3, random_state=SEED)
    images, labels = shifted(train_images, train_labels)
    network.fit(brightest_is_one(images), labels)

    content = build(network)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    probabilities, predicted = session.run(["probabilities", "label"], {"image": held_images.astype(np.float32)})
    accuracy = float((predicted == held_labels).mean())
    held_out = json.dumps(
        {"images": held_images.astype(int).tolist(), "labels": held_labels.tolist()}, separators=(",", ":")
    )
    print(f"model {len(content)} bytes, held-out file {len(held_out)} bytes")
    print(f"accuracy {accuracy:.4f} on {len(held_labels)} held-out digits")
    if accuracy < LEAST_ACCURACY or len(content) > MOST_MODEL_BYTES or len(held_out) > MOST_HELD_OUT_BYTES:
        print("outside the limits at the top of this file; nothing is written", file=sys.stderr)
        return 1

    MODEL.parent.mkdir(parents=True, exist_ok=True)
    MODEL.write_bytes(content)
    SAMPLES.mkdir(exist_ok=True)
    (SAMPLES / "heldout.json").write_text(held_out + "\n", encoding="ascii")
    for digit in range(10):
        # The typical one of the class: neither the easiest nor a hard case.
        own = np.flatnonzero((held_labels == digit) & (predicted == digit))
        typical = own[np.argsort(probabilities[own, digit])[len(own) // 2]]
        (SAMPLES / f"{digit}.png").write_bytes(png(held_images[typical]))
        if digit == 7:
            data = held_images[typical].astype(int).tolist()
            request = {"inputs": [{"name": "image", "shape": [1, 64], "datatype": "FP32", "data": data}]}
            EXAMPLE.write_text(json.dumps(request, separators=(",", ":")) + "\n", encoding="ascii")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
