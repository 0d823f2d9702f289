"""Tensors of C++ strings, as ONNX Runtime keeps them, to and from the V2 binary form of BYTES."""

def is_known_layout(address: int, text: bytes) -> bool:
    """Whether the std::string at `address` (32 bytes, at most 15 of text) is laid out as this module expects.

    Ask once with a string whose contents are known before anything else is done.
    """

def assign(address: int, count: int, form: int, most_bytes: int) -> int:
    """Copies `count` elements of the V2 binary form at `form` into the strings at `address`: how long they are there.

    ValueError if they are longer than most_bytes. MemoryError.
    """

def pack(address: int, count: int) -> bytearray:
    """The V2 binary form of the strings at `address`. ValueError if one is too long for it. MemoryError."""
