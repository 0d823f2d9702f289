"""Accepting on a listener, and leaving it alone while the process is short of descriptors."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
from collections.abc import Callable, Sized

#: Descriptors that inference connections leave to everything else: probes and scrapes, what libraries open.
RESERVED_COUNT = 32
#: The loop calls listen() once more, which would cut the supervisor's queue down to its own default of 100.
BACKLOG = 4096


def connection_limit() -> int:
    """How many connections this process may hold, given its descriptor limit and what it has open now."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, limit - len(os.listdir("/proc/self/fd")) - RESERVED_COUNT)


class Listening:
    """Accepts connections on one listener of the supervisor's. The event loop's thread calls.

    At `limit` connections it stops to accept: further ones wait in the kernel's queue, where they cost nothing and are
    served when others have left. Accepting on instead would mean to take each one only to drop it.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        listener: socket.socket,
        factory: Callable[[], asyncio.BaseProtocol],
        connections: Sized,
        limit: int,
    ) -> None:
        self._loop = loop
        self._listener = listener
        self._factory = factory
        self._connections = connections
        self._limit = limit
        self._server: asyncio.Server | None = None
        self._is_closed = False
        self._last: list[asyncio.Task[object]] = []

    async def open(self) -> None:
        """Begins to accept, or goes on after a pause."""
        if self._server is None and not self._is_closed:
            # The loop closes the socket that it is given; the listener is needed again.
            is_unix = self._listener.family == socket.AF_UNIX
            create = self._loop.create_unix_server if is_unix else self._loop.create_server
            self._server = await create(self._connect, sock=self._listener.dup(), backlog=BACKLOG)

    def on_tick(self) -> None:
        """Once a second: goes on if there is room again."""
        if self._server is None and not self._is_closed and len(self._connections) < self._limit:
            self._loop.create_task(self.open())

    def close(self) -> None:
        """Accepts what waits in the kernel's queue, which closing would reset, and nothing more for good."""
        self._is_closed = True
        self._pause()
        while len(self._connections) + len(self._last) < self._limit:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                break
            connection.setblocking(False)
            self._last.append(self._loop.create_task(self._loop.connect_accepted_socket(self._factory, connection)))
        self._listener.close()

    def _connect(self) -> asyncio.BaseProtocol:
        if len(self._connections) + 1 >= self._limit:
            self._loop.call_soon(self._pause)
        return self._factory()

    def _pause(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            server.close()
