"""Where the demo model and its example request lie; the same in the source tree and in the executable."""

from __future__ import annotations

from pathlib import Path

#: A model's directory: NAME/VERSION/model.onnx with this as NAME.
MODEL = Path(__file__).parent / "digits"
#: One held-out digit as the body of a V2 inference request.
EXAMPLE = Path(__file__).parent / "example.json"


def example_request() -> str:
    """The body of a request to the demo model, one line of ASCII."""
    return EXAMPLE.read_text(encoding="ascii").strip()
