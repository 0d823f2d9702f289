/* The only truth of what lies in shared memory.
 *
 * An arena is one model version's segment:
 *
 *   ArenaHeader | Lane | CostTable | TensorLayout[inputs + outputs] | SlabHeader[slabs] | row words | RowMeta | RowFailure
 *               | TensorShape[slabs][shape_stride] | StatsBlock[owners + 1] | quarantine | QueueLevel[levels]
 *               | Padding | extents[slabs][rows][groups] | slab data
 *
 * A control segment is one server's: ControlHeader | WorkerPage[workers].
 *
 * Who writes what stands beside each field. Fields of different writers lie on different cache lines. Offsets are
 * bytes from the start of the segment. All widths are fixed and all padding is explicit, so that the asserts below
 * tie this file to what Python sees. */
#ifndef HEADRACE_LAYOUT_H
#define HEADRACE_LAYOUT_H

#include <stddef.h>
#include <stdint.h>

#define ARENA_MAGIC 0x454341524441454Bull
#define CONTROL_MAGIC 0x4C4F52544E4F434Bull
#define LAYOUT_VERSION 3u

#define MAX_RANK 8
#define MAX_OWNERS 62      /* worker ids 0..61 */
#define OWNER_NONE 63      /* a sealed slab that waits for any instance */
#define MAX_INSTANCES 32
#define MAX_ROWS 4095      /* rows a slab can hold: 12 bits of the slab word */
#define MAX_SLABS 1024
#define FAILURE_TEXT_BYTES 250
#define REASON_TEXT_BYTES 240
#define PLACED_TEXT_BYTES 444
#define QUARANTINE_ENTRIES 64
#define TRACE_CELLS 64
#define COST_CELLS 13 /* batch sizes 1, 2, 4, ... 2048, and the capacity of a slab */
#define COST_DRIFT_ONE 1024
#define MAX_PADS 16
#define MAX_LEVELS 32

/* Histogram buckets: upper bound of bucket k is 2^(k/8) microseconds, k = 0..215; the last one counts what is above. */
#define HISTOGRAM_BUCKETS 217
#define BATCH_EXACT 128
/* 1..128 rows exactly, then upper bounds 256, 512, ... 16384; the last one also counts what is above. */
#define BATCH_BUCKETS (BATCH_EXACT + 8)
#define FAILURE_REASONS 6

enum { MODE_ROWS = 0, MODE_SINGLE = 1, MODE_SHAPED = 2 };

typedef struct {
    uint64_t magic;
    uint32_t version;
    uint32_t header_bytes;
    uint64_t total_bytes;
    uint32_t mode;
    uint32_t slab_count;
    uint32_t row_capacity;
    uint32_t input_count;
    uint32_t output_count;
    uint32_t owner_count;
    uint32_t instance_count;
    uint32_t shape_stride; /* TensorShapes of a slab: inputs, then outputs; MODE_SHAPED: outputs of each row */
    uint64_t lane_offset;
    uint64_t tensors_offset;
    uint64_t slabs_offset;
    uint64_t rows_offset;
    uint64_t meta_offset;
    uint64_t failures_offset;
    uint64_t shapes_offset;
    uint64_t stats_offset;
    uint64_t quarantine_offset;
    uint64_t data_offset;
    uint64_t data_stride;
    uint64_t input_bytes;  /* MODE_SINGLE, MODE_SHAPED: what the inputs in a slab may take together */
    uint64_t output_bytes; /* MODE_SINGLE, MODE_SHAPED: the same for the outputs, behind the inputs */
    uint64_t cost_offset;
    uint64_t padding_offset; /* MODE_SHAPED: where Padding lies; 0: rows are not padded */
    uint64_t levels_offset;
    uint32_t level_count;   /* priority levels; 1 for a lane without */
    uint32_t default_level; /* 1 is the first: of requests that name none */
    uint32_t is_ranked;     /* there are levels, or timeouts: those of requests that are past one change the order */
    uint8_t pad1[256 - 196];
} ArenaHeader;

