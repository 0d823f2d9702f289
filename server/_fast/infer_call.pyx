"""Inference calls of one worker: from a parsed request to claimed rows, and from finished rows to a reply.

A LaneClient is the worker's side of one lane. It knows rows, tensors and statistics; it does not know sockets or text
formats but JSON numbers, which it reads straight into the rows. It belongs to the worker's event loop thread. Calls
hold the only references to their parts' memory; rows are freed in the turn in which their reply is written, so a slow
client never holds a slab. A call costs O(rows + bytes); nothing is allocated beyond the InferCall object unless it
has more than one part.
"""

from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcpy

from server._fast.atomics cimport half_load, relaxed_add, relaxed_load, relaxed_load_half, relaxed_store, word_load
from server._fast.clock cimport now_ns, wall_ms
from server._fast.infer_spec cimport (
    INFER_DEADLINE,
    INFER_INTERNAL,
    INFER_INVALID_ARGUMENT,
    INFER_RESOURCE_EXHAUSTED,
    INFER_UNAVAILABLE,
    InferError,
    InferRequest,
    InputRef,
    ReplyTensor,
    Segment,
    Spec,
    infer_error_name_input,
    infer_fail,
    infer_request_alloc,
    infer_request_free,
)
from server._fast.input_filler cimport InputFiller, filler_begin, filler_end, filler_next
from server._fast.layout cimport (
    FAILURE_TEXT_BYTES,
    MAX_INSTANCES,
    MODE_ROWS,
    MODEL_READY,
    MODEL_RESTARTING,
    Arena,
    ArenaView,
    RowFailure,
    SlabHeader,
    TensorLayout,
    TensorShape,
)
from server._fast.quarantine cimport quarantine_has, row_digest
from server._fast.slab_ring cimport (
    FAILURE_DEADLINE,
    FAILURE_MODEL,
    FAILURE_UNAVAILABLE,
    ROW_FAILED,
    SLAB_DONE,
    SLAB_RUNNING,
    SLAB_SEALED,
    Claim,
    ring_cancel,
    ring_claim,
    ring_finished,
    ring_publish,
    ring_recycle,
    ring_release,
    row_at,
    row_code,
    row_index,
    row_state,
    slab_state,
)
from server._fast.stats cimport (
    REASON_CANCELED,
    REASON_INTERNAL,
    REASON_INVALID,
    REASON_REJECTED,
    REASON_TIMEOUT,
    histogram_add,
)
from server._fast.wakeup cimport lane_wake


#: A century: longer is no deadline, and would not fit in nanoseconds.
cdef int64_t MAX_TIMEOUT_US = 3155760000000000

#: fill_*: the data itself cannot be read; the text does not name the input yet.
cdef int FILL_UNREADABLE = -2


cdef inline char* row_data(ArenaView* v, const TensorLayout* tensor, const Claim* claim) noexcept nogil:
    return v.data + claim.slab * v.data_stride + tensor.slab_offset + claim.first_row * tensor.row_bytes


cdef class Responder:
    cdef int deliver(self, InferCall call) except -1:
        return 0

    cdef void broken(self) noexcept:
        pass


cdef class Turn:
    cdef int lane_due(self, LaneClient lane) except -1:
        return 0


