"""Shared segments: the arena of a model version, the control segment of a server."""

from collections.abc import Sequence
from typing import TypedDict

class WorkerState(TypedDict):
    """What a worker says of itself in the control segment."""

    pid: int
    ready: bool
    connections_open: int
    connections_total: int
    requests_total: int
    protocol_errors_total: int
    bytes_in_total: int
    bytes_out_total: int
    heartbeat_ns: int

class Segment:
    """A mapped memfd, sealed against resizing. `fd` stays open as long as the object lives."""

    fd: int
    size: int
    def __init__(self, fd: int) -> None: ...
    def buffer(self, offset: int, size: int) -> memoryview:
        """A writable view of `size` bytes at `offset`; it keeps the segment mapped. ValueError outside the segment."""

class Arena(Segment):
    """One model version's arena. `create` once per model, then `Arena(fd)` or fork in every other process."""

    slab_count: int
    row_capacity: int
    rows_mode: bool
    #: rows of equal shape share a slab; neither this nor rows_mode: a slab is one request
    shaped: bool
    #: shaped mode, set by the executor: requests are run one at a time, since the outputs do not follow the batch axis
    apart: bool
    #: the latency that 99 of 100 requests shall keep, 0 for none
    slo_ns: int
    #: shaped mode: the inputs that all rows of a slab share
    values: list[int]
    #: The queue stands, so the executor runs the newest slab first.
    newest_first: bool
    instance_count: int
    owner_count: int
    #: 0 loading, 1 ready, 2 restarting, 3 failed, 4 held back before a restart
    model_state: int
    model_reason: str
    #: the process that runs this lane, 0 while there is none
    executor_pid: int
    #: monotonic time at which the model became ready last
    ready_ns: int
    #: how often an instance found work by its time-out: 0 unless a wake-up was lost
    missed_wakeups: int
    #: single and shaped mode: (offset, bytes) of the space for outputs in a slab's data
    output_room: tuple[int, int]
    #: shaped mode with padding, the executor's: how many elements cost what a run does before its first; 0: unknown
    overhead_elements: int
    #: elements of the inputs that ran: as they came, and with padding; (0, 0) where rows are not padded
    element_counts: tuple[int, int]

    @staticmethod
    def create(
        *,
        inputs: Sequence[tuple[int, int, Sequence[int]]],
        outputs: Sequence[tuple[int, int, Sequence[int]]],
        rows_mode: bool,
        row_capacity: int,
        slab_count: int,
        owner_count: int,
        instance_count: int,
        shaped: bool = False,
        input_bytes: int = 0,
        output_bytes: int = 0,
        max_queue_delay_ns: int = 0,
        preferred_rows: int = 0,
        pads: Sequence[tuple[int, int, int, int, int, bytes]] | None = None,
        slo_ns: int = 0,
        values: Sequence[int] = (),
        levels: Sequence[tuple[int, int, int, bool, bool]] | None = None,
        default_level: int = 1,
    ) -> Arena:
        """Lays out a new arena; ValueError for counts outside the limits of layout.h.

        inputs, outputs: (dtype code, bytes per element, dims), -1 for a free dimension; in rows mode dims[0] is the
        batch axis and the others are fixed. shaped, with rows_mode False: dims[0] is the batch axis, others may be
        free. input_bytes, output_bytes: room for a slab's tensors in single and shaped mode. pads, with shaped: (input,
        axis, group, multiple, max, bytes of one element), those of a group side by side, groups numbered from 0.
        slo_ns: the latency that 99 of 100 requests shall keep, 0 for none. values, with shaped: inputs that all rows of
        a slab share, dims being -1 and one for each eight of their bytes. levels: for each priority level (slabs, most
        rows that wait or 0, timeout in ns or 0, whether late requests go behind the others, whether a request's own
        timeout counts where it is shorter); None: one level of all slabs.
        """

    def tensor(self, slab: int, tensor: int) -> tuple[int, int]:
        """Rows mode: (address, bytes per row) of a tensor's rows in a slab. Tensors are inputs, then outputs."""

    def tensor_buffer(self, slab: int, tensor: int) -> memoryview:
        """Rows mode: a tensor's rows in a slab, row_capacity * row_bytes bytes; numpy.frombuffer wraps it in place."""

    def slab_buffer(self, slab: int) -> memoryview:
        """The slab's data."""

    def slab_address(self, slab: int) -> int:
        """Address of the slab's data in this process."""

    def shape(self, slab: int, tensor: int) -> tuple[int, int, tuple[int, ...]]:
        """(offset in the slab's data, bytes, dims) of a tensor of the request in this slab.

        Shaped mode: of an input; the bytes of one row, and dims[0] is how many rows the slab holds.
        """

    def value_address(self, slab: int, tensor: int) -> int:
        """Shaped mode: where the bytes of an input lie that all rows of the slab share."""

    def set_shape(self, slab: int, tensor: int, offset: int, size: int, dims: tuple[int, ...]) -> None:
        """Single mode: says where the tensor lies; by the owner of the slab's present state. ValueError if outside."""

    def set_output(
        self,
        slab: int,
        output: int,
        first_row: int,
        row_count: int,
        offset: int,
        row_bytes: int,
        dims: tuple[int, ...],
        whole: bool = False,
    ) -> None:
        """Shaped mode: where the outputs of neighbouring rows lie; by the owner of the slab's present state.

        whole: one request's output that is not cut into rows; row_bytes are all of it and row_count is 1. ValueError
        if outside.
        """

    def output(self, slab: int, row: int, output: int) -> tuple[int, int, tuple[int, ...], bool]:
        """Shaped mode: (offset in the slab's data, bytes, dims, whole) of a row's output."""

    def extents(self, slab: int, row: int) -> tuple[int, ...]:
        """Shaped mode with padding: the length that each group of padded axes had in the row's request."""

    def count_elements(self, given: int, run: int) -> None:
        """Adds to element_counts; for the executor."""

    @property
    def placed(self) -> str:
        """Where the model runs, as server.models.assignment writes it; empty while its executor has not said so."""

    def set_placed(self, text: str) -> None: ...
    def set_state(self, state: int, reason: str = "") -> None:
        """By the executor while it lives, by the supervisor otherwise."""

    def shut_down(self) -> None:
        """Makes every instance return once it has finished what it holds; ring their bells afterwards."""

