"""One instance of an executor that serves several models: lanes come and go while it runs, each with its runner."""

from __future__ import annotations

from collections.abc import Callable
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


class SharedServe:
    """run() belongs to the instance's thread, everything else to any.

    on_over(number) is called in that thread when a lane has shut down and this instance holds nothing of it any more.
    """

    def __init__(self, lanes: SharedLanes, on_over: Callable[[int], None]) -> None:
        self._lanes = lanes
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
            else:
                self._runners[number].serve()

    def _take_changes(self) -> bool:
        while not self._coming.empty():
            coming = self._coming.get()
            if coming is None:
                return False
            self._lanes.add(coming.number, coming.lane)
            self._runners[coming.number] = coming.runner
        return True
