"""server/_fast/numbers.h through infer_json_fill and infer_json_reply: one number, text to bits and back."""

from __future__ import annotations

import json
import math
import os
import random
import struct
from fractions import Fraction

import pytest

from server._fast.infer_json_fill import fill
from server._fast.infer_json_reply import reply
from server._fast.infer_spec import InferRefused, Spec
from tests.reference import numbers

STRESS = int(os.environ.get("HEADRACE_STRESS", "0"))
INVALID_ARGUMENT = 1
# fmt: off
NO_NUMBERS = [
    "01", "-01", "00", "+1", "-", ".5", "1.", "1.e5", "1e", "1e+", "-.5", "0x10", "1_000", "1f", "--1", "inf",
    "nan", "-NaN", "INF", "infinity", "Infinit", "Na", "tru", "True", "null", "", "- 1", '"1"', "{}", "\0",
    "\uff11",
]
# fmt: on


def read(texts: list[str], datatype: str) -> bytes:
    return fill(f"[{','.join(texts)}]".encode(), datatype, [len(texts)])[0]


def write(bits: bytes, datatype: str) -> list[str]:
    """The text of each element."""
    count = len(bits) // numbers.WIDTH_BYTES[datatype]
    spec = Spec("m", "1", False, 1, [], [("y", datatype, [-1])])
    body, json_bytes = reply(spec, b"", [(0, [count], False, [bits])])
    assert json_bytes == len(body)
    data = body[body.index(b'"data":[') + 8 : -4].decode()
    return data.split(",") if data else []


def refused(text: str, datatype: str) -> InferRefused:
    with pytest.raises(InferRefused) as caught:
        read([text], datatype)
    return caught.value


@pytest.mark.parametrize("datatype", numbers.INTEGERS)
def test_integer_range_is_exact(datatype: str) -> None:
    letter, least, greatest = numbers.INTEGERS[datatype]
    inside = [least, least + 1, 0, 1, greatest - 1, greatest]
    assert read([str(number) for number in inside], datatype) == struct.pack(f"<6{letter}", *inside)
    for outside in (least - 1, greatest + 1, -(10**30), 10**30):
        error = refused(str(outside), datatype)
        assert error.code == INVALID_ARGUMENT
        assert f"element 0: {outside} does not fit {datatype}, expected {least} to {greatest}" in error.text


@pytest.mark.parametrize("datatype", numbers.INTEGERS)
@pytest.mark.parametrize("text", ["1.0", "1e3", "0.0", "1E0", "-1.5", "1e-1"])
def test_integer_tensor_refuses_floating_point_text(datatype: str, text: str) -> None:
    assert f"{text} is a floating-point number, but {datatype} takes integers" in refused(text, datatype).text


@pytest.mark.parametrize("datatype", [*numbers.INTEGERS, *numbers.FLOATS, "BOOL"])
@pytest.mark.parametrize("text", NO_NUMBERS)
def test_text_that_is_no_number(datatype: str, text: str) -> None:
    assert "Unable to parse 'data'" in refused(text, datatype).text


@pytest.mark.parametrize("datatype", numbers.FLOATS)
def test_float_tensor_takes_integers_and_bare_tokens(datatype: str) -> None:
    texts = ["1", "-1", "0", "-0", "16", "NaN", "Infinity", "-Infinity", "1e2", "1E+2", "5e-1"]
    assert read(texts, datatype) == b"".join(numbers.read(text, datatype) for text in texts)


@pytest.mark.parametrize("datatype", [*numbers.INTEGERS, *numbers.FLOATS])
def test_number_tensors_refuse_booleans(datatype: str) -> None:
    assert "expected a number" in refused("true", datatype).text


def test_bool_takes_true_false_zero_one() -> None:
    assert read(["true", "false", "1", "0", "-0"], "BOOL") == b"\1\0\1\0\0"
    for text in ("2", "-1", "256", "257"):
        assert f"{text} does not fit BOOL, expected true, false, 0 or 1" in refused(text, "BOOL").text
    assert "is a floating-point number" in refused("1.0", "BOOL").text


def greatest_float(datatype: str) -> Fraction:
    exponent_bits, mantissa_bits = numbers.FLOATS[datatype]
    return (2 - Fraction(1, 2**mantissa_bits)) * 2 ** (2 ** (exponent_bits - 1) - 1)


