"""TensorFlow Serving's own gRPC client on a real server: predictions, versions, refusals, control calls, deadlines."""

from __future__ import annotations

import itertools
import socket
from typing import Any

import numpy as np
import pytest

from server.protocol.datatypes import BY_NAME
from tests.conformance import zoo
from tests.conformance.conftest import CAPACITY_ROWS
from tests.conformance.onnx_reference import Reference, extremes, same_bits
from tests.conformance.tfs_jobs import Job, Predict, Reply
from tests.conformance.v2_client import Array
from tests.reference.tensor_proto import REQUEST
from tests.support import exposition
from tests.support import http2_frames as h2
from tests.support.onnx_writer import FIXED_WIDTH_TYPES
from tests.support.server import Server

pytestmark = pytest.mark.slow
References = dict[str, Reference]
PREDICT = "/tensorflow.serving.PredictionService/Predict"
TIMEOUTS = "headrace_request_failures_total"
#: Rows of the model `mnist`.
ROW = np.array([[1, 2, 3]], np.float32)


def mnist(**more: Any) -> Predict:
    return Predict("mnist", {"x": ("FP32", ROW)}, **more)


def run_predicts(server: Server, *requests: Predict, **how: Any) -> list[Reply]:
    job = Job()
    job.predict(requests, **how)
    (replies,) = job.run(server)
    for reply in replies:
        assert reply.code is None, reply
        assert reply.outputs, reply
    return list(replies)


# -- predictions


def test_the_request_that_articles_end_with(server: Server, references: References) -> None:
    """tf.make_tensor_proto, model "mnist", signature "serving_default", ten seconds."""
    (reply,) = run_predicts(server, mnist(spec={"signature_name": "serving_default"}, timeout_s=10.0))
    assert same_bits(reply.outputs["y"], references["mnist"].run({"x": ROW})["y"])
    assert reply.datatypes == {"y": "FP32"}
    assert reply.forms == {"values"}
    assert reply.model_spec == {"name": "mnist", "version": "1", "signatureName": "serving_default"}


def values_of(datatype: str, rows: int, seed: int) -> Array:
    """The whole range of a datatype but NaNs of 32 and 64 bits, whose payloads Python's numbers do not keep."""
    array = extremes(datatype, rows * zoo.EVERY_DTYPE_WIDTH, seed)
    if datatype in ("FP32", "FP64"):
        array = np.where(np.isnan(array), array.dtype.type(1.5), array)
    return array.reshape(rows, zoo.EVERY_DTYPE_WIDTH)


def test_every_datatype_in_every_form_comes_back(server: Server) -> None:
    requests, expected = [], []
    for form, rows in itertools.product(("content", "values", "tensorflow"), (1, 2, 70)):
        arrays = {name: values_of(name, rows, rows) for name in FIXED_WIDTH_TYPES}
        requests.append(Predict("every_dtype", {name.lower(): (name, arrays[name]) for name in arrays}, form))
        expected.append(arrays)
    for reply, arrays in zip(run_predicts(server, *requests), expected, strict=True):
        assert reply.datatypes == {f"{name.lower()}_out": name for name in arrays}
        for name, array in arrays.items():
            assert same_bits(reply.outputs[f"{name.lower()}_out"], array), name


def test_a_single_value_stands_for_all(server: Server) -> None:
    arrays = {name: np.resize(values_of(name, 1, 3)[:, 1], (3, zoo.EVERY_DTYPE_WIDTH)) for name in FIXED_WIDTH_TYPES}
    (reply,) = run_predicts(
        server, Predict("every_dtype", {name.lower(): (name, arrays[name]) for name in arrays}, "single")
    )
    for name, array in arrays.items():
        assert same_bits(reply.outputs[f"{name.lower()}_out"], array), name


def test_scalars_and_fixed_shapes(server: Server) -> None:
    state = np.arange(12, dtype=np.float32).reshape(2, 2, 3)
    time_major = Predict("time_major", {"state": ("FP32", state), "rate": ("INT64", np.array(9))})
    fill = Predict("fill", {"shape": ("INT64", np.array([2, 0, 3]))})
    nonzero = Predict("nonzero", {"x": ("FP32", np.array([0, 1, 0, 2]))})
    replies = run_predicts(server, time_major, fill, nonzero)
    assert same_bits(replies[0].outputs["next_state"], state)
    assert same_bits(replies[0].outputs["same_rate"], np.array(9, np.int64))
    assert same_bits(replies[1].outputs["zeros"], np.zeros((2, 0, 3), np.float32))
    assert same_bits(replies[2].outputs["places"], np.array([[1, 3]], np.int64))