class Control(Segment):
    """The server's control segment: life-cycle flags by the supervisor, one page by each worker."""

    worker_count: int
    started_ns: int
    #: readiness is false
    draining: bool
    #: 0 no, 1 finish what is in flight, 2 and hurry
    stopping: int
    #: (workers, executors) started again after a death
    restarts: tuple[int, int]
    #: which levels are logged: by the supervisor, see server.log
    #: (workers, executors) started again because they stood still
    stuck: tuple[int, int]
    log_word: int
    def count_stuck(self, worker: bool) -> None: ...
    @staticmethod
    def create(worker_count: int, started_ns: int) -> Control:
        """A new control segment; started_ns is monotonic."""

    def count_restart(self, worker: bool) -> None: ...
    def page(self, worker: int) -> WorkerState: ...
    def set_trace(self, cell: int, left_count: int) -> None:
        """Counts a trace setting from the start: the next request is traced, and at most so many; below 0: no limit."""

    def trace_left(self, cell: int) -> int:
        """How many traces may still be written; -1: any number."""

    def clear_bell(self, worker: int) -> None:
        """Forgets a wake-up that died with its sender or its receiver."""

    def set_ready(self, worker: int, pid: int, ready: bool) -> None:
        """A worker says that it accepts connections, or the supervisor that it is gone."""

def new_memfd(label: str, size: int) -> int:
    """A memfd of `size` zero bytes that can neither shrink nor grow."""
