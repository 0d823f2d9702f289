"""Segments of shared memory: the arena of a model version and the control segment of a server.

A segment is a memfd without a name, sealed against resizing, handed over by inheritance or over a Unix socket. This
module lays it out and maps it; it does not know what the words in it mean (slab_ring does). The creating process may
drop its Segment as soon as others hold the descriptor; the memory goes with the last holder. Mapping is O(1): pages
come when they are first touched. Any thread may call; nothing here changes after construction.
"""

import fcntl
import os

from cpython.buffer cimport PyBuffer_FillInfo
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset
from posix.mman cimport MAP_FAILED, MAP_SHARED, PROT_READ, PROT_WRITE, mmap, munmap

from server._fast.atomics cimport (
    half_load,
    half_store,
    relaxed_load,
    relaxed_load_half,
    relaxed_store,
    relaxed_store_half,
    shared_add,
)
from server._fast.clock cimport now_ns

cdef uint64_t LINE = 64
cdef uint64_t PAGE = 4096


cdef uint64_t align(uint64_t value, uint64_t to) noexcept nogil:
    return (value + to - 1) // to * to


cdef class Segment:
    """A mapped memfd. `fd` stays open as long as the object lives."""

    def __cinit__(self, int fd, *args):
        cdef void* base
        self.fd = -1
        self.base = NULL
        self.size = os.fstat(fd).st_size
        base = mmap(NULL, self.size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)
        if base == MAP_FAILED:
            raise MemoryError(f"cannot map a shared segment of {self.size} bytes: raise the limit of ulimit -v")
        self.base = <char*>base
        self.fd = fd

    def __dealloc__(self):
        if self.base != NULL:
            munmap(self.base, self.size)
        if self.fd >= 0:
            os.close(self.fd)

    def buffer(self, uint64_t offset, uint64_t size):
        """A writable memoryview of `size` bytes at `offset`; it keeps the segment mapped."""
        if offset > self.size or size > self.size - offset:
            raise ValueError(f"[{offset}, {offset + size}) is outside a segment of {self.size} bytes")
        return memoryview(SegmentSlice(self, offset, size))


cdef class SegmentSlice:
    cdef Segment segment
    cdef char* start
    cdef Py_ssize_t length

    def __cinit__(self, Segment segment, uint64_t offset, uint64_t size):
        self.segment = segment
        self.start = segment.base + offset
        self.length = size

    def __getbuffer__(self, Py_buffer* view, int flags):
        PyBuffer_FillInfo(view, self, self.start, self.length, 0, flags)


