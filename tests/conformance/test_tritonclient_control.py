"""NVIDIA's Python client, unmodified, asks: health, metadata, configuration, statistics, and what errors it sees."""

from __future__ import annotations

import numpy as np
import pytest

from tests.conformance.triton_jobs import Job, Request
from tests.conformance.v2_client import Tensor
from tests.support.server import Server

pytestmark = pytest.mark.slow


def test_health_metadata_and_configuration(server: Server) -> None:
    job = Job()
    job.call("is_server_live")
    job.call("is_server_ready")
    job.call("is_model_ready", model_name="digits")
    job.call("is_model_ready", model_name="digits", model_version="1")
    job.call("is_model_ready", model_name="nobody")
    job.call("is_model_ready", model_name="digits", model_version="2")
    job.call("get_server_metadata")
    job.call("get_model_metadata", model_name="digits")
    job.call("get_model_metadata", model_name="fixed", model_version="7")
    job.call("get_model_config", model_name="digits")
    job.call("get_model_config", model_name="fixed")
    results = [one["value"] for one in job.run(server)]
    assert results[:6] == [True, True, True, True, False, False]
    about, digits, fixed, config, single = results[6:]
    assert about["name"] == "headrace"
    assert {"binary_tensor_data", "statistics", "model_configuration"} <= set(about["extensions"])
    assert digits == {
        "name": "digits",
        "versions": ["1"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "image", "datatype": "FP32", "shape": [-1, 64]}],
        "outputs": [
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, 10]},
            {"name": "label", "datatype": "INT64", "shape": [-1]},
        ],
    }
    assert fixed["versions"] == ["7"] and fixed["inputs"][0]["shape"] == [4, 3]
    assert config["max_batch_size"] == 64 and "dynamic_batching" in config
    assert config["input"][0]["data_type"] == "TYPE_FP32" and config["input"][0]["dims"] == [64]
    assert single["max_batch_size"] == 0 and "dynamic_batching" not in single
    for one in (config, single):
        assert one["model_transaction_policy"] == {"decoupled": False}
        assert one["response_cache"] == {"enable": False}


def test_statistics_move_with_the_requests(server: Server) -> None:
    image = Tensor("image", "FP32", np.zeros((3, 64), np.float32))
    job = Job()
    job.call("get_inference_statistics", model_name="digits")
    job.infer([Request("digits", [image])] * 5)
    job.call("get_inference_statistics", model_name="digits", model_version="1")
    job.call("get_inference_statistics")
    before, _, after, everything = job.run(server)
    (first,), (second,) = before["value"]["model_stats"], after["value"]["model_stats"]
    assert second["inference_count"] - first["inference_count"] == 15
    for key in ("success", "queue", "compute_input", "compute_infer", "compute_output"):
        earlier, later = first["inference_stats"][key], second["inference_stats"][key]
        assert later["count"] - earlier["count"] == 5, key
        assert later["ns"] >= earlier["ns"]
    assert {one["name"] for one in everything["value"]["model_stats"]} >= {"digits", "add_sub", "fixed"}


def test_errors_as_the_client_shows_them(server: Server) -> None:
    image = np.zeros((1, 64), np.float32)
    ones = np.ones((2, 16), np.float32)
    fine = Tensor("image", "FP32", image)
    cases = [
        (Request("nobody", [fine]), "404", "Request for unknown model: 'nobody' is not found"),
        (
            Request("digits", [fine], options={"model_version": "2"}),
            "404",
            "Request for unknown model: 'digits' version 2 is not found",
        ),
        (
            Request("digits", [Tensor("image", "FP32", image[:, :63])]),
            "400",
            "unexpected shape for input 'image' for model 'digits'. Expected [-1,64], got [1,63]",
        ),
        (
            Request("digits", [Tensor("image", "FP64", image.astype(np.float64))]),
            "400",
            "inference input 'image' data-type is 'FP64', but model 'digits' expects 'FP32'",
        ),
        (
            Request("digits", [Tensor("picture", "FP32", image)]),
            "400",
            "unexpected inference input 'picture' for model",
        ),
        (Request("digits", [fine], [("nothing", True)]), "400", "unexpected inference output 'nothing' for model"),
        (
            Request("digits", [fine], [("label", True), ("label", False)]),
            "400",
            "output 'label' already exists in request",
        ),
        (
            Request("add_sub", [Tensor("INPUT0", "FP32", ones)]),
            "400",
            "expected 2 inputs but got 1 inputs for model 'add_sub'",
        ),
        (
            Request("add_sub", [Tensor("INPUT0", "FP32", ones), Tensor("INPUT1", "FP32", ones[:1])]),
            "400",
            "input 'INPUT1' batch size does not match other inputs for 'add_sub'",
        ),
        (Request("digits", [fine], options={"sequence_id": 5}), "501", "'sequence_id' is not supported"),
    ]
    for mode in ("sync", "async", "aio"):
        job = Job()
        job.infer([request for request, _, _ in cases], mode, concurrency=4)
        (replies,) = job.run(server)
        for reply, (request, status, text) in zip(replies, cases, strict=True):
            assert reply.status == status, f"{request.model}: {reply}"
            assert reply.error is not None and reply.error.startswith(text), reply.error


def test_settings_that_a_client_changes_and_sends_back(server: Server) -> None:
    job = Job()
    job.call("get_log_settings")
    job.call("update_log_settings", settings={"log_verbose_level": 1, "log_warning": False})
    job.call("update_log_settings", settings={"log_verbose_level": 0, "log_warning": True, "log_file": ""})
    job.call("update_log_settings", settings={"log_file": "/tmp/log"})
    job.call("get_trace_settings")
    job.call("update_trace_settings", model_name="digits", settings={"trace_rate": "7", "trace_level": ["OFF"]})
    job.call("update_trace_settings", model_name="digits", settings={"trace_rate": None, "trace_level": None})
    job.call("get_trace_settings", model_name="nobody")
    *settings, unknown = job.run(server)
    refused = settings.pop(3)
    first, changed, back, trace, own, reset = (answer["value"] for answer in settings)
    assert changed == {**first, "log_verbose_level": 1, "log_warning": False}
    assert back == first
    assert refused["status"] == "400" and "log file location can not be updated" in refused["error"]
    assert own == {**trace, "trace_rate": "7"}
    assert reset == trace
    assert unknown == {"error": "Request for unknown model: 'nobody' is not found", "status": "404"}


def test_extensions_whose_use_is_off(server: Server) -> None:
    job = Job()
    job.call("get_model_repository_index")
    job.call("get_system_shared_memory_status")
    job.call("get_cuda_shared_memory_status")
    job.call("load_model", model_name="digits")
    job.call("get_model_metadata", model_name="nobody")
    index, regions, cuda_regions, load, unknown = job.run(server)
    assert {"name": "digits", "version": "1", "state": "READY", "reason": ""} in index["value"]
    assert regions["value"] == cuda_regions["value"] == []
    assert load["status"] == "503" and "--model-control-mode explicit" in load["error"]
    assert unknown == {"error": "Request for unknown model: 'nobody' is not found", "status": "404"}
