"""The counters of all processes at one moment, as plain data: what metrics and statistics are written from.

Each process counts in its own block of shared memory per model (server/_fast/stats), being the only writer; a reader
copies the blocks into `Block`s and sums them. Counters of a process that ended stay: the supervisor keeps its block.

Durations are counted in base-2 exponential buckets of schema 3, eight to an octave: bucket k has what is over
2^((k-1)/8) us and up to 2^(k/8) us; bucket 0 also what is shorter, the last (k = 216) also what is longer.
Every eighth bound is a power of two, so the classic buckets are exact sums of these.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from server.errors import FAILURE_REASONS

BUCKETS_PER_OCTAVE = 8
BUCKET_COUNT = 217
#: Sizes 1..128 have a counter each, then (128, 256], (256, 512], ... (16384, 32768]; the last also has what is larger.
EXACT_BATCH_SIZES = 128
BATCH_SIZE_COUNT = EXACT_BATCH_SIZES + 8
#: Upper bound of each batch size counter, in rows.
BATCH_SIZE_BOUNDS_ROWS = (
    *range(1, EXACT_BATCH_SIZES + 1),
    *(EXACT_BATCH_SIZES << shift for shift in range(1, BATCH_SIZE_COUNT - EXACT_BATCH_SIZES + 1)),
)


def _floor_root(exponent: int) -> int:
    """floor(1000 * 2^(exponent/8)), exactly: the largest n with n^8 <= 1000^8 * 2^exponent."""
    power = 1000**8 << exponent
    low, high = 1000 << (exponent // 8), 1000 << (exponent // 8 + 1)
    while high - low > 1:
        middle = (low + high) // 2
        if middle**8 <= power:
            low = middle
        else:
            high = middle
    return low


_UPPER_NS: list[int] = []


def bucket_bounds_ns() -> list[int]:
    """The longest whole duration, in ns, of each bucket: the truth that the C code's bucket function is tested by."""
    if not _UPPER_NS:
        _UPPER_NS.extend(_floor_root(k) for k in range(BUCKET_COUNT))
    return _UPPER_NS


def bucket_index(duration_ns: int) -> int:
    """The bucket of a duration; the slow twin of the C code's."""
    return min(bisect_left(bucket_bounds_ns(), duration_ns), BUCKET_COUNT - 1)


def batch_size_index(size_rows: int) -> int:
    """The counter of a batch of 1 or more rows; the slow twin of the C code's."""
    return min(bisect_left(BATCH_SIZE_BOUNDS_ROWS, size_rows), BATCH_SIZE_COUNT - 1)


class Histogram(NamedTuple):
    """Durations: their sum and how many fell in each bucket; () stands for all zeros."""

    sum_ns: int = 0
    buckets: Sequence[int] = ()

    def observed_count(self) -> int:
        return sum(self.buckets)


class Block(NamedTuple):
    """Raw counters of one process and one model version. Counters only rise, but for the two gauges at the end.

    The worker that owned a request counts it: `request` (successes only: arrival of the complete request to the reply
    handed to the kernel), `queue` and `execute` (as this request saw them), `parse_ns`, `reply_ns`, `rows_count` (rows
    of successes). The executor counts per run: `exec_count`, `batch_sizes`, `busy_ns`.
    """

    model: str
    version: str
    success_count: int = 0
    #: In the order of errors.FAILURE_REASONS.
    failure_counts: Sequence[int] = (0,) * len(FAILURE_REASONS)
    failure_ns: int = 0
    request: Histogram = Histogram()
    queue: Histogram = Histogram()
    execute: Histogram = Histogram()
    parse_ns: int = 0
    reply_ns: int = 0
    exec_count: int = 0
    rows_count: int = 0
    busy_ns: int = 0
    #: BATCH_SIZE_COUNT counters, () for all zeros; and, where the executor keeps it, the run time of each.
    batch_sizes: Sequence[int] = ()
    batch_size_ns: Sequence[int] = ()
    #: Milliseconds since 1970, 0 for never.
    last_inference_ms: int = 0
    inflight_count: int = 0
    queue_depth_rows: int = 0
    #: Of the cost table: (rows, mean ns, upper ns) of each batch size that has run.
    batch_costs: Sequence[tuple[int, int, int]] = ()
    #: Where rows are padded, elements of the inputs that ran: as they came, and with padding.
    given_elements: int = 0
    run_elements: int = 0
    #: Of REJECTED: requests that could not have been answered in time.
    predicted_count: int = 0
    #: Rows whose run began after their deadline, and whose run ended after it.
    late_count: int = 0
    outlived_count: int = 0
    #: What a request would wait now, and whether the lane cannot keep up.
    predicted_wait_ns: int = 0
    overloaded: bool = False
    #: What memory allowed: rows of a run at most (0: no cap), runs cut in parts, what failed by itself.
    cap_rows: int = 0
    split_count: int = 0
    unfit_count: int = 0