def new_memfd(str label, uint64_t size):
    """A memfd of `size` zero bytes that can neither shrink nor grow. `label` shows in /proc/PID/maps only."""
    fd = os.memfd_create(label, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(fd, size)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    except BaseException:
        os.close(fd)
        raise
    return fd


cdef class Arena(Segment):
    """One model version's arena, mapped. Use create() once per model, then Arena(fd) in every other process."""

    def __init__(self, int fd):
        self.attach()

    cdef int attach(self) except -1:
        cdef ArenaHeader* h = <ArenaHeader*>self.base
        cdef ArenaView* v = &self.view
        if self.size < sizeof(ArenaHeader) or h.magic != ARENA_MAGIC:
            raise ValueError("not an arena: bad magic number")
        if h.version != LAYOUT_VERSION or h.header_bytes != sizeof(ArenaHeader) or h.total_bytes != self.size:
            raise ValueError(
                f"arena layout {h.version}, {h.total_bytes} bytes: expected layout {LAYOUT_VERSION}, {self.size} bytes"
            )
        v.header = h
        v.lane = <Lane*>(self.base + h.lane_offset)
        v.cost = <CostTable*>(self.base + h.cost_offset)
        v.tensors = <TensorLayout*>(self.base + h.tensors_offset)
        v.slabs = <SlabHeader*>(self.base + h.slabs_offset)
        v.rows = <uint64_t*>(self.base + h.rows_offset)
        v.meta = <RowMeta*>(self.base + h.meta_offset)
        v.failures = <RowFailure*>(self.base + h.failures_offset)
        v.shapes = <TensorShape*>(self.base + h.shapes_offset)
        v.stats = <StatsBlock*>(self.base + h.stats_offset)
        v.quarantine = <QuarantineEntry*>(self.base + h.quarantine_offset)
        v.levels = <QueueLevel*>(self.base + h.levels_offset)
        v.data = self.base + h.data_offset
        v.data_stride = h.data_stride
        v.slab_count = h.slab_count
        v.row_capacity = h.row_capacity
        v.mode = h.mode
        v.tensor_count = h.input_count + h.output_count
        v.shape_stride = h.shape_stride
        v.padding = NULL
        v.extents = NULL
        if h.padding_offset:
            v.padding = <Padding*>(self.base + h.padding_offset)
            v.extents = <int64_t*>(v.padding + 1)
        v.level_count = h.level_count
        v.is_ranked = h.is_ranked
        return 0

    @staticmethod
    def create(*, list inputs, list outputs, bint rows_mode, int row_capacity, int slab_count, int owner_count,
               int instance_count, bint shaped=False, uint64_t input_bytes=0, uint64_t output_bytes=0,
               uint64_t max_queue_delay_ns=0, uint32_t preferred_rows=0, list pads=None, uint64_t slo_ns=0,
               object values=(), list levels=None, int default_level=1):
        """Lays out a new arena.

        inputs, outputs: (dtype code, bytes per element, dims) with -1 for a free dimension; in rows mode dims[0] is
        the batch axis and all others are fixed. shaped, instead of rows_mode: dims[0] is the batch axis, others may be
        free. input_bytes, output_bytes: room for a slab's tensors when rows_mode is false. pads, with shaped: (input,
        axis, group, multiple, max, bytes of one element), those of a group side by side, groups numbered from 0.
        values, with shaped: inputs that all rows of a slab share, dims being -1 and one for each eight of their bytes.
        levels: for each priority level (slabs, most rows that wait or 0, timeout ns or 0, delays, allow_override);
        None: one of all slabs.
        """
        if not 1 <= slab_count <= MAX_SLABS:
            raise ValueError(f"slab_count {slab_count}: expected 1..{MAX_SLABS}")
        if not 1 <= row_capacity <= MAX_ROWS:
            raise ValueError(f"row_capacity {row_capacity}: expected 1..{MAX_ROWS}")
        if not 1 <= owner_count <= MAX_OWNERS or not 1 <= instance_count <= MAX_INSTANCES:
            raise ValueError(f"{owner_count} owners, {instance_count} instances: at most {MAX_OWNERS}, {MAX_INSTANCES}")
        levels = levels or [(slab_count, 0, 0, False, False)]
        if not 1 <= default_level <= len(levels) <= MAX_LEVELS:
            raise ValueError(f"{len(levels)} priority levels, {default_level} by default: expected 1..{MAX_LEVELS}")
        cdef uint64_t tensor_count = len(inputs) + len(outputs)
        cdef uint64_t rows = <uint64_t>slab_count * row_capacity
        cdef ArenaHeader h
        memset(&h, 0, sizeof(h))
        h.magic = ARENA_MAGIC
        h.version = LAYOUT_VERSION
        h.header_bytes = sizeof(ArenaHeader)
        h.mode = MODE_ROWS if rows_mode else (MODE_SHAPED if shaped else MODE_SINGLE)
        h.shape_stride = tensor_count
        if h.mode == MODE_SHAPED:
            h.shape_stride = len(inputs) + row_capacity * len(outputs)
        h.slab_count = slab_count
        h.row_capacity = row_capacity
        h.input_count = len(inputs)
        h.output_count = len(outputs)
        h.owner_count = owner_count
        h.instance_count = instance_count
        h.input_bytes = align(input_bytes, LINE)
        h.output_bytes = align(output_bytes, LINE)
        h.lane_offset = sizeof(ArenaHeader)
        h.cost_offset = align(h.lane_offset + sizeof(Lane), LINE)
        h.tensors_offset = h.cost_offset + sizeof(CostTable)
        h.slabs_offset = h.tensors_offset + tensor_count * sizeof(TensorLayout)
        h.rows_offset = h.slabs_offset + slab_count * sizeof(SlabHeader)
        h.meta_offset = align(h.rows_offset + rows * 8, LINE)
        h.failures_offset = align(h.meta_offset + rows * sizeof(RowMeta), LINE)
        h.shapes_offset = align(h.failures_offset + rows * sizeof(RowFailure), LINE)
        h.stats_offset = align(h.shapes_offset + <uint64_t>slab_count * h.shape_stride * sizeof(TensorShape), LINE)
        h.quarantine_offset = align(h.stats_offset + (owner_count + 1) * sizeof(StatsBlock), LINE)
        h.level_count = len(levels)
        h.default_level = default_level
        h.is_ranked = len(levels) > 1 or any([delays or timeout_ns for _, _, timeout_ns, delays, _ in levels])
        h.levels_offset = align(h.quarantine_offset + QUARANTINE_ENTRIES * sizeof(QuarantineEntry), LINE)
        h.data_offset = align(h.levels_offset + h.level_count * sizeof(QueueLevel), PAGE)
        cdef uint64_t group_count = 0
        if pads:
            if not shaped or len(pads) > MAX_PADS:
                raise ValueError(f"{len(pads)} rules of padding: at most {MAX_PADS}, and in shaped mode only")
            group_count = 1 + max([pad[2] for pad in pads])
            h.padding_offset = align(h.levels_offset + h.level_count * sizeof(QueueLevel), LINE)
            h.data_offset = align(h.padding_offset + sizeof(Padding) + rows * group_count * 8, PAGE)
        cdef uint64_t offset = 0
        cdef uint64_t row_bytes
        layouts = []
        for dtype, item_bytes, dims in [*inputs, *outputs]:
            if len(dims) > MAX_RANK:
                raise ValueError(f"a tensor of rank {len(dims)}: at most {MAX_RANK} dimensions")
            row_bytes = 0
            if rows_mode:
                row_bytes = item_bytes
                for dim in dims[1:]:
                    row_bytes *= <uint64_t>dim
            layouts.append((offset, row_bytes, dtype, item_bytes, dims))
            offset = align(offset + row_bytes * row_capacity, LINE)
        h.data_stride = align(offset if rows_mode else h.input_bytes + h.output_bytes, PAGE)
        h.total_bytes = h.data_offset + slab_count * max(h.data_stride, PAGE)
        fd = new_memfd("headrace-arena", h.total_bytes)
        cdef Segment raw = Segment(fd)
        (<ArenaHeader*>raw.base)[0] = h
        cdef TensorLayout* t = <TensorLayout*>(raw.base + h.tensors_offset)
        cdef Lane* lane = <Lane*>(raw.base + h.lane_offset)
        for index, (at, size, dtype, item_bytes, dims) in enumerate(layouts):
            t[<int>index].slab_offset = at
            t[<int>index].row_bytes = size
            t[<int>index].dtype = dtype
            t[<int>index].item_bytes = item_bytes
            t[<int>index].rank = len(dims)
            t[<int>index].is_value = index in values
            for axis, dim in enumerate(dims):
                t[<int>index].dims[<int>axis] = dim
        cdef Padding* padding = <Padding*>(raw.base + h.padding_offset)
        cdef PadRule* rule
        for index, (tensor, axis, group, multiple, longest, value) in enumerate(pads or ()):
            rule = &padding.rules[<int>index]
            rule.tensor = tensor
            rule.axis = axis
            rule.group = group
            rule.multiple = multiple
            rule.max = longest
            memcpy(rule.value, <const char*>value, min(len(value), 8))
            padding.rule_count = len(pads)
            padding.group_count = group_count
        lane.max_queue_delay_ns = max_queue_delay_ns
        lane.preferred_rows = preferred_rows
        cdef CostTable* cost = <CostTable*>(raw.base + h.cost_offset)
        cost.drift = COST_DRIFT_ONE
        cost.slo_ns = slo_ns
        while cost.cell_count == 0 or cost.cells[cost.cell_count - 1].rows < h.row_capacity:
            cost.cells[cost.cell_count].rows = min(<uint32_t>1 << cost.cell_count, h.row_capacity)
            cost.cell_count += 1
        cdef QueueLevel* level = <QueueLevel*>(raw.base + h.levels_offset)
        for slabs, max_rows, timeout_ns, delays, allow_override in levels:
            level.slab_count = slabs
            level.max_rows = max_rows
            level.timeout_ns = timeout_ns
            level.delays = delays
            level.allow_override = allow_override
            level += 1
        return Arena(os.dup(raw.fd))

    @property
    def slab_count(self):
        return self.view.slab_count

    @property
    def row_capacity(self):
        return self.view.row_capacity

    @property
    def rows_mode(self):
        return self.view.mode == MODE_ROWS

    @property
    def shaped(self):
        return self.view.mode == MODE_SHAPED

    @property
    def slo_ns(self):
        """The lane's latency target, 0 for none."""
        return self.view.cost.slo_ns

    @property
    def values(self):
        """Shaped mode: the inputs that all rows of a slab share."""
        return [index for index in range(self.view.header.input_count) if self.view.tensors[<int>index].is_value]

    @property
    def instance_count(self):
        return self.view.header.instance_count

    @property
    def owner_count(self):
        return self.view.header.owner_count

    def tensor(self, int slab, int tensor):
        """Where a tensor's rows lie (rows mode): (address, bytes per row). Tensors are inputs, then outputs."""
        cdef TensorLayout* t = &self.view.tensors[tensor]
        return <size_t>(self.view.data + slab * self.view.data_stride + t.slab_offset), t.row_bytes

    def slab_address(self, int slab):
        """Address of the slab's data in this process."""
        return <size_t>(self.view.data + slab * self.view.data_stride)

    @property
    def model_state(self):
        """0 loading, 1 ready, 2 restarting, 3 failed, 4 held back before a restart."""
        return half_load(&self.view.lane.model_state)

    @property
    def model_reason(self):
        """Why the model is not ready, or an empty text."""
        cdef uint32_t n = min(half_load(&self.view.lane.reason_bytes), <uint32_t>REASON_TEXT_BYTES)
        return self.view.lane.reason[:n].decode("utf-8", "replace")

    @property
    def placed(self):
        """What set_placed was given, or nothing."""
        cdef uint32_t n = min(half_load(&self.view.lane.placed_bytes), <uint32_t>PLACED_TEXT_BYTES)
        return self.view.lane.placed[:n].decode("utf-8", "replace")

    def set_placed(self, str text):
        """Where the model runs (executor)."""
        data = text.encode("utf-8", "replace")[:PLACED_TEXT_BYTES]
        half_store(&self.view.lane.placed_bytes, 0)
        memcpy(self.view.lane.placed, <const char*>data, len(data))
        half_store(&self.view.lane.placed_bytes, len(data))

    def set_state(self, uint32_t state, str reason=""):
        """Written by the executor while it lives, by the supervisor otherwise."""
        text = reason.encode("utf-8", "replace")
        if len(text) > REASON_TEXT_BYTES:
            text = text[:REASON_TEXT_BYTES - 3].decode("utf-8", "ignore").encode() + "…".encode()
        half_store(&self.view.lane.reason_bytes, 0)
        memcpy(self.view.lane.reason, <const char*>text, len(text))
        half_store(&self.view.lane.reason_bytes, len(text))
        if state == MODEL_READY:
            relaxed_store(&self.view.lane.ready_ns, now_ns())
        half_store(&self.view.lane.model_state, state)

    @property
    def executor_pid(self):
        """The process that runs this lane, 0 while there is none."""
        return relaxed_load_half(&self.view.lane.executor_pid)

    @executor_pid.setter
    def executor_pid(self, uint32_t pid):
        relaxed_store_half(&self.view.lane.executor_pid, pid)

    @property
    def ready_ns(self):
        """Monotonic time at which the model became ready last."""
        return relaxed_load(&self.view.lane.ready_ns)

    def shut_down(self):
        """Makes every instance return once it has finished what it holds; ring their bells afterwards."""
        half_store(&self.view.lane.shutdown, 1)

    @property
    def missed_wakeups(self):
        """How often an instance found work by its time-out: 0 unless a wake-up was lost."""
        return relaxed_load(&self.view.lane.missed_wakeups)

    def slab_buffer(self, int slab):
        """The slab's data as a writable memoryview of bytes."""
        return self.buffer(self.view.header.data_offset + slab * self.view.data_stride, self.view.data_stride)

    def tensor_buffer(self, int slab, int tensor):
        """A tensor's rows in a slab as a writable memoryview of row_capacity * row_bytes bytes (rows mode)."""
        cdef TensorLayout* t = &self.view.tensors[tensor]
        return self.buffer(
            self.view.header.data_offset + slab * self.view.data_stride + t.slab_offset,
            t.row_bytes * self.view.row_capacity,
        )

    def shape(self, int slab, int tensor):
        """Where a tensor of the request in this slab lies: (offset in the slab's data, bytes, dims).

        Shaped mode: inputs only, the bytes of one row, and dims[0] is the slab's capacity.
        """
        cdef TensorShape* s = &self.view.shapes[<uint64_t>slab * self.view.shape_stride + tensor]
        return s.offset, s.bytes, tuple([s.dims[axis] for axis in range(s.rank)])

    def value_address(self, int slab, int tensor):
        """Shaped mode: where the bytes of an input lie that all rows of the slab share."""
        return <size_t>&input_shape(&self.view, slab, tensor).dims[1]

    def set_shape(self, int slab, int tensor, uint64_t offset, uint64_t size, tuple dims):
        """Single mode: says where the tensor lies. The owner of the slab's present state calls."""
        cdef TensorShape* s = &self.view.shapes[<uint64_t>slab * self.view.shape_stride + tensor]
        if offset + size > self.view.data_stride or len(dims) > MAX_RANK:
            raise ValueError(f"{size} bytes at {offset}, rank {len(dims)}: outside the slab, or over {MAX_RANK} axes")
        s.offset = offset
        s.bytes = size
        s.rank = len(dims)
        for axis, dim in enumerate(dims):
            s.dims[<int>axis] = dim

    def set_output(self, int slab, int output, uint32_t first_row, uint32_t row_count, uint64_t offset,
                   uint64_t row_bytes, tuple dims, bint whole=False):
        """Shaped mode: says where the outputs of neighbouring rows lie. The owner of the slab's present state calls.

        whole: they are one request's, which is not cut into rows: row_bytes are all of it, row_count is 1.
        """
        cdef TensorShape shape
        cdef uint32_t row
        if offset + row_bytes * row_count > self.view.data_stride or len(dims) > MAX_RANK or (
            first_row + row_count > self.view.row_capacity
        ):
            raise ValueError(
                f"rows [{first_row}, {first_row + row_count}) of {row_bytes} bytes at {offset}, rank {len(dims)}: "
                f"outside the slab, or over {MAX_RANK} axes"
            )
        memset(&shape, 0, sizeof(shape))
        shape.bytes = row_bytes
        shape.rank = len(dims)
        shape.whole = whole
        for axis, dim in enumerate(dims):
            shape.dims[<int>axis] = dim
        for row in range(row_count):
            shape.offset = offset + row * row_bytes
            output_shape(&self.view, slab, first_row + row, output)[0] = shape

    def output(self, int slab, int row, int output):
        """Shaped mode: (offset in the slab's data, bytes, dims, whole) of a row's output."""
        cdef TensorShape* s = output_shape(&self.view, slab, row, output)
        return s.offset, s.bytes, tuple([s.dims[axis] for axis in range(s.rank)]), bool(s.whole)

    @property
    def newest_first(self):
        """Whether the queue stands, so that the executor runs the newest slab first."""
        return bool(relaxed_load_half(&self.view.lane.newest_first))

    @newest_first.setter
    def newest_first(self, bint value):
        relaxed_store_half(&self.view.lane.newest_first, value)

    @property
    def apart(self):
        """Shaped mode: whether requests are run one at a time, since the outputs do not follow the batch axis."""
        return bool(half_load(&self.view.lane.apart))

    @apart.setter
    def apart(self, bint value):
        half_store(&self.view.lane.apart, value)

    def extents(self, int slab, int row):
        """Shaped mode with padding: the length that each group of padded axes had in the row's request."""
        cdef int64_t* at = row_extents(&self.view, slab, row)
        return tuple([at[group] for group in range(self.view.padding.group_count)])

    @property
    def overhead_elements(self):
        """How many elements cost as much as a run costs before its first; 0: not known, or rows are not padded."""
        return 0 if self.view.padding == NULL else relaxed_load(&self.view.padding.overhead_elements)

    @overhead_elements.setter
    def overhead_elements(self, uint64_t value):
        relaxed_store(&self.view.padding.overhead_elements, value)

    @property
    def element_counts(self):
        """Elements of the inputs that ran: (as they came, padding included); (0, 0) where rows are not padded."""
        cdef Padding* padding = self.view.padding
        if padding == NULL:
            return 0, 0
        return relaxed_load(&padding.given_elements), relaxed_load(&padding.run_elements)

    def count_elements(self, uint64_t given, uint64_t run):
        """The executor's; its instances are threads of one process."""
        shared_add(&self.view.padding.given_elements, given)
        shared_add(&self.view.padding.run_elements, run)

    @property
    def output_room(self):
        """Single and shaped mode: (offset, bytes) of the space for outputs in a slab's data."""
        return self.view.header.input_bytes, self.view.header.output_bytes


cdef class Control(Segment):
    """The server's control segment: life-cycle flags by the supervisor, one page by each worker."""

    def __init__(self, int fd):
        self.header = <ControlHeader*>self.base
        self.pages = <WorkerPage*>(self.base + sizeof(ControlHeader))
        if self.header.magic != CONTROL_MAGIC or self.header.version != LAYOUT_VERSION:
            raise ValueError("not a control segment of this layout")

    @staticmethod
    def create(int worker_count, uint64_t started_ns):
        """A new control segment for `worker_count` workers."""
        cdef uint64_t size = align(sizeof(ControlHeader) + worker_count * sizeof(WorkerPage), PAGE)
        fd = new_memfd("headrace-control", size)
        cdef Segment raw = Segment(fd)
        cdef ControlHeader* h = <ControlHeader*>raw.base
        h.magic = CONTROL_MAGIC
        h.version = LAYOUT_VERSION
        h.worker_count = worker_count
        h.total_bytes = size
        h.started_ns = started_ns
        return Control(os.dup(raw.fd))

    @property
    def worker_count(self):
        return self.header.worker_count

    @property
    def started_ns(self):
        return self.header.started_ns

    @property
    def draining(self):
        return bool(self.header.draining)

    @draining.setter
    def draining(self, bint value):
        self.header.draining = value

    @property
    def stopping(self):
        return self.header.stopping

    @stopping.setter
    def stopping(self, uint32_t value):
        self.header.stopping = value

    @property
    def restarts(self):
        """(workers, executors) started again after a death."""
        return self.header.worker_restarts, self.header.executor_restarts

    def count_restart(self, bint worker):
        if worker:
            self.header.worker_restarts += 1
        else:
            self.header.executor_restarts += 1

    @property
    def stuck(self):
        """(workers, executors) started again because they stood still."""
        return self.header.stuck_workers, self.header.stuck_executors

    def count_stuck(self, bint worker):
        if worker:
            self.header.stuck_workers += 1
        else:
            self.header.stuck_executors += 1

    @property
    def log_word(self):
        return relaxed_load_half(&self.header.log_word)

    @log_word.setter
    def log_word(self, uint32_t value):
        relaxed_store_half(&self.header.log_word, value)

    def set_trace(self, int cell, int64_t left_count):
        """Counts a trace setting from the start: the next request is traced, and at most so many; below 0: no limit."""
        if not 0 <= cell < TRACE_CELLS:
            raise IndexError(f"trace cell {cell}: expected 0..{TRACE_CELLS - 1}")
        relaxed_store(&self.header.trace[cell].seen_count, 0)
        relaxed_store(<uint64_t*>&self.header.trace[cell].left_count, <uint64_t>left_count)

    def trace_left(self, int cell):
        """How many traces may still be written; -1: any number."""
        if not 0 <= cell < TRACE_CELLS:
            raise IndexError(f"trace cell {cell}: expected 0..{TRACE_CELLS - 1}")
        return max(<int64_t>relaxed_load(<uint64_t*>&self.header.trace[cell].left_count), -1)

    def page(self, int worker):
        """What a worker says of itself, as a dict of numbers."""
        cdef WorkerPage* p = &self.pages[worker]
        return {
            "pid": p.pid,
            "ready": bool(p.ready),
            "connections_open": p.connections_open,
            "connections_total": p.connections_total,
            "requests_total": p.requests_total,
            "protocol_errors_total": p.protocol_errors_total,
            "bytes_in_total": p.bytes_in_total,
            "bytes_out_total": p.bytes_out_total,
            "heartbeat_ns": p.heartbeat_ns,
        }

    def clear_bell(self, int worker):
        """Forgets a wake-up that died with its sender or its receiver."""
        half_store(&self.pages[worker].bell_pending, 0)

    def set_ready(self, int worker, uint32_t pid, bint ready):
        """A worker says that it accepts connections, or the supervisor that it is gone."""
        self.pages[worker].pid = pid
        self.pages[worker].ready = ready
        if not ready:
            self.pages[worker].connections_open = 0
