"""Numbers by JSON, both ways, through identity models: exact, with NaN and infinities, with FP16 and BF16."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from server.protocol.datatypes import BY_NAME
from tests.conformance import zoo
from tests.conformance.onnx_reference import extremes, same_bits, without_payloads
from tests.conformance.v2_client import Array, Client, Tensor, from_json_values
from tests.support.onnx_writer import FIXED_WIDTH_TYPES

pytestmark = pytest.mark.slow
WIDTH = zoo.EVERY_DTYPE_WIDTH
FLOATS = ("FP16", "BF16", "FP32", "FP64")


def ask(client: Client, datatype: str, values: list[str]) -> list[str]:
    """Sends tokens as one input's data and returns the tokens of the same output's data."""
    rows = -(-len(values) // WIDTH)
    values = values + ["0"] * (rows * WIDTH - len(values))
    inputs = []
    for name in FIXED_WIDTH_TYPES:
        tokens = values if name == datatype else ["false" if name == "BOOL" else "0"] * (rows * WIDTH)
        inputs.append(
            f'{{"name":"{name.lower()}","shape":[{rows},{WIDTH}],"datatype":"{name}","data":[{",".join(tokens)}]}}'
        )
    body = f'{{"inputs":[{",".join(inputs)}],"outputs":[{{"name":"{datatype.lower()}_out"}}]}}'
    answer = client.post("every_dtype", body.encode())
    assert answer.status == 200, answer
    text = answer.body.decode()
    return text[text.index('"data":[') + 8 : text.rindex("]}]}")].split(",")


@pytest.mark.parametrize("datatype", FIXED_WIDTH_TYPES)
def test_what_goes_in_as_bits_comes_out_as_text_that_reads_back(client: Client, datatype: str) -> None:
    array = without_payloads(datatype, extremes(datatype, 40 * WIDTH, seed=5)).reshape(-1, WIDTH)
    zeros = {
        name: np.zeros_like(array, np.dtype(BY_NAME[name].numpy)) for name in FIXED_WIDTH_TYPES if name != datatype
    }
    arrays = {**zeros, datatype: array}
    tensors = [Tensor(name.lower(), name, arrays[name]) for name in FIXED_WIDTH_TYPES]
    output = f"{datatype.lower()}_out"
    reply = client.infer("every_dtype", tensors, outputs=[(output, False)])
    found = without_payloads(datatype, reply.outputs[output])
    assert same_bits(found, array)
    again = ask(client, datatype, [token(value) for value in reply.document["outputs"][0]["data"]])
    values = [json.loads(one) for one in again]
    assert same_bits(without_payloads(datatype, from_json_values(datatype, values, array.shape)), array)


def token(value: Any) -> str:
    """JSON text of a value as json.dumps writes it: NaN and Infinity are bare tokens."""
    return json.dumps(value)


@pytest.mark.parametrize("datatype", FLOATS)
def test_words_for_what_is_no_number(client: Client, datatype: str) -> None:
    found = ask(client, datatype, ["NaN", "Infinity", "-Infinity", "-0.0", "0", "-0", "1e-400", "-1e-400"])
    values = [json.loads(one) for one in found]
    assert math.isnan(values[0])
    assert values[1:3] == [math.inf, -math.inf]
    assert [math.copysign(1, value) for value in values[3:]] == [-1, 1, -1, 1, -1]
    assert values[3:] == [0] * 5
    assert found[:3] == ["NaN", "Infinity", "-Infinity"]


@pytest.mark.parametrize("datatype", FLOATS)
def test_decimals_are_rounded_once_to_the_nearest(client: Client, datatype: str) -> None:
    """Texts at, just below and just above the middle of two neighbours; reading by way of a wider type rounds twice."""
    tokens, expected = [], []
    for low, high in neighbours(datatype):
        middle = (Fraction(low.value) + Fraction(high.value)) / 2
        even = low if low.bits % 2 == 0 else high
        for shift, wanted in ((0, even), (-1, low), (1, high)):
            tokens.append(decimal(middle, shift))
            expected.append(wanted.bits)
    found = from_json_values(datatype, [json.loads(one) for one in ask(client, datatype, tokens)], (-1,))
    unsigned = np.dtype(f"uint{found.dtype.itemsize * 8}")
    assert found.view(unsigned)[: len(expected)].tolist() == expected


class Neighbour:
    """A float of a datatype: its bits and its exact value."""

    def __init__(self, datatype: str, bits: int) -> None:
        self.bits = bits
        array: Array = np.array([bits], np.dtype(f"uint{BY_NAME[datatype].size_bytes * 8}"))
        if datatype == "BF16":
            array = (array.astype(np.uint32) << 16).view(np.float32)
        else:
            array = array.view(BY_NAME[datatype].numpy)
        self.value = float(array[0])


def neighbours(datatype: str) -> list[tuple[Neighbour, Neighbour]]:
    """Pairs of positive floats that lie side by side: normal, subnormal, around one, odd and even."""
    bits = {
        "FP16": (0x3C00, 0x3C01, 0x0001, 0x03FF, 0x5640, 0x7BFE),
        "BF16": (0x3F80, 0x3F81, 0x0001, 0x007F, 0x42C8, 0x7F7E),
        "FP32": (0x3F800000, 0x3F800001, 0x00000001, 0x007FFFFF, 0x42C80000, 0x7F7FFFFE),
        "FP64": (0x3FF0000000000000, 0x3FF0000000000001, 1, 0x000FFFFFFFFFFFFF, 0x4059000000000000, 0x7FEFFFFFFFFFFFFE),
    }[datatype]
    return [(Neighbour(datatype, at), Neighbour(datatype, at + 1)) for at in bits]


def decimal(value: Fraction, shift: int) -> str:
    """The exact decimal expansion, its last place moved by one after 30 more zeros if shift says so."""
    places = value.denominator.bit_length() - 1  # the denominator is a power of two
    digits = value.numerator * 5**places * 10**30 + shift
    return f"{digits}e-{places + 30}"


@pytest.mark.parametrize("datatype", FLOATS)
def test_what_is_too_large_becomes_infinite_or_is_refused(client: Client, datatype: str) -> None:
    """The greatest finite number is read as such; what rounds beyond it is not silently made finite."""
    greatest = {
        "FP16": 65504.0,
        "BF16": 3.3895313892515355e38,
        "FP32": 3.4028234663852886e38,
        "FP64": 1.7976931348623157e308,
    }
    assert json.loads(ask(client, datatype, [repr(greatest[datatype])])[0]) == pytest.approx(
        greatest[datatype], rel=1e-2
    )
    body_tokens = ["1e400"]
    inputs = [
        {"name": n.lower(), "shape": [1, WIDTH], "datatype": n, "data": [False if n == "BOOL" else 0] * WIDTH}
        for n in FIXED_WIDTH_TYPES
    ]
    text = json.dumps({"inputs": inputs})
    marker = f'"datatype": "{datatype}", "data": [0'
    assert marker in text
    answer = client.post("every_dtype", text.replace(marker, marker[:-1] + body_tokens[0]).encode())
    if answer.status == 200:
        outputs = {one["name"]: one["data"] for one in answer.json()["outputs"]}
        assert outputs[f"{datatype.lower()}_out"][0] == math.inf
    else:
        assert answer.status == 400 and f"input '{datatype.lower()}'" in answer.json()["error"]


INTEGERS = [name for name in FIXED_WIDTH_TYPES if "INT" in name]


@pytest.mark.parametrize("datatype", INTEGERS)
def test_integers_to_the_ends_of_their_range(client: Client, datatype: str) -> None:
    info = np.iinfo(BY_NAME[datatype].numpy)
    tokens = [str(info.min), str(info.max), "0", "-0", "1", str(info.max - 1), str(info.min + 1)]
    found = [int(one) for one in ask(client, datatype, tokens)]
    assert found[: len(tokens)] == [int(one) for one in tokens]


def test_booleans(client: Client) -> None:
    found = ask(client, "BOOL", ["true", "false", "true", "true", "false", "false", "true", "false"])
    assert found == ["true", "false", "true", "true", "false", "false", "true", "false"]


def test_white_space_between_all_tokens(client: Client) -> None:
    found = ask(client, "INT32", [" \t1\r\n", "\n-2 ", "  3"])
    assert [int(one) for one in found[:3]] == [1, -2, 3]