def from_counters(model: str, version: str, counters: Mapping[str, Any]) -> Block:
    """The block that server/_fast/stats `read_block` read out."""
    return Block(
        model=model,
        version=version,
        success_count=counters["success_count"],
        failure_counts=counters["failure_counts"],
        failure_ns=counters["failure_ns"],
        request=Histogram(counters["request_sum_ns"], counters["request_counts"]),
        queue=Histogram(counters["queue_sum_ns"], counters["queue_counts"]),
        execute=Histogram(counters["execute_sum_ns"], counters["execute_counts"]),
        parse_ns=counters["parse_ns"],
        reply_ns=counters["reply_ns"],
        exec_count=counters["execution_count"],
        rows_count=counters["row_count"],
        busy_ns=counters["busy_ns"],
        batch_sizes=counters["batch_counts"],
        batch_size_ns=counters["batch_ns"],
        last_inference_ms=counters["last_inference_ms"],
        inflight_count=counters["inflight_count"],
        predicted_count=counters["predicted_count"],
        late_count=counters["late_count"],
        outlived_count=counters["outlived_count"],
    )


class Process(NamedTuple):
    """One living process: `slot` tells the processes of a role apart and is reused by a replacement."""

    role: str
    slot: int = 0
    cpu_seconds: float = 0.0
    resident_bytes: int = 0
    virtual_bytes: int = 0
    start_time_s: float = 0.0
    open_fds: int = 0
    max_fds: int = 0
    threads: int = 0


def executed_rows(block: Block) -> int:
    """Rows that the model ran, failures included: exact up to 128 rows a run, above that at least this many.

    Never falls from one snapshot to the next, as the sum of a histogram must not.
    """
    counted = 0
    least_rows = 1
    for bound_rows, count in zip(BATCH_SIZE_BOUNDS_ROWS, block.batch_sizes, strict=False):
        counted += least_rows * count
        least_rows = bound_rows + 1
    return max(counted, block.rows_count)


class Snapshot(NamedTuple):
    """All processes at one moment. `models` is keyed by (name, version)."""

    models: Mapping[tuple[str, str], Block]
    processes: Sequence[Process] = ()
    #: Open connections, and those accepted so far.
    connection_count: int = 0
    accepted_count: int = 0
    #: (role, cause) -> restarts.
    restarts: Mapping[tuple[str, str], int] = {}
    #: (name, version) -> resident memory of its executor.
    executor_bytes: Mapping[tuple[str, str], int] = {}
    #: (name, version) -> why its files, as they are now, are not served.
    refusals: Mapping[tuple[str, str], str] = {}


def merge(blocks: Iterable[Block]) -> dict[tuple[str, str], Block]:
    """The sum of all processes' blocks, one per model version."""
    grouped: dict[tuple[str, str], list[Block]] = {}
    for block in blocks:
        grouped.setdefault((block.model, block.version), []).append(block)
    return {key: group[0] if len(group) == 1 else _sum_blocks(group) for key, group in grouped.items()}


def _sum_blocks(group: list[Block]) -> Block:
    return Block(
        model=group[0].model,
        version=group[0].version,
        success_count=sum(block.success_count for block in group),
        failure_counts=_sum_lists([block.failure_counts for block in group]),
        failure_ns=sum(block.failure_ns for block in group),
        request=_sum_histograms([block.request for block in group]),
        queue=_sum_histograms([block.queue for block in group]),
        execute=_sum_histograms([block.execute for block in group]),
        parse_ns=sum(block.parse_ns for block in group),
        reply_ns=sum(block.reply_ns for block in group),
        exec_count=sum(block.exec_count for block in group),
        rows_count=sum(block.rows_count for block in group),
        busy_ns=sum(block.busy_ns for block in group),
        batch_sizes=_sum_lists([block.batch_sizes for block in group]),
        batch_size_ns=_sum_lists([block.batch_size_ns for block in group]),
        last_inference_ms=max(block.last_inference_ms for block in group),
        inflight_count=sum(block.inflight_count for block in group),
        queue_depth_rows=sum(block.queue_depth_rows for block in group),
        predicted_count=sum(block.predicted_count for block in group),
        late_count=sum(block.late_count for block in group),
        outlived_count=sum(block.outlived_count for block in group),
        predicted_wait_ns=max(block.predicted_wait_ns for block in group),
        overloaded=any(block.overloaded for block in group),
        batch_costs=next((block.batch_costs for block in reversed(group) if block.batch_costs), ()),
        given_elements=sum(block.given_elements for block in group),
        run_elements=sum(block.run_elements for block in group),
        cap_rows=max(block.cap_rows for block in group),
        split_count=sum(block.split_count for block in group),
        unfit_count=sum(block.unfit_count for block in group),
    )


def _sum_histograms(histograms: list[Histogram]) -> Histogram:
    return Histogram(
        sum(histogram.sum_ns for histogram in histograms),
        _sum_lists([histogram.buckets for histogram in histograms]),
    )


def _sum_lists(lists: list[Sequence[int]]) -> Sequence[int]:
    """Element-wise sum; empty lists are all zeros."""
    filled = [one for one in lists if one]
    if len(filled) < 2:
        return filled[0] if filled else ()
    return list(map(sum, zip(*filled, strict=True)))