def test_digits_as_onnx_runtime_in_this_process(server: Server, references: References) -> None:
    sent = [np.random.default_rng(rows).integers(0, 16, (rows, 64)).astype(np.float32) for rows in (1, 7, 65, 150)]
    replies = run_predicts(server, *(Predict("digits", {"image": ("FP32", images)}) for images in sent))
    for images, reply in zip(sent, replies, strict=True):
        expected = references["digits"].run_parts({"image": images}, CAPACITY_ROWS)
        assert set(reply.outputs) == set(expected)
        for name, array in expected.items():
            assert same_bits(reply.outputs[name], array), name


def test_output_filter(server: Server) -> None:
    images = np.zeros((2, 64), np.float32)
    wanted = [["label"], ["label", "probabilities"], ["probabilities"], []]
    requests = [Predict("digits", {"image": ("FP32", images)}, output_filter=names) for names in wanted]
    for names, reply in zip(wanted, run_predicts(server, *requests), strict=True):
        assert set(reply.outputs) == set(names or ["label", "probabilities"])


def test_compressed_messages(server: Server) -> None:
    x = np.random.default_rng(1).integers(0, 3, (5, zoo.WIDE_WIDTH)).astype(np.float32)
    job = Job()
    for compression in (1, 2, 0):
        job.predict([Predict("wide", {"x": ("FP32", x)})], compression=compression)
    for (reply,) in job.run(server):
        assert reply.code is None, reply
        assert same_bits(reply.outputs["y"], x)


def several(rows: int, seed: int) -> dict[str, tuple[str, Array]]:
    """A request's inputs of the model `several`."""
    inputs = {}
    for name, datatype, dims in zoo.SEVERAL:
        array = np.random.default_rng(seed).integers(0, 256, (rows, *dims[1:]))
        inputs[name] = (datatype, array.astype(BY_NAME[datatype].numpy))
    return inputs


def test_a_thousand_at_once_each_get_their_own(server: Server) -> None:
    rng = np.random.default_rng(5)
    requests, expected = [], []
    for at in range(1000):
        if at % 50 == 0:
            x = rng.standard_normal((1, zoo.WIDE_WIDTH)).astype(np.float32)
            requests.append(Predict("wide", {"x": ("FP32", x)}))
            expected.append({"y": x})
        elif at % 3 == 0:
            arrays = {name: values_of(name, 1 + at % 2, at) for name in FIXED_WIDTH_TYPES}
            form = ("content", "values")[at % 2]
            requests.append(Predict("every_dtype", {name.lower(): (name, arrays[name]) for name in arrays}, form))
            expected.append({f"{name.lower()}_out": array for name, array in arrays.items()})
        else:
            requests.append(Predict("several", several(1 + at % 4, at)))
            expected.append({f"{name}_out": array for name, (_, array) in requests[-1].inputs.items()})
    for reply, outputs in zip(run_predicts(server, *requests, at_once=True), expected, strict=True):
        assert set(reply.outputs) == set(outputs)
        for name, array in outputs.items():
            assert same_bits(reply.outputs[name], array), name


def test_cancelled_calls_leave_nothing_behind(server: Server) -> None:
    """The fixture `server` fails when something stays in flight; the last call runs behind all of them."""
    wide = Predict("wide", {"x": ("FP32", np.ones((2, zoo.WIDE_WIDTH)))})
    job = Job()
    job.cancel([wide] * 150)
    job.predict([wide])
    result, (reply,) = job.run(server)
    assert result["cancelled"] > 0
    assert reply.code is None


# -- which model


def fixed(**spec: Any) -> Predict:
    return Predict("fixed", {"x": ("FP32", np.array([[1, 2, 3]] * 4))}, spec=spec)


def test_versions(server: Server) -> None:
    """Version 0, which `fixed` does not have, is what OpenVINO Model Server's clients send for the default one."""
    replies = run_predicts(server, fixed(), fixed(version=7), fixed(version=0), fixed(signature_name="serving_default"))
    for reply in replies:
        assert reply.model_spec["version"] == "7"
        assert reply.outputs["y"].tolist() == [[2, 4, 6]] * 4


