"""C face of layout.h: the structs of the arena and of the control segment, and a process's view of an arena."""

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t


cdef extern from "layout.h" nogil:
    const uint64_t ARENA_MAGIC
    const uint64_t CONTROL_MAGIC
    const uint32_t LAYOUT_VERSION
    enum:
        MAX_RANK
        MAX_OWNERS
        OWNER_NONE
        MAX_INSTANCES
        MAX_ROWS
        MAX_SLABS
        FAILURE_TEXT_BYTES
        REASON_TEXT_BYTES
        PLACED_TEXT_BYTES
        QUARANTINE_ENTRIES
        TRACE_CELLS
        COST_CELLS
        COST_DRIFT_ONE
        MAX_PADS
        MAX_LEVELS
        HISTOGRAM_BUCKETS
        BATCH_EXACT
        BATCH_BUCKETS
        FAILURE_REASONS
        MODE_ROWS
        MODE_SINGLE
        MODE_SHAPED

    ctypedef struct ArenaHeader:
        uint64_t magic
        uint32_t version
        uint32_t header_bytes
        uint64_t total_bytes
        uint32_t mode
        uint32_t slab_count
        uint32_t row_capacity
        uint32_t input_count
        uint32_t output_count
        uint32_t owner_count
        uint32_t instance_count
        uint32_t shape_stride
        uint64_t lane_offset
        uint64_t tensors_offset
        uint64_t slabs_offset
        uint64_t rows_offset
        uint64_t meta_offset
        uint64_t failures_offset
        uint64_t shapes_offset
        uint64_t stats_offset
        uint64_t quarantine_offset
        uint64_t data_offset
        uint64_t data_stride
        uint64_t input_bytes
        uint64_t output_bytes
        uint64_t cost_offset
        uint64_t padding_offset
        uint64_t levels_offset
        uint32_t level_count
        uint32_t default_level
        uint32_t is_ranked

    ctypedef struct Lane:
        uint32_t next_generation
        uint32_t open_hint
        uint64_t sleepers
        uint32_t model_state
        uint32_t executor_pid
        uint32_t executor_starts
        uint32_t shutdown
        uint32_t reason_bytes
        uint32_t quarantined
        uint64_t missed_wakeups
        uint64_t ready_ns
        uint64_t max_queue_delay_ns
        uint32_t preferred_rows
        uint32_t apart
        uint64_t beat_ns
        uint32_t newest_first
        char* reason
        uint32_t placed_bytes
        char* placed

    ctypedef struct CostCell:
        uint32_t rows
        uint32_t count
        uint64_t mean_ns
        uint64_t deviation_ns
        uint64_t base_ns
        uint64_t updated_ns

    ctypedef struct CostTable:
        uint32_t cell_count
        uint64_t run_count
        uint64_t drift
        uint64_t slo_ns
        uint32_t cap_rows
        uint64_t split_count
        uint64_t unfit_count
        CostCell* cells

    ctypedef struct TensorLayout:
        uint64_t slab_offset
        uint64_t row_bytes
        uint32_t dtype
        uint32_t rank
        int64_t* dims
        uint32_t item_bytes
        uint32_t is_value

    ctypedef struct SlabHeader:
        uint64_t word
        uint64_t run_start_ns
        uint64_t run_end_ns
        uint32_t run_rows
        uint32_t attempts
        uint32_t passes
        uint32_t crowded
        uint64_t output_used
        uint64_t steps
        uint64_t signature
        uint64_t opened_ns
        uint32_t capacity
        uint32_t undated
        uint64_t deadline_ns
        uint64_t stale_ns
        uint32_t level

    ctypedef struct QueueLevel:
        uint64_t timeout_ns
        uint32_t max_rows
        uint32_t slab_count
        uint32_t delays
        uint32_t allow_override

    ctypedef struct RowMeta:
        uint64_t published_ns
        uint64_t deadline_ns
        uint32_t claim_first
        uint32_t claim_rows

    ctypedef struct RowFailure:
        uint32_t bytes
        uint16_t code
        char* text

    ctypedef struct TensorShape:
        uint64_t offset
        uint64_t bytes
        uint32_t rank
        uint32_t whole
        int64_t* dims

    ctypedef struct PadRule:
        uint32_t tensor
        uint32_t axis
        uint32_t group
        int64_t multiple
        int64_t max
        char* value

    ctypedef struct Padding:
        uint32_t rule_count
        uint32_t group_count
        uint64_t overhead_elements
        uint64_t given_elements
        uint64_t run_elements
        PadRule* rules

    ctypedef struct Histogram:
        uint64_t sum_ns
        uint64_t* counts

    ctypedef struct StatsBlock:
        uint64_t success_count
        uint64_t* failure_counts
        uint64_t row_count
        uint64_t parse_ns
        uint64_t reply_ns
        uint64_t last_inference_ms
        uint64_t execution_count
        uint64_t busy_ns
        uint64_t inflight_count
        uint64_t failure_ns
        uint64_t late_count
        uint64_t outlived_count
        uint64_t predicted_count
        Histogram request_ns
        Histogram queue_ns
        Histogram execute_ns
        uint64_t* batch_counts
        uint64_t* batch_ns

    ctypedef struct QuarantineEntry:
        uint64_t digest
        uint64_t until_ns

    ctypedef struct TraceCell:
        uint64_t seen_count
        int64_t left_count

    ctypedef struct ControlHeader:
        uint64_t magic
        uint32_t version
        uint32_t worker_count
        uint64_t total_bytes
        uint64_t started_ns
        uint32_t draining
        uint32_t stopping
        uint32_t worker_restarts
        uint32_t executor_restarts
        uint32_t log_word
        uint32_t stuck_workers
        uint32_t stuck_executors
        TraceCell* trace

    ctypedef struct WorkerPage:
        uint32_t bell_pending
        uint64_t connections_open
        uint64_t connections_total
        uint64_t requests_total
        uint64_t protocol_errors_total
        uint64_t bytes_in_total
        uint64_t bytes_out_total
        uint32_t pid
        uint32_t ready
        uint64_t heartbeat_ns


