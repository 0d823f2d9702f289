"""v2.py: the JSON documents, whole, as the field's clients read them."""

from __future__ import annotations

import json

import pytest

from server import cli_ps
from server.protocol import v2
from server.protocol.assignment import Assignment
from server.protocol.served import ServedModel, ServerInfo, StaticCatalog, TensorInfo
from tests.support import counters

DIGITS_CONFIG = {
    "name": "digits",
    "platform": "onnxruntime_onnx",
    "backend": "onnxruntime",
    "runtime": "",
    "version_policy": {"latest": {"num_versions": 1}},
    "max_batch_size": 64,
    "input": [
        {
            "name": "image",
            "data_type": "TYPE_FP32",
            "format": "FORMAT_NONE",
            "dims": [64],
            "is_shape_tensor": False,
            "allow_ragged_batch": False,
            "optional": False,
            "is_non_linear_format_io": False,
        }
    ],
    "output": [
        {
            "name": "probabilities",
            "data_type": "TYPE_FP32",
            "dims": [10],
            "label_filename": "",
            "is_shape_tensor": False,
            "is_non_linear_format_io": False,
        },
        {
            "name": "label",
            "data_type": "TYPE_INT64",
            "dims": [1],
            "reshape": {"shape": []},
            "label_filename": "",
            "is_shape_tensor": False,
            "is_non_linear_format_io": False,
        },
    ],
    "batch_input": [],
    "batch_output": [],
    "optimization": {
        "priority": "PRIORITY_DEFAULT",
        "input_pinned_memory": {"enable": False},
        "output_pinned_memory": {"enable": False},
        "gather_kernel_buffer_threshold": 0,
        "eager_batching": False,
    },
    "dynamic_batching": {
        "preferred_batch_size": [64],
        "max_queue_delay_microseconds": 500,
        "preserve_ordering": False,
        "priority_levels": 0,
        "default_priority_level": 0,
        "priority_queue_policy": {},
    },
    "instance_group": [
        {
            "name": "digits",
            "kind": "KIND_CPU",
            "count": 2,
            "gpus": [],
            "secondary_devices": [],
            "profile": [],
            "passive": False,
            "host_policy": "",
        }
    ],
    "default_model_filename": "model.onnx",
    "cc_model_filenames": {},
    "metric_tags": {},
    "parameters": {"batching_reason": {"string_value": "the first axis of every input and output is free"}},
    "model_warmup": [],
    "model_transaction_policy": {"decoupled": False},
    "response_cache": {"enable": False},
}


def test_config_of_a_batched_model() -> None:
    document = v2.model_config(counters.digits())
    assert json.loads(document) == DIGITS_CONFIG
    assert list(json.loads(document)) == list(DIGITS_CONFIG), "Triton's order of keys"


def test_config_of_a_model_on_several_devices() -> None:
    placed = Assignment("cuda:1", instances=2, others=(Assignment("cpu", instances=1), Assignment("tensorrt:0")))
    tensors = (TensorInfo("x", "FP32", (-1, 2)),)
    model = ServedModel("m", "1", tensors, tensors, batched=True, max_batch=8, instances=3, placed=lambda: placed)
    groups = json.loads(v2.model_config(model))["instance_group"]
    assert [(one["name"], one["kind"], one["count"], one["gpus"]) for one in groups] == [
        ("m_0", "KIND_GPU", 2, [1]),
        ("m_1", "KIND_CPU", 1, []),
        ("m_2", "KIND_GPU", 3, [0]),
    ]
    assert cli_ps._device({"instance_group": groups}) == "gpu 1, cpu, gpu 0"
    assert cli_ps._device({"instance_group": groups[1:2] * 2}) == "cpu" and cli_ps._device({}) is None


def test_config_of_a_model_without_a_batch_axis() -> None:
    document = json.loads(v2.model_config(counters.vad()))
    assert document["max_batch_size"] == 0
    assert "dynamic_batching" not in document
    assert [(one["dims"], one.get("reshape")) for one in document["input"]] == [
        ([-1, 512], None),
        ([1], {"shape": []}),
    ]
    assert document["output"][0]["dims"] == [-1, 1]


