"""System shared memory regions that clients have registered, in a worker: what requests may name.

The supervisor opens and checks a region; a worker holds its descriptor as long as the region is registered or a request
that named it is not answered.
"""

from __future__ import annotations

from typing import Any

from server._fast.client_region import ClientRegion
from server._fast.frontend import Frontend


class Regions:
    """One event loop thread."""

    def __init__(self, frontend: Frontend) -> None:
        self._frontend = frontend
        self._documents: dict[str, dict[str, Any]] = {}

    def add(self, document: dict[str, Any], fd: int) -> None:
        """A region that requests can name from now on; the descriptor is this object's."""
        row = {key: document[key] for key in ("name", "key", "offset", "byte_size")}
        self._documents[row["name"]] = row
        name = row["name"].encode()
        self._frontend.regions[name] = ClientRegion(fd, name, row["offset"], row["byte_size"])

    def remove(self, name: str) -> None:
        """Requests can no longer name it."""
        del self._documents[name]
        del self._frontend.regions[name.encode()]

    def status(self, name: str = "") -> list[dict[str, Any]]:
        """name, key, offset, byte_size of every region, or of one: then empty if there is none of that name."""
        return [row for key, row in sorted(self._documents.items()) if name in ("", key)]
