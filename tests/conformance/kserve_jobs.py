"""Has KServe's SDK, in an environment and a process of its own, ask for everything; see kserve_driver.py."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tests.conformance import zoo
from tests.conformance.v2_client import Array
from tests.support import clients

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


def run(folder: Path, rest: str, grpc: str) -> Found:
    """What the SDK says of a server with zoo.field_models(); two addresses, where a proxy has one for gRPC."""
    inputs = {name.lower(): array_of(name) for name in (*DTYPES, "BYTES")}
    np.savez(folder / "inputs.npz", **inputs)
    (folder / "job.json").write_text(json.dumps({"rest": rest, "grpc": grpc}))
    command = [clients.python("kserve"), str(DRIVER), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    with np.load(folder / "outputs.npz", allow_pickle=True) as stored:
        outputs = dict(stored)
    return Found(json.loads((folder / "results.json").read_text()), inputs, outputs)


#: Forms in which the SDK sends and asks for tensors, of its REST and of its gRPC client.
FORMS = ("v2/json", "v2/binary", "v2/chosen", "grpc/raw", "grpc/typed")


def check_tensors(found: Found, form: str) -> None:
    """Every datatype came back bit for bit."""
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
            elements = [one.encode() if isinstance(one, str) else one for one in got.ravel()]
            assert elements == sent.ravel().tolist()
        else:
            assert got.tobytes() == sent.tobytes(), name
