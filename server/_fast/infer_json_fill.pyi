"""JSON arrays of numbers to packed little-endian elements."""

from collections.abc import Iterable

def fill(data: bytes | bytearray | memoryview, datatype: str, counts: Iterable[int]) -> list[bytes]:
    """Reads a flat or nested JSON array in parts of `counts` elements: their bits, little-endian.

    All elements must be asked for: too few or too many raise InferRefused, as do numbers that do not fit `datatype`.
    """