def test_server_metadata_under_any_name() -> None:
    info = ServerInfo(name="triton", version="1.2.3", extensions=("statistics",))
    assert v2.server_metadata(info) == b'{"name":"triton","version":"1.2.3","extensions":["statistics"]}'


def test_model_metadata() -> None:
    assert v2.model_metadata(counters.digits(), ["1", "2"]) == (
        b'{"name":"digits","versions":["1","2"],"platform":"onnxruntime_onnx",'
        b'"inputs":[{"name":"image","datatype":"FP32","shape":[-1,64]}],'
        b'"outputs":[{"name":"probabilities","datatype":"FP32","shape":[-1,10]},'
        b'{"name":"label","datatype":"INT64","shape":[-1]}]}'
    )


def test_readiness_bodies_have_the_keys_that_kserve_s_client_reads() -> None:
    assert json.loads(v2.LIVE_BODY)["live"] is True
    assert json.loads(v2.READY_BODY) == {"live": True, "ready": True}
    assert json.loads(v2.not_ready_body("draining")) == {"live": True, "ready": False, "error": "draining"}
    assert v2.model_ready(counters.digits()) == b'{"name":"digits","ready":true}'
    loading = json.loads(v2.model_ready(counters.digits(state="LOADING", reason="7 of 9 MB read")))
    assert loading == {
        "name": "digits",
        "ready": False,
        "error": "Request for unknown model: 'digits' version 1 is not at ready state (LOADING: 7 of 9 MB read)",
    }


@pytest.mark.parametrize("text", ["plain", 'quote " \\', "\x00\x1f\n", "Grüße 日本", "\ud800", "\udcff"])
def test_error_bodies_are_json_whatever_the_text(text: str) -> None:
    body = v2.error_body(text)
    assert json.loads(body.decode("utf-8")) == {"error": text.encode("utf-8", "replace").decode("utf-8")}


UNKNOWN = [
    ("foo", None, "Request for unknown model: 'foo' is not found"),
    ("digit", None, "Request for unknown model: 'digit' is not found; did you mean 'digits'?"),
    ("Digits", None, "Request for unknown model: 'Digits' is not found; did you mean 'digits'?"),
    ("idgits", None, "Request for unknown model: 'idgits' is not found; did you mean 'digits'?"),
    ("vda", None, "Request for unknown model: 'vda' is not found; did you mean 'vad'?"),
    ("digits", "9", "Request for unknown model: 'digits' version 9 is not found; versions of 'digits': 1, 2, 10"),
    ("digit", "1", "Request for unknown model: 'digit' version 1 is not found; did you mean 'digits'?"),
]


@pytest.mark.parametrize(("name", "version", "text"), UNKNOWN)
def test_unknown_models_have_triton_s_text_and_a_hint(name: str, version: str | None, text: str) -> None:
    known = [counters.digits("10"), counters.digits("1"), counters.digits("2"), counters.vad()]
    assert v2.unknown_model_text(name, version, known) == text


def test_static_catalog_prefers_the_newest_ready_version() -> None:
    old, new = counters.digits("2"), counters.digits("10", state="LOADING")
    catalog = StaticCatalog([new, old])
    assert catalog.find("digits", None) is old
    assert catalog.find("digits", "10") is new
    assert catalog.find("digits", "3") is None
    assert catalog.find("other", None) is None
    assert StaticCatalog([new]).find("digits", None) is new


def test_every_datatype_has_its_name_in_the_config() -> None:
    names = (
        *("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64"),
        *("FP16", "FP32", "FP64", "BYTES", "BF16"),
    )
    tensors = [TensorInfo(name.lower(), name, (-1, 4)) for name in names]
    model = ServedModel("all", "1", tensors, tensors, batched=True, max_batch=8)
    document = json.loads(v2.model_config(model))
    expected = [f"TYPE_{'STRING' if name == 'BYTES' else name}" for name in names]
    assert [one["data_type"] for one in document["input"]] == expected
    assert [one["data_type"] for one in document["output"]] == expected
