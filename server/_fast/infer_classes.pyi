"""Triton's classification extension."""

from collections.abc import Sequence

from server._fast.infer_spec import Spec

def classes(
    spec: Spec, output: int, shape: Sequence[int], segments: Sequence[bytes], class_count: int
) -> tuple[list[int], bytes]:
    """Shape and V2 binary form of the best class_count classes of output number `output`.

    `segments`: its packed values, cut between rows. Raises InferRefused for a datatype without scores.
    """
