"""inference.ModelInferRequest: where everything lies in a message, checked against a model."""

from collections.abc import Sequence
from typing import Any

from server._fast.infer_spec import Spec

def model(message: bytes | bytearray | memoryview) -> tuple[bytes, bytes]:
    """The model's name and version (UTF-8) as the message says; empty where it does not. Raises InferRefused."""

def index(message: bytes | bytearray | memoryview, spec: Spec, row_counts: Sequence[int] = ()) -> dict[str, Any]:
    """Reads one message.

    The answer: id (UTF-8, or None), inputs in the model's order (datatype, shape, element_count, byte_count, bytes as
    (offset, length) or None for typed contents, parts: those contents as packed little-endian elements, in parts of
    `row_counts` rows), outputs (indices in the order of the reply), timeout_us (0: none), priority, rows. Raises
    InferRefused.
    """
