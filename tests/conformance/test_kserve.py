"""KServe's SDK, unmodified: InferenceRESTClient of both protocols and InferenceGRPCClient."""

from __future__ import annotations

import numpy as np
import pytest

from tests.conformance import kserve_jobs, zoo
from tests.conformance.kserve_jobs import Found
from tests.conformance.onnx_reference import Reference
from tests.support.server import Server

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def found(field_server: Server, tmp_path_factory: pytest.TempPathFactory) -> Found:
    address = f"{field_server.host}:{field_server.port}"
    return kserve_jobs.run(tmp_path_factory.mktemp("kserve"), address, address)


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


@pytest.mark.parametrize("form", kserve_jobs.FORMS)
def test_every_datatype_comes_back_bit_for_bit(found: Found, form: str) -> None:
    kserve_jobs.check_tensors(found, form)


def test_ids_come_back(found: Found) -> None:
    assert found.results["v2"]["binary"]["id"] == "seven"
    assert found.results["grpc"]["raw"]["id"] == "eight"
    assert found.results["grpc"]["raw"]["version"] == "1"
