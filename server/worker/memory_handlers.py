"""KServe V2's shared memory extensions: register, status, unregister; transport-neutral.

System shared memory is opened by the supervisor and known to every worker before the answer goes out. Of CUDA shared
memory there are no regions, as with a Triton that was built without GPUs: clients that ask for the status or unregister
everything before they begin get on, none can be registered. Source of texts: Triton's `shared_memory_manager.cc`,
`http_server.cc` and `extension_shared_memory.md`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from server import errors
from server.worker.repository_handlers import Ask, Ended, then


class MemoryHandlers:
    """`regions` gives the rows of all registered regions, or of the one that is named."""

    def __init__(self, regions: Callable[[str], list[dict[str, Any]]], ask: Ask) -> None:
        self._regions = regions
        self._ask = ask

    def status(self, name: str = "") -> list[dict[str, Any]]:
        """One row for each region. Raises UnknownModelError if there is none of that name."""
        rows = self._regions(name)
        if name and not rows:
            raise errors.UnknownModelError(f"Unable to find system shared memory region: '{name}'")
        return rows

    def register(self, name: str, key: object, offset: object, byte_size: object, ended: Ended) -> None:
        arguments = {"name": name, "key": key, "offset": offset, "byte_size": byte_size}
        self._ask("region register", arguments, then(ended))

    def unregister(self, name: str, ended: Ended) -> None:
        """One region, or all with an empty name; requests in flight still use what they named."""
        self._ask("region unregister", {"name": name}, then(ended))


def cuda_status(name: str) -> list[dict[str, Any]]:
    """No rows. Raises UnknownModelError for a name."""
    if name:
        raise errors.UnknownModelError(f"Unable to find cuda shared memory region: '{name}'")
    return []


def refuse_cuda(name: str) -> NoReturn:
    """Raises what registering a CUDA region answers."""
    raise errors.InvalidArgumentError(
        f"failed to register CUDA shared memory region: '{name}', GPUs not supported: send tensors in the request, or "
        "use system shared memory"
    )


def no_regions(name: str) -> list[dict[str, Any]]:
    """Of a process without regions."""
    return []
