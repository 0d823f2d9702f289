"""TensorFlow Serving's and KServe V1's predict requests."""

from typing import Any

from server._fast.infer_spec import Spec

def index(body: bytes | bytearray | memoryview, spec: Spec) -> dict[str, Any]:
    """Where everything lies, in the order of the model's inputs.

    {"form": "row" | "row_single" | "column", "rows": int, "inputs": [{"datatype", "shape", "element_count",
    "byte_count", "json_data": (offset, length) | None, "bytes": the gathered contents | None}]}. The elements behind
    json_data are not checked yet. InferRefused has TensorFlow Serving's text.
    """

def explain(body: bytes | bytearray | memoryview, spec: Spec) -> str:
    """The text for a body whose elements cannot be read, though `index` takes it; "" when they can."""

def predict_path(path: bytes) -> tuple[bytes, bytes, bytes] | None:
    """(name, version, label) of a predict call's path, still percent-encoded, absent ones empty; or None."""

def path_name_is(raw: bytes, plain: bytes) -> bool:
    """Whether a segment of a path, percent-decoded, is `plain`."""
