"""What a model takes and gives, for the readers and writers in C."""

from collections.abc import Iterable, Mapping, Sequence

class InferRefused(ValueError):
    """A request that cannot be served, or data that cannot be read.

    `code` is the number that server.errors maps to HTTP and gRPC statuses (1 invalid argument, 2 not found,
    3 unavailable, 4 unimplemented, 5 internal, 6 resource exhausted, 7 deadline); `text` is for the client, at most
    511 bytes of UTF-8.
    """

    code: int
    text: str
    def __init__(self, code: int, text: str) -> None: ...

class Spec:
    """One version of one model: owner of the C ModelSpec behind `.c`, immutable.

    `inputs` and `outputs` are rows (name, datatype, dims): the KServe V2 datatype name, at most 8 dimensions,
    -1 = free. `batched`: the first dimension of every tensor is -1 and counts rows. `max_batch`: rows of a
    server-side slab. `labels`: of some outputs, the names of their classes in order. `batch_axes`: of tensors whose
    batch axis is not the first; -1: the tensor has none, all rows share it. ValueError names the tensor when a row is
    wrong.
    """

    name: str
    version: str
    def __init__(
        self,
        name: str,
        version: str,
        batched: bool,
        max_batch: int,
        inputs: Iterable[tuple[str, str, Sequence[int]]],
        outputs: Iterable[tuple[str, str, Sequence[int]]],
        labels: Mapping[str, Sequence[str]] | None = None,
        batch_axes: Mapping[str, int] | None = None,
    ) -> None: ...
