"""KServe's SDK, unmodified: InferenceRESTClient of both protocols and InferenceGRPCClient."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from tests.conformance import zoo
from tests.conformance.onnx_reference import Reference
from tests.conformance.v2_client import Array
from tests.support import clients
from tests.support.server import Server

pytestmark = pytest.mark.slow
DRIVER = Path(__file__).with_name("kserve_driver.py")
ROWS = 3
#: Spellings that numbers lose on a careless way: extremes, a negative zero, what no decimal of seven digits holds.
FLOATS = [-0.0, 0.1, 1 / 3, 65504.0, 5.960464477539063e-08, -1.0, 1e-3, 2.5]
STRINGS = ["", "a", "é", "日本語 \U0001f600", 'quote " back \\ line \n', "a\0b\0", "x" * 300, "]}[,"]
DTYPES = {
    "FP32": np.float32,
    "FP64": np.float64,
    "FP16": np.float16,
    "BOOL": np.bool_,
    **{f"{kind}{bits}": np.dtype(f"{kind.lower()}{bits}").type for kind in ("INT", "UINT") for bits in (8, 16, 32, 64)},
}


def array_of(datatype: str) -> Array:
    """ROWS rows that hold the extremes of a datatype."""
    if datatype == "BYTES":
        row = np.empty(zoo.EVERY_DTYPE_WIDTH, object)
        row[:] = [one.encode() for one in STRINGS]
    elif datatype.startswith("FP"):
        row = np.array(FLOATS, DTYPES[datatype])
    elif datatype == "BOOL":
        row = np.arange(zoo.EVERY_DTYPE_WIDTH) % 3 == 0
    else:
        limits = np.iinfo(DTYPES[datatype])
        row = np.array([limits.min, limits.max, 0, 1, 7, limits.max - 1, limits.min + 1, 100], DTYPES[datatype])
    return np.stack([np.roll(row, at) for at in range(ROWS)])


class Found(NamedTuple):
    results: dict[str, Any]
    inputs: dict[str, Array]
    outputs: dict[str, Array]


@pytest.fixture(scope="module")
def found(field_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What the SDK says, from one process of its own."""
    folder = tmp_path_factory.mktemp("kserve")
    inputs = {name.lower(): array_of(name) for name in (*DTYPES, "BYTES")}
    np.savez(folder / "inputs.npz", **inputs)
    (folder / "job.json").write_text(json.dumps({"address": f"{field_server.host}:{field_server.port}"}))
    command = [clients.python("kserve"), str(DRIVER), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    with np.load(folder / "outputs.npz", allow_pickle=True) as stored:
        outputs = dict(stored)
    return Found(json.loads((folder / "results.json").read_text()), inputs, outputs)


def test_v1_rest(found: Found) -> None:
    v1 = found.results["v1"]
    assert (v1["live"], v1["ready"]) == (True, True)
    lines = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
    expected = Reference(zoo.field_models()["mnist"]).run({"x": lines})["y"]
    assert np.array_equal(np.array(v1["infer"]["predictions"], np.float32), expected)
    assert v1["unknown"][0] == 404 and "none" in v1["unknown"][1]
    assert v1["refused"][0] == 400 and v1["refused"][1]
    assert v1["explain"][0] == 400 and "Malformed request" in v1["explain"][1]  # TensorFlow Serving's grammar


def test_v2_rest(found: Found) -> None:
    v2 = found.results["v2"]
    assert [v2[name] for name in ("live", "ready", "model", "unknown")] == [True, True, True, False]
    status, text = v2["refused"]
    assert status == 400 and "expected 13 inputs" in text


def test_v2_grpc(found: Found) -> None:
    grpc = found.results["grpc"]
    assert [grpc[name] for name in ("live", "ready", "model")] == [True, True, True]
    assert grpc["unknown"] is False or grpc["unknown"][0] == "NOT_FOUND"
    assert grpc["refused"][0] == "INVALID_ARGUMENT"


@pytest.mark.parametrize("form", ["v2/json", "v2/binary", "v2/chosen", "grpc/raw", "grpc/typed"])
def test_every_datatype_comes_back_bit_for_bit(found: Found, form: str) -> None:
    client, key = form.split("/")
    reply = found.results[client][key]
    expected = set(found.inputs)
    expected -= {"fp16"} if key == "typed" else set()
    expected &= {"int64", "bytes"} if key == "chosen" else expected
    assert set(reply["datatypes"]) == {f"{name}_out" for name in expected}
    for name in expected:
        assert reply["datatypes"][f"{name}_out"] == name.upper()
        sent, got = found.inputs[name], found.outputs[f"{key}/{name}_out"]
        assert got.shape == sent.shape and got.dtype == sent.dtype, name
        if name == "bytes":
            got = np.array([one.encode() if isinstance(one, str) else one for one in got.ravel()], object)
            assert got.tolist() == sent.ravel().tolist()
        else:
            assert got.tobytes() == sent.tobytes(), name


def test_ids_come_back(found: Found) -> None:
    assert found.results["v2"]["binary"]["id"] == "seven"
    assert found.results["grpc"]["raw"]["id"] == "eight"
    assert found.results["grpc"]["raw"]["version"] == "1"
