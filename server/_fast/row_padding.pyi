"""Rows of tensors moved apart in place, with padding between them."""

from collections.abc import Sequence

def spread(
    data: bytearray | memoryview, row_count: int, given: Sequence[int], padded: Sequence[int], value: bytes
) -> None:
    """Rows of shape `given`, side by side at the start of `data`, get shape `padded`; `value` is one element.

    `data` has exactly the bytes of all padded rows. ValueError otherwise.
    """