cdef class InferCall:
    """One accepted inference request until its reply is written."""

    def __dealloc__(self):
        if self.parts != &self.one_part:
            free(self.parts)
        if self.request.outputs != self.inline_outputs:
            free(self.request.outputs)
        if self.request.id.p != self.inline_id:
            free(<void*>self.request.id.p)
        free(self.error)

    cdef int keep_request(self, const InferRequest* r) except -1:
        """Copies what the reply needs; the request's bytes may go."""
        cdef char* id_copy = self.inline_id
        self.request.outputs = self.inline_outputs
        if r.n_outputs > INLINE_OUTPUTS:
            self.request.outputs = <OutputRef*>malloc(r.n_outputs * sizeof(OutputRef))
            if self.request.outputs == NULL:
                raise MemoryError()
        memcpy(self.request.outputs, r.outputs, r.n_outputs * sizeof(OutputRef))
        self.request.n_outputs = r.n_outputs
        self.request.has_id = r.has_id
        self.request.rows = r.rows
        self.request.binary_output_default = r.binary_output_default
        if r.id.n > INLINE_ID_BYTES:
            id_copy = <char*>malloc(r.id.n)
            if id_copy == NULL:
                raise MemoryError()
        if r.id.n:
            memcpy(id_copy, r.id.p, r.id.n)
        self.request.id.p = id_copy
        self.request.id.n = r.id.n
        return 0


