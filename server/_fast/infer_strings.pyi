"""JSON arrays of strings as BYTES elements."""

def pack(text: bytes | bytearray | memoryview) -> tuple[int, bytes]:
    """How many strings are in a JSON array of any nesting, and their elements: of each a length and its bytes.

    Raises InferRefused.
    """