LATEST = "Servable not found for request: Latest(none)"
REFUSED = [
    (mnist()._replace(model="none"), "NOT_FOUND", LATEST),
    (mnist()._replace(model="Mnist"), "NOT_FOUND", "Servable not found for request: Latest(Mnist)"),
    (mnist()._replace(model="ä/../mnist"), "NOT_FOUND", "Servable not found for request: Latest(ä/../mnist)"),
    (mnist()._replace(model=""), "INVALID_ARGUMENT", "ModelSpec has no name specified."),
    (fixed(version=1), "NOT_FOUND", "Servable not found for request: Specific(fixed, 1)"),
    (fixed(version=-7), "NOT_FOUND", "Servable not found for request: Specific(fixed, -7)"),
    (fixed(version=2**63 - 1), "NOT_FOUND", f"Servable not found for request: Specific(fixed, {2**63 - 1})"),
    (fixed(version_label="stable"), "INVALID_ARGUMENT", "Unrecognized servable version label: stable"),
    (mnist(spec={"signature_name": "x"}), "INVALID_ARGUMENT", 'Serving signature key "x" not found.'),
    (
        mnist(output_filter=["z"]),
        "INVALID_ARGUMENT",
        "output tensor alias not found in signature: z Outputs expected to be in the set {y}.",
    ),
    (mnist(output_filter=["y", "y"]), "INVALID_ARGUMENT", "duplicate output tensor alias: y"),
    (
        Predict("mnist", {}),
        "INVALID_ARGUMENT",
        "input size does not match signature: 0!=1 len({}) != len({x}). Sent extra: {}. Missing but required: {x}.",
    ),
    (
        Predict("mnist", {"y": ("FP32", ROW)}),
        "INVALID_ARGUMENT",
        "input tensor alias not found in signature: y. Inputs expected to be in the set {x}.",
    ),
]


def test_refusals_with_their_codes_and_texts(server: Server) -> None:
    """Each is followed by a call that is answered, on the same connection."""
    job = Job()
    for request, _, _ in REFUSED:
        job.predict([request, mnist()])
    for (request, code, text), (refused, answered) in zip(REFUSED, job.run(server), strict=True):
        assert (refused.code, refused.text) == (code, text), request
        assert answered.code is None


def test_refused_inputs_are_named(server: Server) -> None:
    """Another datatype, width or rank than the model's."""
    job = Job()
    job.predict([Predict("mnist", {"x": given}) for given in (("FP64", ROW), ("FP32", ROW[:, :2]), ("FP32", ROW[0]))])
    (replies,) = job.run(server)
    for reply in replies:
        assert reply.code == "INVALID_ARGUMENT"
        assert "'x'" in reply.text


def test_messages_that_are_none(server: Server) -> None:
    no_model = REQUEST()
    no_model.inputs["x"].dtype = 1
    job = Job()
    job.raw(PREDICT, b"\xff\xff")
    job.raw(PREDICT, b"")
    job.raw(PREDICT, no_model.SerializeToString())
    job.raw("/tensorflow.serving.PredictionService/PredictStreamed", b"")
    job.raw("/tensorflow.serving.SessionService/SessionRun", b"")
    broken, empty, without, streamed, session = job.run(server)
    assert broken["code"] == "INVALID_ARGUMENT"
    assert (empty["code"], empty["text"]) == ("INVALID_ARGUMENT", "Missing ModelSpec")
    assert (without["code"], without["text"]) == ("INVALID_ARGUMENT", "Missing ModelSpec")
    assert (streamed["code"], session["code"]) == ("UNIMPLEMENTED", "UNIMPLEMENTED")


def test_a_failing_run_is_an_error_of_this_call(server: Server) -> None:
    job = Job()
    job.predict([Predict("fails", {"index": ("INT64", np.array([[index]]))}) for index in (99, 1)])
    ((failed, answered),) = job.run(server)
    assert failed.code not in (None, "OK")
    assert answered.outputs["value"].tolist() == [[10.0]]


def timeouts(server: Server) -> float:
    """Requests of `mnist` whose time was up, as the metrics count them."""
    page = exposition.parse(server.get("/metrics", port=server.metrics_port).body)
    wanted = {("model", "mnist"), ("reason", "timeout")}
    ours = [value for (name, labels), value in exposition.values(page).items() if name == TIMEOUTS and wanted <= labels]
    (value,) = ours
    return value


def test_a_deadline_that_has_passed_when_it_runs(server: Server) -> None:
    """By hand: a client would not wait for the server to say so."""
    before = timeouts(server)
    request = REQUEST()
    request.model_spec.name = "mnist"
    request.inputs["x"].dtype = 1
    for size in (1, 3):
        request.inputs["x"].tensor_shape.dim.add(size=size)
    call = h2.headers(1, h2.grpc_fields(PREDICT.encode(), (b"grpc-timeout", b"1n")))
    call += h2.frame(h2.DATA, h2.END_STREAM, 1, h2.message(request.SerializeToString()))
    received = b""
    with socket.create_connection((server.host, server.port), timeout=10) as connection:
        connection.sendall(h2.PREFACE + h2.frame(h2.SETTINGS, 0, 0) + call)
        while not any(one.stream == 1 and one.flags & h2.END_STREAM for one in h2.split_frames(received)):
            more = connection.recv(65536)
            assert more, f"expected an answer, the connection ended after {received!r}"
            received += more
    assert not any(one.kind == h2.DATA for one in h2.split_frames(received)), "expected a status without a message"
    assert timeouts(server) == before + 1