@pytest.mark.parametrize("datatype", numbers.FLOATS)
def test_float_range_is_exact(datatype: str) -> None:
    """What rounds to infinity is refused, from the very tie on; what rounds to zero is zero."""
    exponent_bits, mantissa_bits = numbers.FLOATS[datatype]
    greatest = greatest_float(datatype)
    tie = greatest + (greatest - greatest * (1 - Fraction(1, 2 ** (mantissa_bits + 1) - 1))) / 2
    infinity = (2**exponent_bits - 1) << mantissa_bits
    assert read([str(int(greatest)), f"-{int(tie) - 1}"], datatype)[: numbers.WIDTH_BYTES[datatype]] == (
        infinity - 1
    ).to_bytes(numbers.WIDTH_BYTES[datatype], "little")
    for text in (str(int(tie)), f"-{int(tie)}", "1e400", "-1e400", "1e99999999999999999999", "9" * 400):
        assert f"does not fit {datatype}" in refused(text, datatype).text
    tiny = ["1e-400", "-1e-400", "1e-99999999999999999999", "0e99999999999999999999", "0." + "0" * 400 + "1"]
    expected = b"".join(numbers.read(text, datatype) for text in tiny)
    assert read(tiny, datatype) == expected
    assert not any(byte & 0x7F for byte in expected)


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_every_half_round_trips(datatype: str) -> None:
    bits = struct.pack("<65536H", *range(65536))
    texts = write(bits, datatype)
    back = struct.unpack("<65536H", read(texts, datatype))
    exponent_bits, mantissa_bits = numbers.FLOATS[datatype]
    infinity = (2**exponent_bits - 1) << mantissa_bits
    for pattern, again, text in zip(range(65536), back, texts, strict=True):
        if pattern & 0x7FFF > infinity:
            assert text == "NaN"
            assert again & 0x7FFF > infinity
        else:
            assert again == pattern, text


def decimal(value: Fraction) -> str:
    """A dyadic fraction as an exact decimal."""
    places = value.denominator.bit_length() - 1
    digits = str(abs(value.numerator) * 5**places).rjust(places + 1, "0")
    whole, rest = digits[: len(digits) - places], digits[len(digits) - places :]
    return ("-" if value < 0 else "") + whole + (f".{rest}" if rest else "")


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_half_rounds_once(datatype: str) -> None:
    """Around the midpoint of two neighbours, also nearer to it than a double can tell."""
    exponent_bits, mantissa_bits = numbers.FLOATS[datatype]
    infinity = (2**exponent_bits - 1) << mantissa_bits
    patterns = {0, 1, 2, 3, (1 << mantissa_bits) - 1, 1 << mantissa_bits, infinity - 2}
    patterns |= {random.Random(3).randrange(infinity - 1) for _ in range(50 * (1 + STRESS))}
    for pattern in patterns:
        low, high = (
            Fraction(numbers.value(struct.pack("<H", neighbour), datatype)) for neighbour in (pattern, pattern + 1)
        )
        middle = decimal((low + high) / 2)
        point = "" if "." in middle else "."
        below = decimal((low + high) / 2 - (high - low) / 2**60)
        above = f"{middle}{point}{'0' * 40}1"
        even = pattern if pattern % 2 == 0 else pattern + 1
        texts = [middle, f"-{middle}", above, below, f"{middle}{point or '0'}{'0' * 200}", f"{middle}e0"]
        expected = [even, even | 0x8000, pattern + 1, pattern, even, even]
        assert list(struct.unpack("<6H", read([text.removesuffix(".") for text in texts], datatype))) == expected, (
            middle
        )


MANTISSAS = [0, 1, 2, 3, 0x400000 - 1, 0x400000, 0x400000 + 1, 0x555555, 0x2AAAAA, 0x7FFFFE, 0x7FFFFF]


def float32_classes() -> list[int]:
    """Both signs, every exponent, the edges of the mantissa and some of its inside."""
    inside = [random.Random(5).randrange(1 << 23) for _ in range(5 + 100 * STRESS)]
    return [
        sign << 31 | exponent << 23 | mantissa
        for sign in (0, 1)
        for exponent in range(256)
        for mantissa in MANTISSAS + inside
    ]


def test_float32_bit_patterns_round_trip() -> None:
    patterns = float32_classes()
    texts = write(struct.pack(f"<{len(patterns)}I", *patterns), "FP32")
    back = struct.unpack(f"<{len(patterns)}I", read(texts, "FP32"))
    for pattern, again, text in zip(patterns, back, texts, strict=True):
        if pattern & 0x7FFFFFFF > 0x7F800000:
            assert (text, again) == ("NaN", 0x7FC00000)
        else:
            assert again == pattern, text


