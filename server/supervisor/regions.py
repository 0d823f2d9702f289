"""System shared memory of clients on this host: opened once, here, and handed to every worker as a descriptor.

A region is a POSIX shared memory object that a client made and registered by its name. It is read and written with
pread and pwrite, never mapped: its owner may shrink it at any moment, which must cost that request and nothing else.
Off unless `--allow-client-shm` is given. Source of texts: Triton's `shared_memory_manager.cc`.
"""

from __future__ import annotations

import functools
import os
import re
import stat
from collections.abc import Callable
from typing import Any, NamedTuple

from server.supervisor.answers import ALREADY_EXISTS, INVALID_ARGUMENT, RESOURCE_EXHAUSTED, UNIMPLEMENTED, Answer
from server.supervisor.workers import Workers

#: Where shm_open keeps its objects.
FOLDER = "/dev/shm"
#: Triton's Python backend keeps its queues under such names.
RESERVED = ("triton_python_backend_shm_region_",)
MAX_REGIONS = 1024
MAX_BYTES = (1 << 63) - 1
# Without halves of surrogate pairs, which JSON can write and UTF-8 cannot.
_KEY = re.compile(r"/?[^/\0\ud800-\udfff]{1,254}")
_NAME = re.compile(r"[^\0\ud800-\udfff]{1,255}")


class Region(NamedTuple):
    """A registered region: `offset` and `byte_size` say which part of the object it is."""

    name: str
    key: str
    offset: int
    byte_size: int
    fd: int

    def document(self) -> dict[str, Any]:
        return {"name": self.name, "key": self.key, "offset": self.offset, "byte_size": self.byte_size}


class RefusedError(Exception):
    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.answer = Answer(code, text)


class Regions:
    """All regions of the server, by name."""

    def __init__(self, workers: Workers, *, allowed: bool) -> None:
        self._workers = workers
        self._allowed = allowed
        self._regions: dict[str, Region] = {}

    def shed(self) -> None:
        """In a child that serves no requests: closes the descriptors, else they would keep the memory."""
        for region in self._regions.values():
            os.close(region.fd)

    def all(self) -> list[Region]:
        return list(self._regions.values())

    def ask(self, call: str, arguments: dict[str, Any], done: Callable[[Answer], None]) -> None:
        """`register` or `unregister`; done(Answer) follows when every worker acts accordingly."""
        try:
            if not self._allowed:
                raise RefusedError(
                    UNIMPLEMENTED, "system shared memory is off: start the server with --allow-client-shm to allow it"
                )
            if call == "register":
                self._register(arguments)
            else:
                self._unregister(arguments["name"])
        except RefusedError as refused:
            done(refused.answer)
            return
        self._workers.tell({"kind": "confirm"}, then=functools.partial(done, Answer()))

    def _register(self, arguments: dict[str, Any]) -> None:
        name, key = arguments["name"], arguments["key"]
        offset, byte_size = arguments["offset"], arguments["byte_size"]
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise RefusedError(INVALID_ARGUMENT, "expected a region name of 1 to 255 characters")
        if not isinstance(key, str) or not _KEY.fullmatch(key) or key.strip("/") in (".", ".."):
            raise RefusedError(
                INVALID_ARGUMENT,
                f"failed to register shared memory region '{name}': expected the key of a POSIX shared memory object, "
                "one name with or without '/' in front",
            )
        if key.lstrip("/").startswith(RESERVED):
            raise RefusedError(INVALID_ARGUMENT, f"cannot register shared memory region '{name}': its key is reserved")
        if not all(type(number) is int and 0 <= number <= MAX_BYTES for number in (offset, byte_size)) or not byte_size:
            raise RefusedError(
                INVALID_ARGUMENT,
                f"failed to register shared memory region '{name}': expected an offset of at least 0 and a byte_size "
                "of at least 1",
            )
        known = self._regions.get(name)
        if known is not None:
            raise RefusedError(ALREADY_EXISTS, f"shared memory region '{name}' already in manager")
        if len(self._regions) >= MAX_REGIONS:
            raise RefusedError(
                RESOURCE_EXHAUSTED, f"{MAX_REGIONS} shared memory regions are registered: unregister some first"
            )
        region = Region(name, key, offset, byte_size, _open(name, key, offset + byte_size))
        self._regions[name] = region
        self._workers.tell({"kind": "region", **region.document()}, (region.fd,))

    def _unregister(self, name: str) -> None:
        """One region, or all of them without a name. An unknown one is not there afterwards either."""
        for region in self.all():
            if name in ("", region.name):
                del self._regions[region.name]
                os.close(region.fd)
                self._workers.tell({"kind": "no region", "name": region.name})


def _open(name: str, key: str, end: int) -> int:
    """A descriptor of the shared memory object. Raises RefusedError."""
    try:
        fd = os.open(
            f"{FOLDER}/{key.lstrip('/')}", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
        )
    except OSError:
        raise RefusedError(INVALID_ARGUMENT, f"Unable to open shared memory region: '{key}'") from None
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or status.st_size < end:
        os.close(fd)
        raise RefusedError(
            INVALID_ARGUMENT,
            f"failed to register shared memory region '{name}': invalid args: offset and byte_size ask for "
            f"{end} bytes, the object has {status.st_size if stat.S_ISREG(status.st_mode) else 'none to be shared'}",
        )
    return fd
