"""A backend whose clients see some tensors in another shape than the model: reshape of config.pbtxt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from server.executor.backend import Backend, ProducedTensor, Run, TensorBuffer


class ReshapingBackend:
    """Requests that are run as they come get other dims; what is prepared has the model's dims already.

    reshaped: input -> the model's dims, output -> the clients'; -1 in front stands for the rows of the request.
    """

    def __init__(self, backend: Backend, reshaped: Mapping[str, tuple[int, ...]]) -> None:
        self._backend = backend
        self._reshaped = reshaped

    @property
    def device(self) -> str:
        return self._backend.device

    def prepare(self, inputs: Sequence[TensorBuffer], outputs: Sequence[TensorBuffer]) -> Run:
        return self._backend.prepare(inputs, outputs)

    def run(self, inputs: Sequence[TensorBuffer], output_names: Sequence[str]) -> list[ProducedTensor]:
        produced = self._backend.run(
            [one._replace(dims=self._dims(one.name, one.dims)) for one in inputs], output_names
        )
        return [one._replace(dims=self._dims(name, one.dims)) for name, one in zip(output_names, produced, strict=True)]

    def _dims(self, name: str, dims: tuple[int, ...]) -> tuple[int, ...]:
        target = self._reshaped.get(name)
        if target is None:
            return dims
        return (dims[0], *target[1:]) if target[:1] == (-1,) else target
