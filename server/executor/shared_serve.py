"""One instance of an executor that serves several models: lanes come and go while it runs, each with its runner."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import NamedTuple, Protocol

from server._fast.lane_executor import LaneExecutor
from server._fast.shared_lanes import SharedLanes


class Runner(Protocol):
    """A runner of server.executor.runner or shaped_runner, made with the lane's LaneExecutor."""

    def serve(self) -> None:
        """Runs the batches that the lane gives: here the one that was granted."""
        ...


class _Coming(NamedTuple):
    number: int
    lane: LaneExecutor
    runner: Runner


class Turns:
    """Who runs beside whom. A batch that an executor died with runs while no other does: if the process dies again, it
    is known of which. Any thread.
    """

    def __init__(self) -> None:
        #: With one instance nothing runs at the same time, and nothing is asked.
        self.instance_count = 1
        self._changed = threading.Condition()
        self._running = 0
        self._alone_waiting = 0

    @contextlib.contextmanager
    def turn(self, is_alone: bool) -> Iterator[None]:
        """For the run of a batch; waits until it may."""
        with self._changed:
            if is_alone:
                self._alone_waiting += 1
                self._changed.wait_for(lambda: self._running == 0)
                self._alone_waiting -= 1
                self._running = -1
            else:
                # One that has to be alone would never come on between others.
                self._changed.wait_for(lambda: self._running >= 0 and not self._alone_waiting)
                self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1 if self._running > 0 else -1
                self._changed.notify_all()


class SharedServe:
    """run() belongs to the instance's thread, everything else to any.

    on_over(number) is called in that thread when a lane has shut down and this instance holds nothing of it any more.
    """

    def __init__(self, lanes: SharedLanes, on_over: Callable[[int], None], turns: Turns | None = None) -> None:
        self._lanes = lanes
        self._turns = turns or Turns()
        self._on_over = on_over
        self._runners: dict[int, Runner] = {}
        self._coming: SimpleQueue[_Coming | None] = SimpleQueue()

    def add(self, number: int, lane: LaneExecutor, runner: Runner) -> None:
        """A lane whose model is loaded. `number` is free in the instances' Sharing."""
        self._coming.put(_Coming(number, lane, runner))
        self._lanes.interrupt()

    def stop(self) -> None:
        """Has run() return after the present batch."""
        self._coming.put(None)
        self._lanes.interrupt()

    def run(self) -> None:
        """Serves until stop()."""
        while True:
            number = self._lanes.next_lane()
            if number is None:
                if not self._take_changes():
                    return
            elif number < 0:
                self._lanes.remove(~number)
                del self._runners[~number]
                self._on_over(~number)
            elif self._turns.instance_count == 1:
                self._runners[number].serve()
            else:
                with self._turns.turn(is_alone=self._lanes.attempts > 0):
                    self._runners[number].serve()

    def _take_changes(self) -> bool:
        while not self._coming.empty():
            coming = self._coming.get()
            if coming is None:
                return False
            self._lanes.add(coming.number, coming.lane)
            self._runners[coming.number] = coming.runner
        return True