cdef class LaneClient:
    """The worker's side of a lane. `instance_bells`: eventfds of the executor's instances."""

    def __cinit__(self, Arena arena not None, Spec spec not None, uint32_t owner, list instance_bells,
                  Turn turn not None):
        cdef int i
        self.arena = arena
        self.spec = spec
        self.v = &arena.view
        self.model = spec.c
        self.owner = owner
        self.turn = turn
        self.stats = &self.v.stats[owner]
        if len(instance_bells) > MAX_INSTANCES:
            raise ValueError(f"{len(instance_bells)} instances: at most {MAX_INSTANCES}")
        for i, fd in enumerate(instance_bells):
            self.instance_bells[i] = fd
        # What a predecessor in this worker slot held died with it.
        relaxed_store(&self.stats.inflight_count, 0)
        self.first_pending = <Part**>calloc(self.v.slab_count, sizeof(Part*))
        self.last_pending = <Part**>calloc(self.v.slab_count, sizeof(Part*))
        self.replies = <ReplyTensor*>calloc(self.model.n_outputs + 1, sizeof(ReplyTensor))
        if self.first_pending == NULL or self.last_pending == NULL or self.replies == NULL:
            raise MemoryError()
        if infer_request_alloc(&self.request, self.model) < 0:
            raise MemoryError()

    def __dealloc__(self):
        free(self.first_pending)
        free(self.last_pending)
        free(self.replies)
        free(self.segments)
        infer_request_free(&self.request)

    cdef bint is_accepting(self) noexcept:
        """Whether requests may queue: the model is ready, or its executor is on its way back."""
        cdef uint32_t state = half_load(&self.v.lane.model_state)
        return state == MODEL_READY or state == MODEL_RESTARTING

    cdef void refused(self, int reason) noexcept:
        """Counts a request that never got rows."""
        relaxed_add(&self.stats.failure_counts[reason], 1)

    cdef int submit(self, InferCall call, uint64_t now, InferError* err) except -2:
        """Claims rows for `self.request`, fills and publishes them: 0, or -1 with the refusal in err.

        After 0 the call is in flight: its responder gets deliver() exactly once, unless cancel() comes first. The
        executor is woken at the end of the loop turn.
        """
        cdef uint32_t i
        cdef uint64_t deadline_ns = 0
        cdef Part* part
        cdef int code
        call.lane = self
        if not self.is_accepting():
            # It was when the head was read: nobody would come for rows of a lane that has failed since.
            self.refused(REASON_REJECTED)
            return infer_fail(err, INFER_UNAVAILABLE, "model '%.*s' is not ready", <int>self.model.name.n,
                              self.model.name.p)
        call.keep_request(&self.request)
        with nogil:
            code = self.claim_parts(call, now, err)
            if code == 0:
                code = self.fill(call, err)
        if code < 0:
            self.abandon(call)
            if err.code == INFER_UNAVAILABLE:
                self.refused(REASON_REJECTED)
            else:
                self.refused(REASON_INVALID if err.code != INFER_INTERNAL else REASON_INTERNAL)
            return -1
        if 0 < self.request.timeout_us < MAX_TIMEOUT_US:
            # Longer than half a century is for ever, and would not fit.
            deadline_ns = now + <uint64_t>min(self.request.timeout_us, <int64_t>1 << 50) * 1000
        call.published_ns = now_ns()
        call.parts_left = call.part_count
        call.in_flight = True
        relaxed_add(&self.stats.inflight_count, 1)
        relaxed_add(&self.stats.parse_ns, call.published_ns - call.received_ns)
        for i in range(call.part_count):
            part = &call.parts[i]
            part.next = NULL
            part.call = <PyObject*>call
            Py_INCREF(call)
            if self.first_pending[part.claim.slab] == NULL:
                self.first_pending[part.claim.slab] = part
            else:
                self.last_pending[part.claim.slab].next = part
            self.last_pending[part.claim.slab] = part
            self.pending_count += 1
            ring_publish(self.v, self.owner, &part.claim, call.published_ns, deadline_ns)
        if not self.wake_due:
            self.wake_due = True
            self.turn.lane_due(self)
        return 0

    cdef int claim_parts(self, InferCall call, uint64_t now, InferError* err) noexcept nogil:
        cdef uint64_t rows = self.request.rows, capacity = self.v.row_capacity
        cdef uint32_t part_count, take
        if self.v.mode != MODE_ROWS:
            rows = 1
        call.part_count = 0
        if rows > capacity * self.v.slab_count:
            return infer_fail(
                err, INFER_INVALID_ARGUMENT,
                "inference request batch-size must be <= %llu for '%.*s': it has %llu rows, send fewer at a time",
                <unsigned long long>(capacity * self.v.slab_count), <int>self.model.name.n, self.model.name.p,
                <unsigned long long>rows)
        part_count = <uint32_t>((rows + capacity - 1) // capacity)
        call.parts = &call.one_part
        if part_count > 1:
            call.parts = <Part*>malloc(part_count * sizeof(Part))
            if call.parts == NULL:
                call.parts = &call.one_part
                return infer_fail(err, INFER_UNAVAILABLE, "out of memory for a request of %u parts", part_count)
        while rows > 0:
            take = <uint32_t>(rows if rows < capacity else capacity)
            if ring_claim(self.v, self.owner, take, 0, now, &call.parts[call.part_count].claim) < 0:
                return infer_fail(
                    err, INFER_UNAVAILABLE,
                    "Exceeds maximum queue size: the queue of model '%.*s' is full, try again later",
                    <int>self.model.name.n, self.model.name.p)
            call.part_count += 1
            rows -= take
        return 0

    cdef int fill(self, InferCall call, InferError* err) noexcept nogil:
        """Writes every input of self.request into the claimed rows."""
        cdef int i, code
        cdef InputFiller filler
        cdef uint64_t offset = 0
        for i in range(self.model.n_inputs):
            filler_begin(&filler, &self.request.inputs[i])
            if self.v.mode == MODE_ROWS:
                code = self.fill_rows(call, i, &filler, err)
            else:
                code = self.fill_single(call, i, &filler, &offset, err)
            if code == FILL_UNREADABLE or (code == 0 and filler_end(&filler, err) < 0):
                infer_error_name_input(err, self.model.inputs[i].name)
                return -1
            if code < 0:
                return -1
        if relaxed_load_half(&self.v.lane.quarantined):
            return self.check_quarantine(call, err)
        return 0

    cdef int fill_rows(self, InferCall call, int i, InputFiller* filler, InferError* err) noexcept nogil:
        """Rows mode: input i into the rows of every part."""
        cdef TensorLayout* tensor = &self.v.tensors[i]
        cdef Claim* claim
        cdef int64_t elements
        cdef char* data
        cdef uint32_t p
        for p in range(call.part_count):
            claim = &call.parts[p].claim
            elements = claim.row_count * self.model.inputs[i].row_elements
            data = row_data(self.v, tensor, claim)
            if filler_next(filler, elements, claim.row_count * tensor.row_bytes, data, err) < 0:
                return FILL_UNREADABLE
        return 0

    cdef int fill_single(self, InferCall call, int i, InputFiller* filler, uint64_t* offset,
                         InferError* err) noexcept nogil:
        """Single mode: input i behind the inputs before it, with its shape."""
        cdef const InputRef* source = filler.source
        cdef Claim* claim = &call.parts[0].claim
        cdef TensorShape* shape = &self.v.shapes[<uint64_t>claim.slab * self.v.tensor_count + i]
        cdef uint64_t n = source.byte_count
        cdef char* data
        cdef int axis
        if n > self.v.header.input_bytes or offset[0] > self.v.header.input_bytes - n:
            return infer_fail(
                err, INFER_RESOURCE_EXHAUSTED,
                "the inputs take more than the %llu bytes that a request to model '%.*s' may have",
                <unsigned long long>self.v.header.input_bytes, <int>self.model.name.n, self.model.name.p)
        shape.offset = offset[0]
        shape.bytes = n
        shape.rank = source.rank
        for axis in range(source.rank):
            shape.dims[axis] = source.dims[axis]
        data = self.v.data + claim.slab * self.v.data_stride + offset[0]
        if filler_next(filler, source.element_count, n, data, err) < 0:
            return FILL_UNREADABLE
        offset[0] = (offset[0] + n + 63) // 64 * 64
        return 0

    cdef int check_quarantine(self, InferCall call, InferError* err) noexcept nogil:
        cdef uint32_t p, row
        cdef uint64_t now = now_ns()
        cdef Claim* claim
        for p in range(call.part_count):
            claim = &call.parts[p].claim
            for row in range(claim.first_row, claim.first_row + claim.row_count):
                if quarantine_has(self.v, row_digest(self.v, claim.slab, row), now):
                    return infer_fail(err, INFER_INTERNAL,
                                      "this input ended the executor process twice; it is refused for ten minutes")
        return 0

    cdef void abandon(self, InferCall call) noexcept:
        """Gives back the rows of a call that was refused while it was claimed or filled."""
        cdef uint32_t i
        for i in range(call.part_count):
            ring_cancel(self.v, self.owner, &call.parts[i].claim)
        if call.part_count and not self.wake_due:
            # The executor frees a slab of cancelled rows when it passes; nobody else may come along to wake it.
            self.wake_due = True
            try:
                self.turn.lane_due(self)
            except BaseException:
                lane_wake(self.v.lane, self.instance_bells)

    cdef int wake(self) noexcept:
        """End of the loop turn: one wake-up for all that was published in it; whether it took a system call."""
        self.wake_due = False
        return lane_wake(self.v.lane, self.instance_bells)

    # -- replies

    cdef int collect(self) except -1:
        """Delivers every call whose rows are finished. O(slabs) plus O(calls delivered)."""
        cdef uint32_t slab
        cdef uint64_t word
        cdef uint64_t now
        if self.pending_count == 0:
            return 0
        now = now_ns()
        for slab in range(self.v.slab_count):
            if self.first_pending[slab] == NULL:
                continue
            word = word_load(&self.v.slabs[slab].word)
            # Rows of a slab that killed two executors are run and answered one by one; those of a slab in which a row
            # took too long to fill, in several passes.
            if slab_state(word) == SLAB_DONE or (
                (slab_state(word) == SLAB_RUNNING or slab_state(word) == SLAB_SEALED)
                and (
                    relaxed_load_half(&self.v.slabs[slab].attempts) >= 2
                    or relaxed_load_half(&self.v.slabs[slab].passes) > 0
                )
            ):
                self.collect_slab(slab, now)
        return 0

    cdef int collect_slab(self, uint32_t slab, uint64_t now) except -1:
        cdef Part* part = self.first_pending[slab]
        cdef Part* kept_first = NULL
        cdef Part* kept_last = NULL
        cdef Part* following
        cdef InferCall call
        cdef uint64_t failed_word
        # Deliveries may submit new calls to other slabs, never to this one: it is sealed.
        self.first_pending[slab] = NULL
        self.last_pending[slab] = NULL
        while part != NULL:
            following = part.next
            if not ring_finished(self.v, self.owner, &part.claim, &failed_word):
                if kept_first == NULL:
                    kept_first = part
                else:
                    kept_last.next = part
                kept_last = part
                part.next = NULL
            else:
                call = <InferCall>part.call
                self.pending_count -= 1
                if failed_word:
                    self.note_failure(call, part, failed_word)
                call.parts_left -= 1
                if call.parts_left == 0:
                    self.finish(call, now)
                Py_DECREF(call)
            part = following
        if kept_first != NULL:
            self.first_pending[slab] = kept_first
            self.last_pending[slab] = kept_last
        ring_recycle(self.v, slab)
        return 0

    cdef int note_failure(self, InferCall call, Part* part, uint64_t failed_word) except -1:
        """Keeps the first failure's text: the row is freed before the reply may be written."""
        cdef uint32_t code = row_code(failed_word)
        cdef RowFailure* failure
        cdef uint32_t row
        cdef uint64_t word
        if call.error != NULL:
            return 0
        call.error = <InferError*>calloc(1, sizeof(InferError))
        if call.error == NULL:
            raise MemoryError()
        if code == FAILURE_DEADLINE:
            infer_fail(call.error, INFER_DEADLINE, "Request timeout expired: it waited past its deadline")
            return 0
        if code == FAILURE_UNAVAILABLE:
            infer_fail(call.error, INFER_UNAVAILABLE,
                       "model '%.*s' became unavailable while the request waited: it could not be loaded again",
                       <int>self.model.name.n, self.model.name.p)
            return 0
        for row in range(part.claim.first_row, part.claim.first_row + part.claim.row_count):
            failure = &self.v.failures[row_index(self.v, part.claim.slab, row)]
            word = word_load(row_at(self.v, part.claim.slab, row))
            # A text outlives its row when nobody fetched it: only a row that failed has one of this call.
            if failure.code == code and row_state(word) == ROW_FAILED:
                infer_fail(call.error, INFER_INVALID_ARGUMENT if code == FAILURE_MODEL else INFER_INTERNAL, "%.*s",
                           <int>min(failure.bytes, <uint32_t>FAILURE_TEXT_BYTES), failure.text)
                failure.code = 0
                return 0
        infer_fail(call.error, INFER_INTERNAL, "the model failed without a reason")
        return 0

    cdef int finish(self, InferCall call, uint64_t now) except -1:
        cdef uint32_t i
        cdef SlabHeader* slab = &self.v.slabs[call.parts[0].claim.slab]
        cdef uint64_t run_start = relaxed_load(&slab.run_start_ns), run_end = relaxed_load(&slab.run_end_ns)
        cdef int reason
        call.in_flight = False
        relaxed_store(&self.stats.inflight_count, relaxed_load(&self.stats.inflight_count) - 1)
        if call.error == NULL:
            relaxed_add(&self.stats.success_count, 1)
            relaxed_add(&self.stats.row_count, call.request.rows)
            relaxed_store(&self.stats.last_inference_ms, wall_ms())
            histogram_add(&self.stats.queue_ns, <int64_t>(run_start - call.published_ns))
            histogram_add(&self.stats.execute_ns, <int64_t>(run_end - run_start))
        else:
            reason = REASON_TIMEOUT if call.error.code == INFER_DEADLINE else (
                REASON_INVALID if call.error.code == INFER_INVALID_ARGUMENT else REASON_INTERNAL)
            relaxed_add(&self.stats.failure_counts[reason], 1)
        if call.error == NULL:
            histogram_add(&self.stats.request_ns, <int64_t>(now - call.received_ns))
        else:
            relaxed_add(&self.stats.failure_ns, now - call.received_ns)
        try:
            call.responder.deliver(call)
        except Exception:
            # Out of memory while the reply was written. The slab's other calls must still be answered.
            call.responder.broken()
        # A row answered alone, before its slab is done, has no end of its own.
        if call.error == NULL and run_start <= run_end <= now:
            relaxed_add(&self.stats.reply_ns, now - run_end)
        for i in range(call.part_count):
            ring_release(self.v, self.owner, &call.parts[i].claim)
            if call.part_count > 1:
                ring_recycle(self.v, call.parts[i].claim.slab)
        call.responder = None
        return 0

    cdef int reply_tensors(self, InferCall call) noexcept nogil:
        """Fills self.replies with the outputs that the call asked for, as they lie in the slabs: 0, or -1 no memory."""
        cdef uint32_t need = call.request.n_outputs * call.part_count
        cdef Segment* segments
        cdef int o, axis, index
        cdef uint32_t p
        cdef ReplyTensor* reply
        cdef TensorLayout* tensor
        cdef TensorShape* shape
        cdef Claim* claim
        if need > self.segment_capacity:
            segments = <Segment*>realloc(self.segments, need * sizeof(Segment))
            if segments == NULL:
                return -1
            self.segments = segments
            self.segment_capacity = need
        segments = self.segments
        for o in range(call.request.n_outputs):
            reply = &self.replies[o]
            index = call.request.outputs[o].spec_index
            reply.spec_index = index
            reply.dtype = self.model.outputs[index].dtype
            reply.binary = call.request.outputs[o].binary
            reply.segments = segments
            reply.n_segments = call.part_count
            tensor = &self.v.tensors[self.v.header.input_count + index]
            if self.v.mode == MODE_ROWS:
                reply.rank = tensor.rank
                reply.dims[0] = call.request.rows
                for axis in range(1, <int>tensor.rank):
                    reply.dims[axis] = tensor.dims[axis]
                for p in range(call.part_count):
                    claim = &call.parts[p].claim
                    segments.p = row_data(self.v, tensor, claim)
                    segments.n = claim.row_count * tensor.row_bytes
                    segments += 1
            else:
                claim = &call.parts[0].claim
                shape = &self.v.shapes[<uint64_t>claim.slab * self.v.tensor_count + self.v.header.input_count + index]
                reply.rank = shape.rank
                for axis in range(<int>shape.rank):
                    reply.dims[axis] = shape.dims[axis]
                segments.p = self.v.data + claim.slab * self.v.data_stride + shape.offset
                segments.n = shape.bytes
                segments += 1
        return 0

    cdef void cancel(self, InferCall call) noexcept:
        """The client has gone: rows that have not begun to run never will, and nobody is told."""
        cdef uint32_t i
        if not call.in_flight:
            return
        call.in_flight = False
        relaxed_store(&self.stats.inflight_count, relaxed_load(&self.stats.inflight_count) - 1)
        relaxed_add(&self.stats.failure_counts[<int>REASON_CANCELED], 1)
        for i in range(call.part_count):
            if self.unlink(&call.parts[i]):
                self.pending_count -= 1
                Py_DECREF(call)
            ring_cancel(self.v, self.owner, &call.parts[i].claim)
        call.responder = None
        if not self.wake_due:
            self.wake_due = True
            try:
                self.turn.lane_due(self)
            except BaseException:
                lane_wake(self.v.lane, self.instance_bells)

    cdef bint unlink(self, Part* part) noexcept:
        """Takes a part out of its slab's list; False if it is not there any more (a finished part of a longer call)."""
        cdef uint32_t slab = part.claim.slab
        cdef Part* at = self.first_pending[slab]
        cdef Part* before = NULL
        while at != NULL and at != part:
            before = at
            at = at.next
        if at == NULL:
            return False
        if before == NULL:
            self.first_pending[slab] = part.next
        else:
            before.next = part.next
        if self.last_pending[slab] == part:
            self.last_pending[slab] = before
        return True
