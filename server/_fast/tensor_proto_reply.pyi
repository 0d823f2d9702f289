"""tensorflow.serving.PredictResponse."""

from collections.abc import Sequence

from server._fast.infer_spec import Spec

def reply(spec: Spec, tensors: list[tuple[int, Sequence[int], list[bytes]]], as_content: bool = False) -> bytes:
    """A PredictResponse for the signature serving_default.

    `tensors`: (index of the output, shape, packed elements in segments). `as_content`: elements as tensor_content.
    """
