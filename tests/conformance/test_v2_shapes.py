"""Requests of every size: split over slabs and joined, models that run one request at a time, outputs of any shape."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tests.conformance import zoo
from tests.conformance.conftest import CAPACITY_ROWS
from tests.conformance.onnx_reference import Reference, same_bits
from tests.conformance.v2_client import BINARY_LENGTH, Array, Client, Tensor, decode, encode
from tests.support.server import Server

pytestmark = pytest.mark.slow
References = dict[str, Reference]


def random(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


# -- batched models


@pytest.mark.parametrize("binary_out", [False, True], ids=["json-out", "binary-out"])
@pytest.mark.parametrize("binary", [False, True], ids=["json-in", "binary-in"])
@pytest.mark.parametrize("rows", [1, 2, 63, 64, 65, 128, 150, 1000])
def test_rows_split_over_slabs_and_joined(
    client: Client, references: References, rows: int, binary: bool, binary_out: bool
) -> None:
    images = random(rows, 64, seed=rows) * 8
    reply = client.infer(
        "digits", [Tensor("image", "FP32", images, binary)], parameters={"binary_data_output": binary_out}
    )
    expected = references["digits"].run_parts({"image": images}, CAPACITY_ROWS)
    for name in ("probabilities", "label"):
        assert same_bits(reply.outputs[name], expected[name])
    assert ("parameters" in reply.document["outputs"][0]) == binary_out


@pytest.mark.parametrize("rows", [1, 7, 64, 200])
def test_the_model_runs_a_request_in_as_few_batches_as_fit(client: Client, rows: int) -> None:
    reply = client.infer("probe", [Tensor("x", "FP32", random(rows, 1))])
    full, rest = divmod(rows, CAPACITY_ROWS)
    assert reply.outputs["rows"].reshape(-1).tolist() == [CAPACITY_ROWS] * (full * CAPACITY_ROWS) + [rest] * rest


def test_more_rows_than_the_whole_queue_are_refused_with_the_limit(client: Client) -> None:
    body, headers = encode([Tensor("x", "FP32", np.zeros((100_000, 1), np.float32))])
    answer = client.post("probe", body, headers)
    assert answer.status == 400
    text = answer.json()["error"]
    assert text.startswith("inference request batch-size must be <= ") and text.endswith(
        " for 'probe': it has 100000 rows, send fewer at a time"
    )
    limit = int(text.split()[6])
    assert limit >= CAPACITY_ROWS
    # One row more than the limit is the first that is refused.
    reply = client.infer("probe", [Tensor("x", "FP32", np.zeros((limit, 1), np.float32))])
    assert reply.outputs["rows"].shape == (limit, 1)
    body, headers = encode([Tensor("x", "FP32", np.zeros((limit + 1, 1), np.float32))])
    assert client.post("probe", body, headers).status == 400


def test_nested_and_flat_data_are_the_same(client: Client, references: References) -> None:
    array = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    others = {
        "rank one": np.array([2**63 - 1, -(2**63)]),
        'quoted "ä"': random(2, 5),
        "flag": np.array([[[True]], [[False]]]),
    }
    tensors = [Tensor("image", "UINT8", array, False)]
    tensors += [Tensor(n, d, others[n], False) for n, d, _ in zoo.SEVERAL if n in others]
    document = json.loads(encode(tensors)[0])
    expected = references["several"].run({"image": array, **others})
    for nest in (False, True):
        if nest:
            for tensor, one in zip(tensors, document["inputs"], strict=True):
                one["data"] = tensor.array.tolist()
        reply = decode(client.post("several", json.dumps(document).encode()))
        for name, found in reply.outputs.items():
            assert same_bits(found, expected[name]), name


def test_large_rows_arrive_over_many_segments(client: Client, references: References) -> None:
    for rows in (1, 64, 100):
        x = random(rows, zoo.WIDE_WIDTH, seed=rows)
        reply = client.infer("wide", [Tensor("x", "FP32", x)], parameters={"binary_data_output": True})
        assert same_bits(reply.outputs["y"], x)
    x = random(3, zoo.WIDE_WIDTH)
    assert same_bits(client.infer("wide", [Tensor("x", "FP32", x, False)]).outputs["y"], x)


def test_concurrent_requests_of_different_sizes_keep_their_rows(server: Server) -> None:
    def one(seed: int) -> None:
        rng = np.random.default_rng(seed)
        with Client(server.host, server.port) as client:
            for _ in range(25):
                rows = int(rng.choice([1, 2, 3, 17, 64, 65, 130]))
                a, b = (rng.integers(-1000, 1000, (rows, 16)).astype(np.float32) for _ in range(2))
                tensors = [Tensor("INPUT0", "FP32", a, bool(rows % 2)), Tensor("INPUT1", "FP32", b)]
                reply = client.infer("add_sub", tensors, outputs=[("OUTPUT1", True), ("OUTPUT0", rows < 20)])
                assert same_bits(reply.outputs["OUTPUT0"], a + b)
                assert same_bits(reply.outputs["OUTPUT1"], a - b)

    with ThreadPoolExecutor(12) as pool:
        list(pool.map(one, range(12)))


# -- one request at a time


@pytest.mark.parametrize("binary", [False, True], ids=["json", "binary"])
@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (5, 0), (1, 4096), (300, 300)])
def test_dynamic_shapes_come_back_as_they_went(client: Client, shape: tuple[int, int], binary: bool) -> None:
    x = random(*shape, seed=3)
    reply = client.infer("dynamic", [Tensor("x", "FP32", x, binary)], parameters={"binary_data_output": binary})
    assert reply.document["outputs"][0]["shape"] == list(shape)
    assert same_bits(reply.outputs["y"], x)


def test_no_rows_are_no_request(client: Client) -> None:
    for shape in ((0, 5), (0, 0)):
        body, headers = encode([Tensor("x", "FP32", random(*shape))])
        answer = client.post("dynamic", body, headers)
        assert answer.status == 400
        assert answer.json()["error"] == "inference request batch-size must be >= 1 for 'dynamic'"


def test_a_fixed_first_axis(client: Client) -> None:
    x = random(4, 3)
    assert same_bits(client.infer("fixed", [Tensor("x", "FP32", x)]).outputs["y"], x + x)


def test_a_batch_axis_that_is_not_the_first_and_a_scalar(client: Client) -> None:
    for columns in (1, 2, 5):
        state = random(2, columns, 3, seed=columns)
        for binary in (False, True):
            tensors = [Tensor("state", "FP32", state, binary), Tensor("rate", "INT64", np.array(-16000), binary)]
            reply = client.infer("time_major", tensors, parameters={"binary_data_output": binary})
            assert same_bits(reply.outputs["next_state"], state)
            assert reply.document["outputs"][1]["shape"] == []
            assert reply.outputs["same_rate"] == -16000


def test_a_scalar_may_be_nested_in_no_array_but_its_own(client: Client) -> None:
    body, _ = encode([Tensor("state", "FP32", random(2, 1, 3), False), Tensor("rate", "INT64", np.array(5), False)])
    document = json.loads(body)
    assert document["inputs"][1]["data"] == [5]
    for shape in ([1], [1, 1]):
        document["inputs"][1]["shape"] = shape
        answer = client.post("time_major", json.dumps(document).encode())
        assert answer.status == 400, answer
        assert answer.json()["error"].startswith(
            "unexpected shape for input 'rate' for model 'time_major'. Expected []"
        )


@pytest.mark.parametrize("count", [0, 1, 5, 1000])
def test_an_output_whose_size_depends_on_the_values(client: Client, references: References, count: int) -> None:
    x = np.zeros(1000, np.float32)
    x[::-1][:count] = 1
    for binary in (False, True):
        reply = client.infer("nonzero", [Tensor("x", "FP32", x, binary)], parameters={"binary_data_output": binary})
        assert reply.document["outputs"][0]["shape"] == [1, count]
        assert same_bits(reply.outputs["places"], references["nonzero"].run({"x": x})["places"])


@pytest.mark.parametrize("shape", [[], [0], [3], [2, 3, 4], [1] * 8, [4, 0, 2]], ids=str)
def test_an_output_whose_rank_is_not_in_the_file(client: Client, shape: list[int]) -> None:
    sizes = np.array(shape, np.int64)
    for binary in (False, True):
        reply = client.infer(
            "fill", [Tensor("shape", "INT64", sizes, binary)], parameters={"binary_data_output": binary}
        )
        assert reply.document["outputs"][0]["shape"] == shape
        assert same_bits(reply.outputs["zeros"], np.zeros(shape, np.float32))


def test_outputs_beyond_the_reserved_room_fail_and_the_next_request_does_not(client: Client) -> None:
    for shape in ([1 << 25], [1 << 15, 1 << 12], [1] * 9):
        body, headers = encode([Tensor("shape", "INT64", np.array(shape))])
        answer = client.post("fill", body, headers)
        assert answer.status in (400, 413, 500), answer
        assert "zeros" in answer.json()["error"], answer
        assert "/" not in answer.json()["error"]
        reply = client.infer("fill", [Tensor("shape", "INT64", np.array([2, 2]))])
        assert same_bits(reply.outputs["zeros"], np.zeros((2, 2), np.float32))


def test_a_shape_that_the_model_refuses_is_the_clients_error(client: Client) -> None:
    body, headers = encode([Tensor("shape", "INT64", np.array([-1, 4]))])
    answer = client.post("fill", body, headers)
    assert answer.status == 400, answer
    assert len(answer.json()["error"]) > 20
    assert "/" not in answer.json()["error"]


def test_many_large_outputs_in_a_row(client: Client) -> None:
    for elements in (1_000_000, 4_000_000, 10):
        reply = client.infer(
            "fill", [Tensor("shape", "INT64", np.array([elements]))], parameters={"binary_data_output": True}
        )
        assert reply.outputs["zeros"].nbytes == 4 * elements
        assert not reply.outputs["zeros"].any()


def test_chunked_bodies_with_sections(server: Server) -> None:
    body, headers = encode([Tensor("image", "FP32", random(150, 64))])
    with Client(server.host, server.port) as client:
        whole = client.post("digits", body, headers)
        for size in (1000, 4096, 65536, len(body)):
            pieces = [body[at : at + size] for at in range(0, len(body), size)]
            client._connection.request("POST", "/v2/models/digits/infer", iter(pieces), headers, encode_chunked=True)
            reply = client._connection.getresponse()
            assert (reply.status, reply.getheader(BINARY_LENGTH)) == (200, whole.headers.get(BINARY_LENGTH.lower()))
            assert reply.read() == whole.body
