"""An executor instance's side of a lane."""

from server._fast.device_turns import DeviceTurns
from server._fast.layout import Arena, Control

class LaneExecutor:
    """Instance `instance` of an arena's executor; used by that instance's thread alone.

    bell: this instance's eventfd; worker_bells: the workers' eventfds, by worker id; turns: of all instances of a model
    that runs on several devices.
    """

    arena: Arena
    control: Control
    def __init__(
        self,
        arena: Arena,
        control: Control,
        instance: int,
        bell: int,
        worker_bells: list[int],
        turns: DeviceTurns | None = None,
    ) -> None: ...
    def next_batch(self) -> tuple[int, int, int, int] | None:
        """Waits for a batch: (slab, rows, live rows, attempts); None when the lane shuts down. Releases the GIL.

        live < rows: some rows are gone, live_rows() says which to run. attempts >= 1: take_alone() row by row.
        """

    def live_rows(self) -> list[int]:
        """The rows of the present batch that are running, ascending."""

    #: shaped mode: bytes that are left for outputs in the present batch's slab
    output_room: int
    def requests(self) -> list[tuple[int, int]]:
        """(first row, rows) of each request of the present batch that runs as a whole, ascending.

        Rows of others, of which a part is still being filled, wait for a later pass.
        """

    def request_of(self, row: int) -> tuple[int, int]:
        """(first row, rows) of the request that a published row belongs to."""

    def put_back(self, first_row: int, row_count: int) -> None:
        """Running rows wait for a pass after workers have read the outputs that lie in the slab."""

    def reserve(self, size: int) -> int:
        """Takes so much of the room for outputs; the offset in the slab's data. ValueError above output_room."""

    def take_alone(self, row: int) -> bool:
        """Takes one row to be run alone; False when it is gone or is failed as poison."""

    def fail(self, row: int, code: int, text: str) -> None:
        """Fails one running row; the text (at most 250 bytes of UTF-8) is for its client."""

    def finish_alone(self, row: int) -> None:
        """Ends a row that was taken alone and wakes its worker."""

    def run_begins(self) -> int:
        """Marks the start of the model run; monotonic ns."""

    def ran(self, run_start_ns: int, row_count: int) -> None:
        """Counts one run of several for the present batch, which is then completed with ran_rows 0."""

    def complete(self, run_start_ns: int, ran_rows: int, is_one_run: bool = True) -> None:
        """Ends the present batch and wakes its workers; ran_rows 0: nothing to count.

        is_one_run: it took no second try and no refusal, so that its time says what so many rows cost.
        """
