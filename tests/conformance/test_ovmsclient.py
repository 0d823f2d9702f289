"""OpenVINO Model Server's Python client, unmodified, over TensorFlow Serving's gRPC and REST: both give the same."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.conformance.onnx_reference import Reference
from tests.support import clients
from tests.support.server import Server

pytestmark = pytest.mark.slow
DRIVER = Path(__file__).with_name("ovms_driver.py")


@pytest.mark.parametrize("transport", ["grpc", "http"])
def test_predictions_status_and_metadata(server: Server, references: dict[str, Reference], transport: str) -> None:
    command = [clients.python("ovmsclient"), str(DRIVER), transport, f"{server.host}:{server.port}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    available = {"7": {"state": "AVAILABLE", "error_code": 0, "error_message": ""}}
    assert found["status"] == found["version"] == available
    if transport == "grpc":
        assert found["metadata"]["model_version"] == 1
        assert found["metadata"]["inputs"] == {"x": {"shape": [-1, 3], "dtype": "DT_FLOAT"}}
    else:  # the client hands on TensorFlow Serving's document: it looks for OpenVINO Model Server's spelling of keys
        assert found["metadata"]["model_spec"] == {"name": "mnist", "signature_name": "", "version": "1"}
    expected = references["mnist"].run({"x": np.array([[1, 2, 3]], np.float32)})["y"]
    for key in ("one", "versioned"):
        assert np.array_equal(np.array(found[key], np.float32), expected), key
    expected = references["digits"].run({"image": np.zeros((2, 64), np.float32)})
    for name, array in expected.items():
        assert np.array_equal(np.array(found["several"][name], array.dtype), array), name
    assert found["unknown"][0] == "ModelNotFoundError"
    assert "Servable not found for request: Latest(none)" in found["unknown"][1]
    assert found["refused"][0] == "InvalidInputError"
