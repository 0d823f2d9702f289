"""An executor instance's side of a lane."""

from server._fast.layout import Arena, Control

class LaneExecutor:
    """Instance `instance` of an arena's executor; used by that instance's thread alone.

    bell: this instance's eventfd; worker_bells: the workers' eventfds, by worker id.
    """

    arena: Arena
    control: Control
    def __init__(self, arena: Arena, control: Control, instance: int, bell: int, worker_bells: list[int]) -> None: ...
    def next_batch(self) -> tuple[int, int, int, int] | None:
        """Waits for a batch: (slab, rows, live rows, attempts); None when the lane shuts down. Releases the GIL.

        live < rows: some rows are gone, live_rows() says which to run. attempts >= 2: take_alone() row by row.
        """

    def live_rows(self) -> list[int]:
        """The rows of the present batch that are running, ascending."""

    def take_alone(self, row: int) -> bool:
        """Takes one row to be run alone; False when it is gone or is failed as poison."""

    def fail(self, row: int, code: int, text: str) -> None:
        """Fails one running row; the text (at most 250 bytes of UTF-8) is for its client."""

    def finish_alone(self, row: int) -> None:
        """Ends a row that was taken alone and wakes its worker."""

    def run_begins(self) -> int:
        """Marks the start of the model run; monotonic ns."""

    def complete(self, run_start_ns: int, ran_rows: int) -> None:
        """Ends the present batch and wakes its workers; ran_rows 0: nothing was run."""