typedef struct {
    /* claimers */
    uint32_t next_generation;
    uint32_t open_hint;
    uint8_t pad0[56];
    /* executor instances and whoever wakes them */
    uint64_t sleepers; /* bit i: instance i sleeps or is about to */
    uint8_t pad1[56];
    /* executor and supervisor */
    uint32_t model_state; /* ModelState */
    uint32_t executor_pid;
    uint32_t executor_starts;
    uint32_t shutdown;
    uint32_t reason_bytes;
    uint32_t quarantined; /* entries in use; 0 lets workers skip the digest */
    uint64_t missed_wakeups; /* work found by a time-out instead of a wake-up: always 0 unless something is wrong */
    uint64_t ready_ns;
    uint64_t max_queue_delay_ns; /* plan, written once before the first claim */
    uint32_t preferred_rows;
    uint32_t apart; /* executor, MODE_SHAPED: outputs do not follow the batch axis, requests run one at a time */
    uint64_t beat_ns; /* executor: when an instance that has no work looked last, every second at least */
    uint32_t newest_first; /* executor: the queue stands, the newest slab goes first: see ring_due */
    uint8_t pad3[4];
    char reason[REASON_TEXT_BYTES];
    uint8_t pad4[8];
    uint32_t placed_bytes;
    char placed[PLACED_TEXT_BYTES]; /* executor, before it is ready: server/models/assignment.py */
} Lane;

/* What a run of so many rows takes: see cost_table.pxd. The executor writes, its instances one over the other (a lost
 * update is a sample that was not there); anyone reads. */
typedef struct {
    uint32_t rows;  /* written once */
    uint32_t count; /* runs that it learnt from; 0: a guess from its neighbours */
    uint64_t mean_ns;
    uint64_t deviation_ns; /* mean distance from mean_ns */
    uint64_t base_ns;      /* mean_ns as first learnt, at warm-up */
    uint64_t updated_ns;
    uint8_t pad[24];
} CostCell;

typedef struct {
    uint32_t cell_count; /* written once */
    uint8_t pad0[4];
    uint64_t run_count; /* 0: nothing is known */
    uint64_t drift;     /* what runs take now / base_ns, in 1/COST_DRIFT_ONE */
    uint64_t slo_ns;    /* the lane's latency target, 0 for none; written once */
    uint32_t cap_rows;  /* executor: more rows at once do not fit into memory; 0: as many as a slab holds do */
    uint8_t pad2[4];
    uint64_t split_count; /* executor: runs that were cut in parts since memory ran out */
    uint64_t unfit_count; /* executor: rows, or whole requests, that failed since it ran out for them alone */
    uint8_t pad1[8];
    CostCell cells[COST_CELLS];
} CostTable;

typedef struct {
    uint64_t slab_offset; /* MODE_ROWS: where the tensor's rows start in a slab's data */
    uint64_t row_bytes;   /* MODE_ROWS: bytes of one row */
    uint32_t dtype;
    uint32_t rank;
    int64_t dims[MAX_RANK]; /* as declared, -1 = free */
    uint32_t item_bytes;
    uint32_t is_value; /* MODE_SHAPED: one tensor for all rows of a slab; dims[1..] of its TensorShape are its bytes */
    uint8_t pad[32];
} TensorLayout;