cdef enum ModelState:
    MODEL_LOADING = 0
    MODEL_READY = 1
    MODEL_RESTARTING = 2
    MODEL_FAILED = 3
    MODEL_HELD = 4  # as RESTARTING, but not so soon that requests could wait for it


#: One process's pointers into one arena. Valid as long as the Arena object that made it.
cdef struct ArenaView:
    ArenaHeader* header
    Lane* lane
    CostTable* cost
    TensorLayout* tensors
    SlabHeader* slabs
    uint64_t* rows
    RowMeta* meta
    RowFailure* failures
    TensorShape* shapes
    StatsBlock* stats
    QuarantineEntry* quarantine
    QueueLevel* levels
    char* data
    uint64_t data_stride
    uint32_t slab_count
    uint32_t row_capacity
    uint32_t mode
    uint32_t tensor_count
    uint32_t shape_stride
    Padding* padding    # NULL: rows are not padded
    int64_t* extents    # [slabs][rows][groups]
    uint32_t level_count
    bint is_ranked


cdef inline TensorShape* input_shape(ArenaView* v, uint32_t slab, uint32_t tensor) noexcept nogil:
    return &v.shapes[<uint64_t>slab * v.shape_stride + tensor]

#: Single mode: row 0.
cdef inline TensorShape* output_shape(ArenaView* v, uint32_t slab, uint32_t row, uint32_t output) noexcept nogil:
    cdef uint64_t inputs = v.header.input_count, outputs = v.header.output_count
    return &v.shapes[<uint64_t>slab * v.shape_stride + inputs + row * outputs + output]


cdef inline int64_t* row_extents(ArenaView* v, uint32_t slab, uint32_t row) noexcept nogil:
    return v.extents + (<uint64_t>slab * v.row_capacity + row) * v.padding.group_count


cdef class Segment:
    cdef readonly int fd
    cdef readonly uint64_t size
    cdef char* base


cdef class Arena(Segment):
    cdef ArenaView view
    cdef int attach(self) except -1


cdef class Control(Segment):
    cdef ControlHeader* header
    cdef WorkerPage* pages
