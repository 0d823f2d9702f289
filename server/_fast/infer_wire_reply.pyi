"""KServe V2 infer replies as protobuf messages."""

from collections.abc import Sequence

from server._fast.infer_spec import Spec

def reply(
    spec: Spec, request_id: bytes, tensors: list[tuple[int, Sequence[int], list[bytes]]], stream: bool = False
) -> bytes:
    """A ModelInferResponse, or a ModelStreamInferResponse around it.

    `request_id`: UTF-8, empty for none. `tensors`: (index of the output, shape, packed elements in segments).
    """

def stream_error(text: bytes, request_id: bytes) -> bytes:
    """A ModelStreamInferResponse with an error message (UTF-8) for the request of that id."""
