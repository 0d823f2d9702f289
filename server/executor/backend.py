"""What a runner needs of a model runtime. ONNX Runtime is the one implementation; tests bring puppets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol


class TensorBuffer(NamedTuple):
    """A tensor that lies ready in memory: name of the model's input or output, datatype code, dims, address.

    BYTES: there are as many elements in the V2 binary form as dims say.
    """

    name: str
    datatype: int
    dims: tuple[int, ...]
    address: int


class ProducedTensor(NamedTuple):
    """An output that the runtime allocated, BYTES in the V2 binary form: its memory lives as long as `owner` does."""

    dims: tuple[int, ...]
    address: int
    size_bytes: int
    owner: object


class Run(Protocol):
    """A prepared run over fixed memory: call it as often as the memory is filled anew. Raises ModelError."""

    def __call__(self) -> None: ...


class ModelError(Exception):
    """The model refused these inputs; the text may be shown to the client."""


class OutOfMemoryError(ModelError):
    """Memory ran out while it ran: with fewer rows at once it may not."""


class DeviceLostError(Exception):
    """The device answers every call with an error from now on: only a new process gets it back. No ModelError: whoever
    runs the model does not go on.
    """


#: What says that some inputs have no result: Python itself may find no memory to gather them.
REFUSALS = (ModelError, MemoryError)


def is_out_of_memory(error: Exception) -> bool:
    """Of REFUSALS: whether fewer rows at once may do."""
    return isinstance(error, (OutOfMemoryError, MemoryError))


class LoadError(Exception):
    """The model cannot be loaded; the text names the reason."""


class Backend(Protocol):
    """A loaded model. Runs may go on in several threads at once."""

    @property
    def device(self) -> str:
        """The device that runs it, for people: `cpu`, `cuda:0`."""
        ...

    def prepare(self, inputs: Sequence[TensorBuffer], outputs: Sequence[TensorBuffer]) -> Run:
        """Binds inputs and outputs where they lie. O(tensors), once per place and batch size."""
        ...

    def run(self, inputs: Sequence[TensorBuffer], output_names: Sequence[str]) -> list[ProducedTensor]:
        """Runs once with outputs of whatever shape comes out. Raises ModelError."""
        ...
