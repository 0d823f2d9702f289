"""C face of inference calls: a worker's requests between the parser that understood them and the reply.

Protocol-neutral: HTTP/1.1, HTTP/2 and later protocols fill LaneClient.request, submit, and get deliver().
"""

from cpython.ref cimport PyObject
from libc.stdint cimport int64_t, uint32_t, uint64_t

from server._fast.infer_claim cimport Part
from server._fast.infer_outputs cimport SegmentPool
from server._fast.infer_spec cimport InferError, InferRequest, ModelSpec, OutputRef, ReplyTensor, SharedRef, Spec
from server._fast.lane_admission cimport LaneAdmission
from server._fast.layout cimport Arena, ArenaView, Control, StatsBlock, TraceCell
from server._fast.slab_ring cimport Claim

cdef enum:
    INLINE_OUTPUTS = 8
    INLINE_ID_BYTES = 64


cdef class Responder:
    """Who asked for a call; subclasses write the reply in their protocol."""

    # The call is finished: call.error says whether it failed; its outputs can be read until this returns.
    cdef int deliver(self, InferCall call) except -1
    # deliver() raised: nothing more can be told to this client.
    cdef void broken(self) noexcept
    # "http" or "grpc", for the trace of a call that it has just delivered.
    cdef str protocol_of(self, InferCall call)


cdef class InferCall:
    cdef LaneClient lane
    cdef Responder responder
    cdef InferRequest request      # id and outputs only; the inputs are in the slabs
    cdef Part one_part
    cdef Part* parts
    cdef uint32_t part_count
    cdef uint32_t parts_left
    cdef bint in_flight
    cdef bint is_held              # finished, but calls before it are not
    cdef PyObject* next_call       # the one that came after it, where answers keep their order
    cdef int tag                   # the responder's
    cdef int form                  # the responder's: how the reply is written (rest_codec)
    cdef list regions              # ClientRegions that the request names: open until the reply is written; or None
    cdef SharedRef* shared         # of its outputs that go there; NULL: none does
    cdef uint64_t received_ns      # when the whole request was here
    cdef uint64_t arrived_ns       # the responder's: when it began to come, from which deadlines run; 0: received_ns
    cdef int64_t timeout_ns        # the responder's: how long the client waits, as its protocol says; < 0: it does not
    cdef uint64_t deadline_ns      # 0: none
    cdef uint64_t published_ns
    cdef InferError* error         # NULL: success
    cdef OutputRef inline_outputs[8]
    cdef char inline_id[64]
    cdef int keep_request(self, const InferRequest* r) except -1
    cdef int keep_shared(self, const InferRequest* r) except -1


#: Told at most once per loop turn that something has to happen at its end.
cdef class Turn:
    cdef uint64_t lag_ns           # how long a turn took of late
    cdef uint32_t refused_count    # requests refused in this turn for want of capacity
    cdef int lane_due(self, LaneClient lane) except -1
    # A call has this deadline: LaneClient.expire() of its lane is to be called then.
    cdef int deadline_due(self, uint64_t deadline_ns) except -1


cdef class LaneClient(LaneAdmission):
    cdef readonly Arena arena
    cdef readonly Spec spec
    cdef ModelSpec* model
    cdef uint32_t owner
    cdef Turn turn
    cdef bint wake_due
    cdef uint32_t unwoken_rows     # published since the executor was woken
    cdef bint is_retired           # requests that come now go to another lane
    cdef int instance_bells[32]
    cdef InferRequest request      # what a parser fills before submit()
    cdef Claim reserved            # whose rows the next request to be submitted has filled already; no rows: none
    cdef uint64_t first_deadline_ns             # no call in flight has an earlier one; 0: none has one
    cdef Part** first_pending      # per slab
    cdef Part** last_pending
    cdef readonly uint32_t pending_count
    cdef public bint is_ordered    # answers leave in the order in which the requests came
    cdef PyObject* first_call      # is_ordered: calls without an answer, those that were cancelled included
    cdef PyObject* last_call
    cdef ReplyTensor* replies
    cdef SegmentPool segments
    cdef int64_t* row_dims         # shaped mode: room for what infer_claim compares
    cdef uint64_t trace_rate       # one of so many requests is traced; 0: none
    cdef TraceCell* trace_cell
    cdef Control trace_control     # holds the cell's memory
    cdef object trace_sink

    cdef int expire(self, uint64_t now) except -1
    cdef int time_out(self, InferCall call, uint64_t now) except -1
    cdef int submit(self, InferCall call, uint64_t now, InferError* err) except -2
    cdef void abandon(self, InferCall call) noexcept
    cdef void wake_later(self) noexcept
    cdef int wake(self) noexcept
    cdef int collect_slab(self, uint32_t slab, uint64_t now) except -1
    cdef void line_up(self, InferCall call) noexcept
    cdef int deliver_in_order(self, uint64_t now) except -1
    cdef int finish(self, InferCall call, uint64_t now) except -1
    cdef void trace(self, InferCall call, uint64_t run_start, uint64_t run_end) noexcept
    cdef int reply_tensors(self, InferCall call) noexcept nogil
    cdef void cancel(self, InferCall call) noexcept
    cdef void let_go(self, InferCall call, int reason) noexcept
    cdef int note_failure(self, InferCall call, Part* part, uint64_t failed_word) except -1
    cdef int check_outputs(self, InferCall call) except -1
    cdef int share_outputs(self, InferCall call) except -1
    cdef bint unlink(self, Part* part) noexcept
