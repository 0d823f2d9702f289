"""TensorFlow Serving's and KServe V1's predict replies."""

from collections.abc import Sequence

from server._fast.infer_spec import Spec

def reply(spec: Spec, form: str, tensors: list[tuple[int, Sequence[int], list[bytes]]]) -> bytes:
    """The body of a reply. `form`: "row", "row_single" or "column".

    `tensors`: (index of the output, shape, packed elements in segments). InferRefused where outputs cannot be written
    in rows.
    """
