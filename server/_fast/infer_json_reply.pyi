"""KServe V2 infer replies."""

from collections.abc import Sequence

from server._fast.infer_spec import Spec

def reply(
    spec: Spec, request_id: bytes, tensors: list[tuple[int, Sequence[int], bool, list[bytes]]]
) -> tuple[bytes, int]:
    """The body of a reply and the length of its JSON part.

    `request_id`: contents of a JSON string, still escaped, empty for none. `tensors`: (index of the output, shape,
    binary, packed elements in segments; BYTES in the V2 binary form). Raises InferRefused for BYTES that are no UTF-8
    and not binary.
    """
