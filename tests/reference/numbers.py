"""One number, text to bits and back, by exact fractions: no rounding happens anywhere but in `round_to_float`."""

from __future__ import annotations

import json
import re
import struct
from fractions import Fraction

#: datatype -> (struct letter, least, greatest)
INTEGERS = {
    "UINT8": ("B", 0, 2**8 - 1),
    "UINT16": ("H", 0, 2**16 - 1),
    "UINT32": ("I", 0, 2**32 - 1),
    "UINT64": ("Q", 0, 2**64 - 1),
    "INT8": ("b", -(2**7), 2**7 - 1),
    "INT16": ("h", -(2**15), 2**15 - 1),
    "INT32": ("i", -(2**31), 2**31 - 1),
    "INT64": ("q", -(2**63), 2**63 - 1),
}
#: datatype -> (bits of exponent, bits of mantissa)
FLOATS = {"FP16": (5, 10), "BF16": (8, 7), "FP32": (8, 23), "FP64": (11, 52)}
WIDTH_BYTES = {
    "BOOL": 1,
    **{name: struct.calcsize(letter) for name, (letter, _, _) in INTEGERS.items()},
    **{name: (1 + sum(bits)) // 8 for name, bits in FLOATS.items()},
}
DATATYPES = tuple(WIDTH_BYTES)

NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")


class Refused(ValueError):
    """The text is no number of the datatype."""


def exact(text: str) -> Fraction:
    """The value of a JSON number. Exponents beyond any float are cut, or the fraction would not fit into memory."""
    mantissa, _, exponent = text.lower().partition("e")
    written = max(-9999, min(9999, int(exponent or "0")))
    return Fraction(mantissa) * Fraction(10) ** written


def round_to_float(value: Fraction, exponent_bits: int, mantissa_bits: int) -> int:
    """The bits of |value|, rounded to nearest, ties to even; the pattern of infinity when it is too large."""
    bias = 2 ** (exponent_bits - 1) - 1
    value = abs(value)
    if value == 0:
        return 0
    exponent = value.numerator.bit_length() - value.denominator.bit_length()
    if Fraction(2) ** exponent > value:
        exponent -= 1
    exponent = max(exponent, 1 - bias)
    steps = value / Fraction(2) ** (exponent - mantissa_bits)
    whole, rest = divmod(steps.numerator, steps.denominator)
    twice = 2 * rest
    if twice > steps.denominator or (twice == steps.denominator and whole % 2):
        whole += 1
    infinity = (2**exponent_bits - 1) << mantissa_bits
    bits = ((exponent + bias - 1) << mantissa_bits) + whole
    return int(min(bits, infinity))


def read(text: str, datatype: str) -> bytes:
    """The bits of the number in `text`, little-endian."""
    if datatype == "BOOL":
        if text in ("true", "false", "0", "1", "-0"):
            return bytes([text in ("true", "1")])
        raise Refused(text)
    if datatype in FLOATS:
        exponent_bits, mantissa_bits = FLOATS[datatype]
        infinity = (2**exponent_bits - 1) << mantissa_bits
        bits: int
        sign = text.startswith("-") << (exponent_bits + mantissa_bits)
        if text == "NaN":
            bits = infinity | 1 << (mantissa_bits - 1)
        elif text in ("Infinity", "-Infinity"):
            bits = infinity | sign
        elif NUMBER.fullmatch(text):
            bits = round_to_float(exact(text), exponent_bits, mantissa_bits)
            if bits == infinity:
                raise Refused(text)
            bits |= sign
        else:
            raise Refused(text)
        return bits.to_bytes(WIDTH_BYTES[datatype], "little")
    letter, least, greatest = INTEGERS[datatype]
    match = NUMBER.fullmatch(text)
    if not match or match[1] or match[2] or not least <= int(text) <= greatest:
        raise Refused(text)
    return struct.pack(f"<{letter}", int(text))


def value(bits: bytes, datatype: str) -> float | int | bool:
    """The number that the bits stand for, as Python has it; exact."""
    if datatype == "BOOL":
        return bits != b"\0"
    if datatype == "BF16":
        return float(struct.unpack("<f", b"\0\0" + bits)[0])
    letter = {"FP16": "e", "FP32": "f", "FP64": "d"}.get(datatype) or INTEGERS[datatype][0]
    number: float | int = struct.unpack(f"<{letter}", bits)[0]
    return number


class _Text(str):
    """A number that keeps its text."""


def read_array(text: str, datatype: str, count: int) -> bytes:
    """Flat or nested JSON array of `count` numbers, their bits in order. RecursionError and ValueError mean refusal."""
    document = json.loads(text, parse_int=_Text, parse_float=_Text, parse_constant=_Text)
    if not isinstance(document, list):
        raise Refused("not an array")
    elements: list[bytes] = []

    def walk(array: list[object], depth: int) -> None:
        if depth > 100:
            raise Refused("nesting")
        for member in array:
            if isinstance(member, list):
                walk(member, depth + 1)
            elif isinstance(member, bool):
                elements.append(read(str(member).lower(), datatype))
            elif isinstance(member, _Text):
                elements.append(read(member, datatype))
            else:
                raise Refused(str(member))

    walk(document, 1)
    if len(elements) != count:
        raise Refused(f"{len(elements)} elements")
    return b"".join(elements)
