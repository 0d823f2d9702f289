"""One instance of an executor that serves several lanes."""

from server._fast.lane_executor import LaneExecutor
from server._fast.lane_sharing import Sharing

class SharedLanes:
    """Used by the instance's thread alone, but for interrupt(). bells: eventfds of all instances, of every lane too."""

    sharing: Sharing
    #: executors that died with the batch that next_lane() took last
    attempts: int
    def __init__(self, sharing: Sharing, instance: int, bells: list[int]) -> None: ...
    def add(self, number: int, lane: LaneExecutor) -> None:
        """From now on batches of this lane are taken. Its next_batch() gives each batch once, and then None."""

    def remove(self, number: int) -> None:
        """Takes no more batches of the lane; the present one is complete."""

    def interrupt(self) -> None:
        """Has next_lane() return None. Any thread."""

    def next_lane(self) -> int | None:
        """Waits for a batch: the number of its lane; None after interrupt(); ~number of a lane that shuts down.

        The batch before it is complete. Releases the GIL.
        """

    def end_turn(self) -> None:
        """Counts the run time of the batch that was taken last."""
