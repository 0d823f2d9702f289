"""KServe V2 infer request: where everything lies in a body, checked against a model."""

from typing import Any

from server._fast.infer_spec import Spec

def index(body: bytes | bytearray | memoryview, spec: Spec, json_bytes: int = -1) -> dict[str, Any]:
    """Reads one request body; `json_bytes` is Inference-Header-Content-Length, -1 when all of it is JSON.

    The answer: id (bytes between the quotes, still escaped, or None), inputs in the model's order (datatype, shape,
    element_count, byte_count, json_data and bytes as (offset, length) or None), outputs as (index, binary) in the
    order of the reply, timeout_us (0: none), priority, rows. Raises InferRefused.
    """

def raw_index(body: bytes | bytearray | memoryview, spec: Spec) -> dict[str, Any]:
    """Reads a body that is one binary tensor without JSON (Inference-Header-Content-Length: 0); answers as `index`."""

def check_json(text: bytes | bytearray | memoryview) -> None:
    """Raises InferRefused unless `text` is one JSON value (RFC 8259; NaN and infinities as bare tokens; 100 levels)."""