# -- control calls

SPEC = {"name": "mnist"}
TENSOR = {"dtype": "DT_FLOAT", "tensor_shape": {"dim": [{"size": "-1"}, {"size": "3"}]}, "name": "x:0"}


def test_metadata_is_the_signature(server: Server) -> None:
    job = Job()
    job.call("GetModelMetadata", model_spec=SPEC, metadata_field=["signature_def"])
    (reply,) = job.run(server)
    assert reply["value"]["model_spec"] == {"name": "mnist", "version": "1"}
    packed = reply["value"]["metadata"]["signature_def"]
    assert packed["@type"] == "type.googleapis.com/tensorflow.serving.SignatureDefMap"
    signature = packed["signature_def"]["serving_default"]
    assert signature["inputs"] == {"x": TENSOR}
    assert signature["method_name"] == "tensorflow/serving/predict"


def test_status_of_versions(server: Server) -> None:
    job = Job()
    job.call("GetModelStatus", model_spec={"name": "fixed"})
    job.call("GetModelStatus", model_spec={"name": "fixed", "version": 7})
    expected = {"model_version_status": [{"version": "7", "state": "AVAILABLE", "status": {}}]}
    assert job.run(server) == [{"value": expected}] * 2


CLASSIFIER = "Expected classification signature method_name to be tensorflow/serving/classify. Was: "
REGRESSOR = "Expected regression signature method_name to be tensorflow/serving/regress. Was: "
SIGNATURE = "tensorflow/serving/predict"
NO_FIELD = "GetModelMetadataRequest must specify at least one metadata_field"
UNKNOWN_FIELD = "Metadata field graph is not supported: expected 'signature_def'"
ONLY_LISTS = (
    "ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList is currently supported"
)
CALLS_REFUSED: list[tuple[str, dict[str, Any], str, str]] = [
    ("GetModelMetadata", {}, "INVALID_ARGUMENT", "Missing ModelSpec"),
    ("GetModelMetadata", {"model_spec": SPEC}, "INVALID_ARGUMENT", NO_FIELD),
    ("GetModelMetadata", {"model_spec": SPEC, "metadata_field": ["graph"]}, "INVALID_ARGUMENT", UNKNOWN_FIELD),
    ("GetModelMetadata", {"model_spec": {"name": "none"}, "metadata_field": ["signature_def"]}, "NOT_FOUND", LATEST),
    ("GetModelStatus", {}, "INVALID_ARGUMENT", "Missing ModelSpec"),
    ("GetModelStatus", {"model_spec": {"name": "none"}}, "NOT_FOUND", "Could not find any versions of model none"),
    (
        "GetModelStatus",
        {"model_spec": {"name": "fixed", "version": 1}},
        "NOT_FOUND",
        "Could not find version 1 of model fixed",
    ),
    ("Classify", {}, "INVALID_ARGUMENT", "Missing ModelSpec"),
    ("Classify", {"model_spec": SPEC}, "INVALID_ARGUMENT", CLASSIFIER + SIGNATURE),
    ("Regress", {"model_spec": SPEC}, "INVALID_ARGUMENT", REGRESSOR + SIGNATURE),
    ("Regress", {"model_spec": {"name": "none"}}, "NOT_FOUND", LATEST),
    (
        "Classify",
        {"model_spec": {**SPEC, "signature_name": "x"}},
        "INVALID_ARGUMENT",
        "No signature was found with the name: x",
    ),
    ("HandleReloadConfigRequest", {}, "INVALID_ARGUMENT", ONLY_LISTS),
]


def test_refused_control_calls(server: Server) -> None:
    job = Job()
    for method, request, _, _ in CALLS_REFUSED:
        job.call(method, **request)
    job.call("MultiInference", tasks=[{"model_spec": SPEC}])
    *replies, multi = job.run(server)
    for (method, request, code, text), reply in zip(CALLS_REFUSED, replies, strict=True):
        assert reply == {"code": code, "text": text}, (method, request)
    assert multi["code"] == "UNIMPLEMENTED"
