"""Run time that each lane of an executor process has had, and which goes next: server.batching.sharing in C."""

class Sharing:
    """The books of lanes 0 to lane_count - 1; any thread. The reference is server.batching.sharing.Sharing."""

    def __init__(self, lane_count: int) -> None: ...
    def take(self, due: list[tuple[int, int]], now_ns: int) -> tuple[int, int]:
        """Chooses of lanes with a batch that is due, (lane, deadline or 0): the lane and what it is charged."""

    def ran(self, lane: int, charged_ns: int, ns: int) -> None:
        """A run has ended that took so long."""

    def back(self, lane: int, charged_ns: int) -> None:
        """Somebody else has taken the batch."""

    def clear(self, lane: int) -> None:
        """The number is given to another lane."""

    def served_ns(self, lane: int) -> int:
        """Run time that the lane has had, counted from where the others were when it came."""