def test_float32_text_is_the_shortest() -> None:
    """No text with fewer significant digits is the same float32 (integers apart: there the digits are exact)."""
    patterns = [pattern for pattern in float32_classes() if pattern & 0x7F800000 != 0x7F800000][::7]
    texts = write(struct.pack(f"<{len(patterns)}I", *patterns), "FP32")
    for pattern, text in zip(patterns, texts, strict=True):
        (number,) = struct.unpack("<f", struct.pack("<I", pattern))
        parsed = json.loads(text)
        assert isinstance(parsed, float), text
        assert struct.pack("<f", parsed) == struct.pack("<f", number), text
        digits = len(text.lower().partition("e")[0].lstrip("-").replace(".", "").strip("0"))
        if digits > 1 and abs(number) < 2**24:
            shorter = float(f"{number:.{digits - 2}e}")
            assert struct.pack("<f", shorter) != struct.pack("<f", number), text


def test_float64_bit_patterns_round_trip() -> None:
    generator = random.Random(7)
    patterns = [
        sign << 63 | exponent << 52 | mantissa
        for sign in (0, 1)
        for exponent in range(2048)
        for mantissa in (0, 1, (1 << 52) - 1, generator.randrange(1 << 52))
    ]
    texts = write(struct.pack(f"<{len(patterns)}Q", *patterns), "FP64")
    back = read(texts, "FP64")
    for index, (pattern, text) in enumerate(zip(patterns, texts, strict=True)):
        (number,) = struct.unpack("<d", struct.pack("<Q", pattern))
        (again,) = struct.unpack_from("<d", back, 8 * index)
        if math.isnan(number):
            assert math.isnan(again)
        else:
            assert struct.pack("<d", again) == struct.pack("<d", number)
            assert text.lstrip("-") == "Infinity" or float(text) == number


@pytest.mark.parametrize("datatype", ["FP32", "FP64", "FP16", "BF16"])
def test_integral_floats_are_written_as_floats(datatype: str) -> None:
    texts = ["1", "0", "-0", "16", "-3", "0.5", "1e4"]
    written = write(read(texts, datatype), datatype)
    assert written[:6] == ["1.0", "0.0", "-0.0", "16.0", "-3.0", "0.5"]
    assert all(isinstance(json.loads(text), float) for text in written)


@pytest.mark.parametrize("datatype", numbers.INTEGERS)
def test_integers_are_written_in_full(datatype: str) -> None:
    letter, least, greatest = numbers.INTEGERS[datatype]
    values = [least, 0, 1, greatest]
    assert write(struct.pack(f"<4{letter}", *values), datatype) == [str(number) for number in values]


def test_bools_are_written_as_words() -> None:
    assert write(b"\0\1\1\0", "BOOL") == ["false", "true", "true", "false"]


def random_text(generator: random.Random) -> str:
    """Decimals of many lengths, and many exactly at or near ties."""
    kind = generator.randrange(6)
    if kind == 0:
        return repr(generator.uniform(-1, 1))
    if kind == 1:
        digits = "".join(generator.choice("0123456789") for _ in range(generator.randint(1, 40)))
        return f"{generator.choice(['', '-'])}{generator.randrange(10)}.{digits}e{generator.randint(-60, 60)}"
    if kind == 2:
        return str(generator.randint(-(10 ** generator.randint(1, 25)), 10 ** generator.randint(1, 25)))
    if kind == 3:
        (number,) = struct.unpack("<f", struct.pack("<I", generator.randrange(1 << 23, 255 << 23)))
        step = Fraction(number) + Fraction(math.ulp(number)) * generator.choice([-1, 1])
        middle = decimal((Fraction(number) + step) / 2)
        return middle + generator.choice(["", "0000001" if "." in middle else ".0000001"])
    if kind == 4:
        exponent = generator.randint(-50, 45)
        return f"{generator.randrange(10**17)}E{exponent}"
    return f"{generator.randrange(1000)}.{generator.randrange(10**6):06}"


def test_random_text_as_by_exact_fractions() -> None:
    generator = random.Random(11)
    for _ in range(1500 * (1 + STRESS)):
        text = random_text(generator)
        for datatype in ("FP32", "FP64", "FP16", "BF16", "INT64", "UINT8"):
            try:
                expected = numbers.read(text, datatype)
            except numbers.Refused:
                refused(text, datatype)
            else:
                assert read([text], datatype) == expected, (text, datatype)
