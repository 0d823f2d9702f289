"""The worker processes: started, watched and started again, and told what changes while they serve.

Every message is sent to all workers and acknowledged by each; one that dies counts as having agreed, as its successor
is started with the state of that moment.
"""

from __future__ import annotations

import functools
import signal
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from server import log
from server._fast.layout import Control
from server.channel import Channel, ChannelClosed, Document, pair
from server.supervisor.children import Child, start_child
from server.supervisor.loop import Loop
from server.supervisor.restart_policy import restart_delay_ns

#: How long to wait when the system has no process or descriptor left for a child.
START_AGAIN_NS = 1_000_000_000
#: How soon a message is tried again that a worker did not take.
FLUSH_AGAIN_NS = 10_000_000


class Owner(Protocol):
    """What the pool needs of the supervisor."""

    def worker_main(self, index: int, channel: Channel) -> int:
        """Runs in the child."""
        ...

    def shed_for_worker(self, index: int) -> None:
        """Closes in the child what no worker needs."""
        ...

    def may_start_worker(self) -> bool: ...
    def on_worker_death(self, index: int, child: Child, status: int, restart_in_ns: int) -> bool:
        """Cleans up after it; whether it is started again after this time."""
        ...

    def on_message(self, index: int, document: Document) -> None:
        """A worker says something other than an acknowledgement."""
        ...


class Workers:
    """All workers of a server, by their number."""

    def __init__(self, loop: Loop, control: Control, owner: Owner) -> None:
        self._loop = loop
        self._control = control
        self._owner = owner
        self._children: dict[int, Child] = {}
        self._channels: dict[int, Channel] = {}
        self._served_ns: dict[int, deque[int]] = {}
        self._sequence = 0
        #: By sequence number: the workers that have not acknowledged, and what follows when all have.
        self._open: dict[int, tuple[set[int], Callable[[], None]]] = {}
        self._is_flush_due = False

    def __len__(self) -> int:
        return len(self._children)

    def items(self) -> list[tuple[int, Child]]:
        return list(self._children.items())

    def start(self, index: int) -> None:
        """Starts worker `index`, again and again while the system has no process left for it."""
        if not self._owner.may_start_worker():
            return
        try:
            ours, theirs = pair()
        except OSError as error:
            self._start_later(index, error)
            return

        def shed() -> None:
            for channel in (ours, *self._channels.values()):
                channel.close()
            for child in self._children.values():
                child.shed()
            self._owner.shed_for_worker(index)

        try:
            child = start_child(
                f"worker-{index}", f"headrace-w{index}", lambda: self._owner.worker_main(index, theirs), shed
            )
        except OSError as error:
            ours.close()
            theirs.close()
            self._start_later(index, error)
            return
        theirs.close()
        self._children[index] = child
        self._channels[index] = ours
        self._loop.watch(child.pidfd, functools.partial(self._on_death, index))
        self._loop.watch(ours.fileno(), functools.partial(self._on_readable, index))

    def _start_later(self, index: int, error: OSError) -> None:
        log.error(
            "child_not_started",
            child=f"worker-{index}",
            reason=error.strerror,
            again_in_ms=START_AGAIN_NS // 10**6,
        )
        self._loop.after(START_AGAIN_NS, functools.partial(self.start, index))

    def shed(self) -> None:
        """In a child of another kind: closes the workers' channels and handles."""
        for channel in self._channels.values():
            channel.close()
        for child in self._children.values():
            child.shed()

    def death_count(self, index: int) -> int:
        """How often this worker has died, of late."""
        return len(self._served_ns.get(index, ()))

    # -- messages

    def tell(
        self, document: Document, descriptors: tuple[int, ...] = (), then: Callable[[], None] | None = None
    ) -> None:
        """Sends a message to every worker; `then` follows when each has acted on it, or died."""
        self._sequence += 1
        self._open[self._sequence] = (set(self._channels), then or (lambda: None))
        for index, channel in self._channels.items():
            try:
                channel.send({**document, "seq": self._sequence}, descriptors)
            except OSError as error:
                # It must not serve what is no longer so; its successor starts with the present state.
                log.error("worker_not_told", worker=index, reason=error.strerror)
                self._children[index].kill(signal.SIGKILL)
        self._flush_later()
        self._settle()

    def answering(self, index: int) -> Callable[[Document], None]:
        """Sends a message to the worker that has this number now, which does not acknowledge it. Nobody gets it when
        that one has died: its successor has asked for nothing.
        """
        channel = self._channels[index]

        def answer(document: Document) -> None:
            if self._channels.get(index) is channel:
                channel.send(document)
                self._flush_later()

        return answer

    def _flush_later(self) -> None:
        if not self._is_flush_due and not all(channel.flush() for channel in list(self._channels.values())):
            self._is_flush_due = True
            self._loop.after(FLUSH_AGAIN_NS, self._flush)

    def _flush(self) -> None:
        self._is_flush_due = False
        self._flush_later()

    def _on_readable(self, index: int) -> None:
        channel = self._channels[index]
        try:
            while (message := channel.receive()) is not None:
                document, _ = message
                if document["kind"] == "ack":
                    self._acknowledged(document["seq"], index)
                else:
                    self._owner.on_message(index, document)
        except ChannelClosed:
            # Dead, or no longer able to hear what changes.
            self._loop.unwatch(channel.fileno())
            self._children[index].kill(signal.SIGKILL)

    def _acknowledged(self, sequence: int, index: int) -> None:
        if sequence in self._open:
            self._open[sequence][0].discard(index)
            self._settle()

    def _settle(self) -> None:
        for sequence in [number for number, (missing, _) in self._open.items() if not missing]:
            _, then = self._open.pop(sequence)
            then()

    # -- deaths

    def _on_death(self, index: int) -> None:
        child = self._children.pop(index)
        channel = self._channels.pop(index)
        self._loop.unwatch(child.pidfd)
        self._loop.unwatch(channel.fileno())
        channel.close()
        status = child.reap()
        served = self._served_ns.setdefault(index, deque(maxlen=32))
        served.append(time.monotonic_ns() - child.ready_ns if child.ready_ns else 0)
        delay_ns = restart_delay_ns(served)
        for missing, _ in self._open.values():
            missing.discard(index)
        is_wanted = self._owner.on_worker_death(index, child, status, delay_ns)
        self._settle()
        if is_wanted:
            self._loop.after(delay_ns, functools.partial(self.start, index))
