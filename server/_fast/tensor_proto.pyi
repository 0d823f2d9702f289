"""tensorflow.serving.PredictRequest: where everything lies in a message, checked against a model."""

from collections.abc import Sequence
from typing import Any

from server._fast.infer_spec import Spec

def model(message: bytes | bytearray | memoryview) -> dict[str, Any] | None:
    """The message's model_spec: name, version (int or None), label, signature (bytes of UTF-8); None without one."""

def index(message: bytes | bytearray | memoryview, spec: Spec, row_counts: Sequence[int] = ()) -> dict[str, Any]:
    """Reads one message; answers as infer_wire.index (no id, timeout or priority). Raises InferRefused."""
