"""The committed demo model does what the README says: accuracy on held-out digits, any brightness scale, its limits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from server.demo import files
from server.models.onnx_file import read_model

ROOT = Path(__file__).resolve().parents[2]
HELD_OUT = ROOT / "samples" / "heldout.json"

_SCRIPT = """
import json, sys
import numpy as np
import onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
document = json.load(open(sys.argv[2]))
images = np.array(document["images"], np.float32)
answers = [session.run(["label", "probabilities"], {"image": images * scale}) for scale in (1.0, 15.0, 0.0625)]
label, probabilities = answers[0]
blank = session.run(["probabilities"], {"image": np.zeros((1, 64), np.float32)})[0]
print(json.dumps({
    "accuracy": float((label == document["labels"]).mean()),
    "shapes": [list(label.shape), list(probabilities.shape)],
    "types": [str(label.dtype), str(probabilities.dtype)],
    "same_at_any_scale": all((other[1] == probabilities).all() for other in answers[1:]),
    "sums_to_one": bool(np.allclose(probabilities.sum(axis=1), 1.0, atol=1e-5)),
    "blank_is_finite": bool(np.isfinite(blank).all()),
}))
"""


def test_sizes() -> None:
    assert read_model(files.MODEL / "1" / "model.onnx").file_bytes <= 100_000
    assert HELD_OUT.stat().st_size <= 200_000
    document = json.loads(HELD_OUT.read_text())
    assert len(document["images"]) == len(document["labels"]) >= 400
    assert {len(image) for image in document["images"]} == {64}
    assert {value for image in document["images"] for value in image} == set(range(17))
    assert set(document["labels"]) == set(range(10))


def test_the_example_is_a_held_out_seven() -> None:
    (tensor,) = json.loads(files.example_request())["inputs"]
    document = json.loads(HELD_OUT.read_text())
    assert (tensor["name"], tensor["shape"], tensor["datatype"]) == ("image", [1, 64], "FP32")
    assert document["labels"][document["images"].index(tensor["data"])] == 7


@pytest.mark.slow
def test_in_onnx_runtime() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(files.MODEL / "1" / "model.onnx"), str(HELD_OUT)],
        env={**os.environ, "ORT_DISABLE_TELEMETRY": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found.pop("accuracy") >= 0.97
    assert found == {
        "shapes": [[450], [450, 10]],
        "types": ["int64", "float32"],
        "same_at_any_scale": True,
        "sums_to_one": True,
        "blank_is_finite": True,
    }