typedef struct {
    uint64_t word; /* claimers and sealers: see slab_ring.pxd */
    uint8_t pad0[56];
    /* the instance that runs it; read by workers after the row words */
    uint64_t run_start_ns;
    uint64_t run_end_ns;
    uint32_t run_rows;
    uint32_t attempts; /* executors that died with it; written by the supervisor */
    uint32_t passes;   /* runs that ended with rows left for a later one */
    uint32_t crowded;  /* MODE_SHAPED: rows wait for the room that outputs take which workers have not read yet */
    uint64_t output_used; /* MODE_SHAPED: bytes of the room for outputs that are taken */
    uint64_t steps; /* rises whenever the instance gets on with the slab */
    uint8_t pad1[16];
    /* whoever opened it */
    uint64_t signature; /* MODE_SHAPED: hash of the row shapes of all inputs, which stand in its TensorShapes */
    uint64_t opened_ns;
    uint32_t capacity; /* rows of this shape that it holds */
    uint32_t undated; /* publishers: a row has no deadline */
    uint64_t deadline_ns; /* publishers: the earliest of its rows; 0: none has one */
    uint64_t stale_ns; /* claimers, if is_ranked: when the last of its rows is past its timeout; 0: nobody yet */
    uint32_t level;    /* the priority level of its rows, 0 for the first */
    uint8_t pad2[20];
} SlabHeader;

/* The queue of one priority level. Written once, before the first claim. */
typedef struct {
    uint64_t timeout_ns; /* 0: none */
    uint32_t max_rows;   /* requests are refused while so many rows wait; 0: as long as there are slabs */
    uint32_t slab_count; /* slabs that rows of the level may hold at the same time */
    uint32_t delays;     /* past their timeout requests go behind the others of their level, else they are refused */
    uint32_t allow_override; /* a request's own timeout counts where it is shorter */
    uint8_t pad[40];
} QueueLevel;

typedef struct {
    uint64_t published_ns;
    uint64_t deadline_ns; /* 0: none */
    uint32_t claim_first; /* the rows that were claimed together with this one */
    uint32_t claim_rows;
} RowMeta;

typedef struct {
    uint32_t bytes;
    uint16_t code;
    char text[FAILURE_TEXT_BYTES];
} RowFailure;

/* MODE_SINGLE: a tensor of the request. MODE_SHAPED: an input, dims[0] being the slab's capacity, or one row's output;
 * bytes are those of one row. */
typedef struct {
    uint64_t offset; /* from the start of the slab's data */
    uint64_t bytes;
    uint32_t rank;
    uint32_t whole; /* MODE_SHAPED: this is the whole output of the request that begins with this row, dims[0] included */
    int64_t dims[MAX_RANK];
} TensorShape;

/* One axis of an input that is padded. Axes of one group have the same length in every request. */
typedef struct {
    uint32_t tensor;
    uint32_t axis;  /* the batch axis is 0 */
    uint32_t group; /* rules of a group stand side by side */
    uint32_t pad0;
    int64_t multiple;
    int64_t max; /* longer ones are not padded, and no shorter one is padded to more */
    char value[8]; /* one element, as many bytes as it has */
} PadRule;

/* MODE_SHAPED: which rows are written longer than they came. Behind it, for each row, the length that each group had. */
typedef struct {
    uint32_t rule_count;
    uint32_t group_count;
    /* executor */
    uint64_t overhead_elements; /* a run costs as much before its first element as so many elements; 0: not known */
    uint64_t given_elements;    /* in rows that ran, as they came */
    uint64_t run_elements;      /* the same, padding included */
    uint8_t pad0[32];
    PadRule rules[MAX_PADS];
} Padding;

typedef struct {
    uint64_t sum_ns;
    uint64_t counts[HISTOGRAM_BUCKETS];
    uint64_t pad[6];
} Histogram;

/* One writer each: worker i writes block i, the executor the last one (its instances by atomic additions).
 * A successor goes on where its predecessor stopped, so counters never fall. */
typedef struct {
    uint64_t success_count;
    uint64_t failure_counts[FAILURE_REASONS];
    uint64_t row_count;
    uint64_t parse_ns;
    uint64_t reply_ns;
    uint64_t last_inference_ms;
    uint64_t execution_count;
    uint64_t busy_ns;
    uint64_t inflight_count;
    uint64_t failure_ns;
    uint64_t late_count;      /* executor: rows whose run began after their deadline */
    uint64_t outlived_count;  /* executor: rows whose run ended after it */
    uint64_t predicted_count; /* worker: requests refused since they could not be answered in time */
    uint64_t pad[6];
    Histogram request_ns;
    Histogram queue_ns;
    Histogram execute_ns;
    uint64_t batch_counts[BATCH_BUCKETS];
    uint64_t batch_ns[BATCH_BUCKETS];
} StatsBlock;

