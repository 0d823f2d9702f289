"""KServe V2's shared memory extensions: register, status, unregister; transport-neutral.

System shared memory is opened by the supervisor and known to every worker before the answer goes out. CUDA shared
memory is not supported. Source of texts: Triton's `shared_memory_manager.cc`, `extension_shared_memory.md`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from server import errors
from server.worker.repository_handlers import Ask, Ended, then

CUDA_TEXT = (
    "CUDA shared memory is not supported by this server: send tensors in the request, or use system shared memory"
)


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


def no_regions(name: str) -> list[dict[str, Any]]:
    """Of a process without regions."""
    return []
