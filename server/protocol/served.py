"""What a worker knows about the models it serves: plain data, filled by the process, read by every protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from server.protocol.assignment import Assignment

READY = "READY"
LOADING = "LOADING"
UNAVAILABLE = "UNAVAILABLE"
STATES = (READY, LOADING, UNAVAILABLE)


class TensorInfo(NamedTuple):
    """A model's input or output as the ONNX file declares it: batch axis included, -1 for a free axis."""

    name: str
    datatype: str
    shape: Sequence[int]


SYSTEM_SHARED_MEMORY = "system_shared_memory"


def extension_names(*, has_client_shm: bool = False) -> tuple[str, ...]:
    """Names of the extensions that work, Triton's and in its order. has_client_shm: clients may register memory."""
    return (
        "classification",
        "model_repository",
        "model_configuration",
        *((SYSTEM_SHARED_MEMORY,) if has_client_shm else ()),
        "binary_tensor_data",
        "parameters",
        "statistics",
        "trace",
        "logging",
    )


class ServerInfo(NamedTuple):
    """How the server presents itself; `extensions` as in Triton's metadata, only those that work."""

    name: str = "headrace"
    version: str = ""
    extensions: tuple[str, ...] = extension_names()


def _always_ready() -> str:
    return READY


def _no_reason() -> str:
    return ""


class ServedModel:
    """One version of one model. All is fixed for its life but `state()` and `reason()`, which are read when asked.

    `batched`: the first axis of every tensor is the batch axis. `max_batch` is the most rows of one run, 0 if not
    batched. `configured`: members that take the place of v2.config_document's. `reason()` says why the state is not
    READY, in words for the client: no paths.
    """

    __slots__ = (
        "batched",
        "batching_reason",
        "configured",
        "inputs",
        "instances",
        "max_batch",
        "max_queue_delay_us",
        "name",
        "outputs",
        "placed",
        "platform",
        "reason",
        "state",
        "version",
    )

    def __init__(
        self,
        name: str,
        version: str,
        inputs: Sequence[TensorInfo],
        outputs: Sequence[TensorInfo],
        *,
        batched: bool,
        max_batch: int,
        batching_reason: str = "",
        platform: str = "onnxruntime_onnx",
        state: Callable[[], str] = _always_ready,
        reason: Callable[[], str] = _no_reason,
        instances: int = 1,
        max_queue_delay_us: int = 0,
        placed: Callable[[], Assignment] = Assignment,
        configured: Mapping[str, Any] | None = None,
    ) -> None:
        self.name = name
        self.version = version
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self.batched = batched
        self.max_batch = max_batch
        self.batching_reason = batching_reason
        self.platform = platform
        self.state = state
        self.reason = reason
        self.instances = instances
        self.max_queue_delay_us = max_queue_delay_us
        self.placed = placed
        self.configured = configured or {}


class Catalog(Protocol):
    """The models of this process; implemented by the worker."""

    def models(self) -> Sequence[ServedModel]:
        """Every version of every model, ready or not."""
        ...

    def find(self, name: str, version: str | None) -> ServedModel | None:
        """The version asked for; without one, the version that a request without one gets."""
        ...

    def repository(self) -> Sequence[ServedModel]:
        """models(), and versions that are in the repository but are not to serve."""
        ...

    def refusals(self) -> Mapping[tuple[str, str], str]:
        """(name, version) -> why its files, as they are now, are not served; those before them may be."""
        ...

    def labelled(self, name: str, label: str) -> str | None:
        """The version of a model that a label (`stable`, `canary`) stands for."""
        ...


class StaticCatalog:
    """A catalogue over a fixed list; a request without a version gets the highest ready one, else the highest."""

    def __init__(self, models: Sequence[ServedModel]) -> None:
        self._models = tuple(models)

    def models(self) -> Sequence[ServedModel]:
        return self._models

    def find(self, name: str, version: str | None) -> ServedModel | None:
        found = [model for model in self._models if model.name == name and version in (None, model.version)]
        return max(found, key=lambda model: (model.state() == READY, int(model.version)), default=None)

    def repository(self) -> Sequence[ServedModel]:
        return self._models

    def refusals(self) -> Mapping[tuple[str, str], str]:
        return {}

    def labelled(self, name: str, label: str) -> str | None:
        return None
