"""NVIDIA's Python client, unmodified, infers: its answers are bit for bit those of ONNX Runtime in this process."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.conformance import zoo
from tests.conformance.onnx_reference import Reference, extremes, same_bits, without_payloads
from tests.conformance.triton_jobs import Job, Reply, Request
from tests.conformance.v2_client import Array, Tensor
from tests.support.onnx_writer import FIXED_WIDTH_TYPES
from tests.support.server import Server

pytestmark = pytest.mark.slow
References = dict[str, Reference]

HELDOUT = json.loads((Path(__file__).resolve().parents[2] / "samples" / "heldout.json").read_text())
IMAGES = np.array(HELDOUT["images"], np.float32).reshape(len(HELDOUT["labels"]), 64)
LABELS = np.array(HELDOUT["labels"], np.int64)
BOTH = ("probabilities", "label")


def digits(images: Array, *, binary: bool, binary_out: bool | None = None) -> Request:
    """`binary_out` None: no outputs are listed, which the client takes for all of them in binary."""
    outputs = None if binary_out is None else [(name, binary_out) for name in BOTH]
    return Request("digits", [Tensor("image", "FP32", images, binary)], outputs)


def check(reply: Reply, expected: dict[str, Array]) -> None:
    """Every output of the reply has the expected bits."""
    assert reply.error is None, reply
    assert reply.outputs, "no outputs"
    for name, found in reply.outputs.items():
        assert same_bits(found, expected[name]), f"{name}: expected {expected[name]}, got {found}"


@pytest.mark.parametrize("binary", [False, True], ids=["json", "binary"])
def test_all_heldout_digits_one_by_one_and_in_batches(server: Server, references: References, binary: bool) -> None:
    batches = [IMAGES[at : at + 1] for at in range(len(IMAGES))]
    for size in (2, 7, 33, 64):
        batches += [IMAGES[at : at + size] for at in range(0, len(IMAGES), size)]
    job = Job()
    job.infer([digits(images, binary=binary, binary_out=binary) for images in batches])
    (replies,) = job.run(server)
    for images, reply in zip(batches, replies, strict=True):
        check(reply, references["digits"].run({"image": images}))
        assert set(reply.outputs) == set(BOTH)
    found = np.concatenate([reply.outputs["label"] for reply in replies[: len(LABELS)]])
    right = int((found == LABELS).sum())
    assert right >= 0.96 * len(LABELS), f"{right} of {len(LABELS)} digits recognised"


# async_infer of the gevent client sleeps 10 ms after each request that it hands over: fewer of them.
@pytest.mark.parametrize(("mode", "images"), [("async", IMAGES[:120]), ("aio", IMAGES)], ids=["async", "aio"])
def test_two_models_at_once_with_many_requests_on_their_way(
    server: Server, references: References, mode: str, images: Array
) -> None:
    rng = np.random.default_rng(4)
    requests, expected = [], []
    for at in range(len(images)):
        requests.append(digits(images[at : at + 1], binary=at % 2 == 0))
        rows = 1 + at % 5
        feeds = {name: rng.standard_normal((rows, 16), np.float32) for name in ("INPUT0", "INPUT1")}
        tensors = [Tensor(name, "FP32", array, binary=at % 3 > 0) for name, array in feeds.items()]
        requests.append(Request("add_sub", tensors, [("OUTPUT1", at % 2 == 0), ("OUTPUT0", True)]))
        expected.append(references["add_sub"].run(feeds))
    job = Job()
    job.infer(requests, mode, concurrency=32)
    (replies,) = job.run(server)
    for reply, wanted in zip(replies[1::2], expected, strict=True):
        check(reply, wanted)
    alone = references["digits"].run({"image": images})
    for row, reply in enumerate(replies[::2]):
        # The batch that a row ran in is not known here, and with it the last bits of a matrix product.
        assert reply.outputs["label"].tolist() == [alone["label"][row]]
        np.testing.assert_allclose(reply.outputs["probabilities"][0], alone["probabilities"][row], rtol=2e-6, atol=1e-9)


@pytest.mark.parametrize("rows", [1, 5, 64, 150])
def test_every_datatype_in_binary(server: Server, references: References, rows: int) -> None:
    count = rows * zoo.EVERY_DTYPE_WIDTH
    feeds = {
        name.lower(): extremes(name, count, seed=rows).reshape(rows, zoo.EVERY_DTYPE_WIDTH)
        for name in FIXED_WIDTH_TYPES
    }
    tensors = [Tensor(name.lower(), name, feeds[name.lower()]) for name in FIXED_WIDTH_TYPES]
    listed = [(f"{name.lower()}_out", True) for name in reversed(FIXED_WIDTH_TYPES)]
    job = Job()
    job.infer([Request("every_dtype", tensors), Request("every_dtype", tensors, listed)])
    (replies,) = job.run(server)
    expected = references["every_dtype"].run_parts(feeds, 64)
    for name, array in feeds.items():
        assert same_bits(expected[f"{name}_out"], array), f"{name}: the reference is no identity"
    for reply in replies:
        check(reply, expected)
        assert len(reply.outputs) == len(FIXED_WIDTH_TYPES)
    assert [one["name"] for one in replies[1].response["outputs"]] == [name for name, _ in listed]


def test_every_datatype_in_json(server: Server, references: References) -> None:
    """All that this client can send as JSON; BF16, and FP16 answers that it cannot read, go in binary."""
    rows = 5
    feeds = {}
    for name in FIXED_WIDTH_TYPES:
        array = extremes(name, rows * zoo.EVERY_DTYPE_WIDTH, seed=9).reshape(rows, zoo.EVERY_DTYPE_WIDTH)
        feeds[name.lower()] = without_payloads(name, array)
    tensors = [Tensor(name.lower(), name, feeds[name.lower()], name == "BF16") for name in FIXED_WIDTH_TYPES]
    job = Job()
    job.infer(
        [
            Request("every_dtype", tensors, [(f"{name.lower()}_out", name == "BF16") for name in FIXED_WIDTH_TYPES]),
            Request("every_dtype", tensors, [(f"{name.lower()}_out", True) for name in FIXED_WIDTH_TYPES]),
        ]
    )
    (replies,) = job.run(server)
    expected = references["every_dtype"].run(feeds)
    for reply in replies:
        assert reply.error is None
        for name in FIXED_WIDTH_TYPES:
            output = f"{name.lower()}_out"
            found = without_payloads(name, reply.outputs[output])
            assert same_bits(found, expected[output]), f"{output}: expected {expected[output]}, got {found}"


def test_several_inputs_and_outputs_of_different_ranks(server: Server, references: References) -> None:
    requests, expected = [], []
    for rows in (1, 3, 64, 65):
        feeds = {
            name: extremes(datatype, rows * int(np.prod(dims[1:])), seed=rows).reshape(rows, *dims[1:])
            for name, datatype, dims in zoo.SEVERAL
        }
        for flags in ((True, True, True, True), (False, True, False, True), (False, False, True, False)):
            tensors = [
                Tensor(name, datatype, without_payloads(datatype, feeds[name]), flag)
                for flag, (name, datatype, _) in zip(flags, zoo.SEVERAL, strict=True)
            ]
            outputs = [(f"{name}_out", not flag) for flag, (name, *_) in zip(flags, zoo.SEVERAL, strict=True)]
            requests += [Request("several", tensors[::-1], outputs), Request("several", tensors, outputs[1:3])]
            expected += [references["several"].run_parts({t.name: t.array for t in tensors}, 64)] * 2
    job = Job()
    job.infer(requests)
    (replies,) = job.run(server)
    for request, reply, wanted in zip(requests, replies, expected, strict=True):
        check(reply, wanted)
        assert request.outputs is not None
        assert [one["name"] for one in reply.response["outputs"]] == [name for name, _ in request.outputs]
        for one, (_, binary) in zip(reply.response["outputs"], request.outputs, strict=True):
            assert ("parameters" in one) == binary


def test_request_id_version_and_response_fields(server: Server) -> None:
    image = IMAGES[:1]
    job = Job()
    request = digits(image, binary=True)
    identifiers = ["42", "ü – 中文", 'quote " backslash \\ / \n tab \t', "x" * 3000]
    job.infer([request._replace(options={"request_id": one, "model_version": "1"}) for one in identifiers])
    job.infer([request])
    named, (anonymous,) = job.run(server)
    assert [reply.response["id"] for reply in named] == identifiers
    assert "id" not in anonymous.response
    for reply in (*named, anonymous):
        assert reply.response["model_name"] == "digits"
        assert reply.response["model_version"] == "1"


def test_time_limits_and_parameters(server: Server) -> None:
    request = digits(IMAGES[:2], binary=True)
    allowed = [
        {"timeout": 20_000_000},
        {"priority": 3},
        {"parameters": {"text": "a", "number": 7, "flag": True, "half": 0.5}},
        {"query_params": {"key": "value", "list": ["a b", "c"]}},
        {"headers": {"X-Request-Id": "abc", "Authorization": "Bearer abc"}},
    ]
    job = Job()
    job.infer([request._replace(options=options) for options in allowed])
    job.infer([request], network_timeout=15.0, connection_timeout=15.0)
    job.infer([request._replace(options={"timeout": 1})])
    passed, limited, (late,) = job.run(server)
    assert [reply.error for reply in (*passed, *limited)] == [None] * (len(allowed) + 1)
    # A microsecond may be enough if an executor is waiting.
    assert late.status in (None, "504"), late
    if late.status:
        assert late.error is not None and late.error.startswith("Request timeout expired")


@pytest.mark.parametrize("binary", [True, False])
def test_compressed_requests_and_replies(server: Server, binary: bool) -> None:
    job = Job()
    plain = digits(IMAGES[:8], binary=binary)
    job.infer([plain])
    for asked in ("gzip", "deflate", None):
        for answered in ("gzip", "deflate", None):
            options = {"request_compression_algorithm": asked, "response_compression_algorithm": answered}
            job.infer([plain._replace(options=options)])
    (expected,), *compressed = job.run(server)
    assert expected.error is None
    for (reply,) in compressed:
        assert reply.error is None
        assert {name: array.tolist() for name, array in reply.outputs.items()} == {
            name: array.tolist() for name, array in expected.outputs.items()
        }
