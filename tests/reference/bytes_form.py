"""The V2 binary form of BYTES by struct: of each element a length of four bytes, then its bytes."""

from __future__ import annotations

import struct
from collections.abc import Iterable


def pack(elements: Iterable[bytes]) -> bytes:
    return b"".join(struct.pack("<I", len(element)) + element for element in elements)


def unpack(form: bytes) -> list[bytes] | None:
    """The elements, or None where the form is cut."""
    elements = []
    at = 0
    while at < len(form):
        if len(form) < at + 4:
            return None
        end = at + 4 + int(struct.unpack_from("<I", form, at)[0])
        if len(form) < end:
            return None
        elements.append(form[at + 4 : end])
        at = end
    return elements