typedef struct {
    uint64_t digest;
    uint64_t until_ns;
} QuarantineEntry;

/* The requests of one trace setting, over all workers. The supervisor fills it before it tells the workers. */
typedef struct {
    uint64_t seen_count; /* workers: requests since then */
    int64_t left_count;  /* workers: traces that may still be written; below 0 for any number */
} TraceCell;

typedef struct {
    uint64_t magic;
    uint32_t version;
    uint32_t worker_count;
    uint64_t total_bytes;
    uint64_t started_ns;
    uint32_t draining; /* supervisor: readiness is false from now on */
    uint32_t stopping; /* supervisor: finish what is in flight and exit */
    uint32_t worker_restarts;
    uint32_t executor_restarts;
    uint32_t log_word; /* supervisor: which levels are logged, see server/log.py */
    uint32_t stuck_workers; /* supervisor: restarts of processes that stood still, apart from those above */
    uint32_t stuck_executors;
    uint8_t pad[196];
    TraceCell trace[TRACE_CELLS]; /* 0: the settings of the server; others: of a model */
} ControlHeader;

typedef struct {
    uint32_t bell_pending; /* 1: an eventfd write is on its way */
    uint8_t pad0[60];
    uint64_t connections_open; /* the worker */
    uint64_t connections_total;
    uint64_t requests_total;
    uint64_t protocol_errors_total;
    uint64_t bytes_in_total;
    uint64_t bytes_out_total;
    uint32_t pid;
    uint32_t ready;
    uint64_t heartbeat_ns;
} WorkerPage;

#if defined(__cplusplus)
#define LAYOUT_ASSERT(name, test) static_assert(test, #name)
#else
#define LAYOUT_ASSERT(name, test) _Static_assert(test, #name)
#endif
LAYOUT_ASSERT(arena_header, sizeof(ArenaHeader) == 256);
LAYOUT_ASSERT(lane, sizeof(Lane) == 896 && offsetof(Lane, sleepers) == 64 && offsetof(Lane, model_state) == 128);
LAYOUT_ASSERT(cost_table, sizeof(CostCell) == 64 && sizeof(CostTable) == 64 + COST_CELLS * 64);
LAYOUT_ASSERT(tensor_layout, sizeof(TensorLayout) == 128);
LAYOUT_ASSERT(slab_header, sizeof(SlabHeader) == 192 && offsetof(SlabHeader, run_start_ns) == 64);
LAYOUT_ASSERT(slab_opener, offsetof(SlabHeader, signature) == 128);
LAYOUT_ASSERT(queue_level, sizeof(QueueLevel) == 64 && sizeof(SlabHeader) == 192);
LAYOUT_ASSERT(row_meta, sizeof(RowMeta) == 24);
LAYOUT_ASSERT(row_failure, sizeof(RowFailure) == 256);
LAYOUT_ASSERT(tensor_shape, sizeof(TensorShape) == 88);
LAYOUT_ASSERT(padding, sizeof(PadRule) == 40 && sizeof(Padding) == 64 + MAX_PADS * 40);
LAYOUT_ASSERT(histogram, sizeof(Histogram) % 64 == 0);
LAYOUT_ASSERT(stats_block, sizeof(StatsBlock) % 64 == 0);
LAYOUT_ASSERT(control_header, sizeof(ControlHeader) == 256 + TRACE_CELLS * 16 && offsetof(ControlHeader, trace) == 256);
LAYOUT_ASSERT(worker_page, sizeof(WorkerPage) == 128);

#endif
