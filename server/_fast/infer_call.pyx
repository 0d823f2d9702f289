"""Inference calls of one worker: from a parsed request to published rows, and from finished rows to a reply.

A LaneClient is the worker's side of one lane. It knows who waits for which rows, and statistics; what goes into the
rows and what comes out is infer_claim's and infer_outputs' business, sockets and text formats are the responder's. It
belongs to the worker's event loop thread. Calls hold the only references to their parts' memory; rows are freed in the
turn in which their reply is written, so a slow client never holds a slab. A call costs O(rows + bytes); nothing is
allocated beyond the InferCall object unless it has more than one part.
"""

cimport cython
from cpython.ref cimport Py_DECREF, Py_INCREF, PyObject
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from server._fast.admission cimport admission_answered
from server._fast.atomics cimport (
    relaxed_add,
    relaxed_load,
    relaxed_load_half,
    relaxed_store,
    shared_next,
    shared_take,
    word_load,
)
from server._fast.clock cimport now_ns, wall_ms
from server._fast.infer_claim cimport Part, PartList, infer_claim, infer_claim_reserved, infer_fill
from server._fast.infer_outputs cimport infer_failure, infer_outputs, infer_outputs_check
from server._fast.infer_shared cimport infer_shared_write
from server._fast.infer_spec cimport (
    INFER_DEADLINE,
    INFER_INTERNAL,
    INFER_INVALID_ARGUMENT,
    INFER_UNAVAILABLE,
    InferError,
    InferRequest,
    OutputRef,
    ReplyTensor,
    SharedRef,
    Spec,
    infer_fail,
    infer_request_alloc,
    infer_request_free,
)
from server._fast.layout cimport (
    MAX_INSTANCES,
    MAX_RANK,
    MODE_SHAPED,
    TRACE_CELLS,
    Arena,
    Control,
    SlabHeader,
)
from server._fast.lane_admission cimport LaneAdmission
from server._fast.queue_levels cimport level_of, level_stale_after
from server._fast.slab_ring cimport (
    ALONE_ATTEMPTS,
    SLAB_DONE,
    SLAB_RUNNING,
    SLAB_SEALED,
    ring_cancel,
    ring_finished,
    ring_publish,
    ring_recycle,
    ring_release,
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


cdef const char* EXPIRED = b"Request timeout expired: it waited past its deadline"

cdef class Responder:
    cdef int deliver(self, InferCall call) except -1:
        return 0

    cdef void broken(self) noexcept:
        pass

    cdef str protocol_of(self, InferCall call):
        return ""


cdef class Turn:
    cdef int lane_due(self, LaneClient lane) except -1:
        return 0

    cdef int deadline_due(self, uint64_t deadline_ns) except -1:
        return 0


@cython.freelist(256)
cdef class InferCall:
    """One accepted inference request until its reply is written."""

    def __cinit__(self):
        self.timeout_ns = -1

    def __dealloc__(self):
        if self.parts != &self.one_part:
            free(self.parts)
        if self.request.outputs != self.inline_outputs:
            free(self.request.outputs)
        if self.request.id.p != self.inline_id:
            free(<void*>self.request.id.p)
        free(self.error)
        free(self.shared)

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
        if r.shared_count:
            self.keep_shared(r)
        return 0

    cdef int keep_shared(self, const InferRequest* r) except -1:
        """Where outputs go in shared memory."""
        cdef int i
        self.shared = <SharedRef*>calloc(r.n_outputs + 1, sizeof(SharedRef))
        if self.shared == NULL:
            raise MemoryError()
        for i in range(r.n_outputs):
            if r.outputs[i].shared != NULL:
                self.shared[i] = r.outputs[i].shared[0]
                self.request.outputs[i].shared = &self.shared[i]
        return 0


cdef class LaneClient(LaneAdmission):
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
        self.row_dims = <int64_t*>calloc((self.model.n_inputs + 1) * MAX_RANK, sizeof(int64_t))
        if self.first_pending == NULL or self.last_pending == NULL or self.replies == NULL or self.row_dims == NULL:
            raise MemoryError()
        if infer_request_alloc(&self.request, self.model) < 0:
            raise MemoryError()

    def __dealloc__(self):
        free(self.first_pending)
        free(self.last_pending)
        free(self.replies)
        free(self.segments.segments)
        free(self.row_dims)
        infer_request_free(&self.request)

    cdef int submit(self, InferCall call, uint64_t now, InferError* err) except -2:
        """Claims rows for `self.request`, fills and publishes them: 0, or -1 with the refusal in err.

        After 0 the call is in flight: its responder gets deliver() exactly once, unless cancel() comes first. The
        executor is woken at the end of the loop turn.
        """
        cdef uint32_t i
        cdef uint64_t deadline_ns, stale_ns = 0
        cdef uint32_t level = level_of(self.v, self.request.priority)
        cdef PartList part_list
        cdef Part* part
        cdef int code
        call.lane = self
        if not self.is_accepting():
            # It was when the head was read: nobody would come for rows of a lane that has failed since.
            self.refused(REASON_REJECTED)
            return infer_fail(err, INFER_UNAVAILABLE, "model '%.*s' is not ready", <int>self.model.name.n,
                              self.model.name.p)
        if call.arrived_ns == 0:
            call.arrived_ns = call.received_ns
        deadline_ns = self.deadline_of(
            call.arrived_ns, call.timeout_ns, level, self.request.timeout_us, &stale_ns)
        if deadline_ns and deadline_ns <= now_ns():
            self.refused(REASON_TIMEOUT)
            return infer_fail(err, INFER_DEADLINE, "%s", EXPIRED)
        if (
            self.v.level_count > 1 or (deadline_ns and (self.request.rows > 1 or self.request.timeout_us))
        ) and self.refuse(
            self.predict(call.arrived_ns, deadline_ns, level, self.request.rows, self.turn.lag_ns), err
        ) < 0:
            # The head did not say how much it is, how little time it has, or behind whom it waits.
            return -1
        call.deadline_ns = deadline_ns
        call.keep_request(&self.request)
        with nogil:
            part_list.one = &call.one_part
            if self.reserved.row_count:
                code = infer_claim_reserved(self.v, self.model, self.owner, now, &self.reserved, &part_list, err)
                self.reserved.row_count = 0
            else:
                code = infer_claim(self.v, self.model, &self.request, self.owner, now, self.row_dims, &part_list, err)
                if code == 0:
                    code = infer_fill(
                        self.v, self.model, &self.request, part_list.parts, part_list.part_count, err)
            call.parts = part_list.parts
            call.part_count = part_list.part_count
        if code < 0:
            self.abandon(call)
            if err.code == INFER_UNAVAILABLE:
                self.refused(REASON_REJECTED)
                err.retry_after_s = self.retry_after_s()
            else:
                self.refused(REASON_INVALID if err.code != INFER_INTERNAL else REASON_INTERNAL)
            return -1
        call.published_ns = now_ns()
        call.parts_left = call.part_count
        call.in_flight = True
        relaxed_add(&self.stats.inflight_count, 1)
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
            if self.v.is_ranked:
                level_stale_after(self.v, part.claim.slab, stale_ns if stale_ns else deadline_ns)
            ring_publish(self.v, self.owner, &part.claim, call.published_ns, deadline_ns)
        if self.is_ordered:
            self.line_up(call)
        if not self.wake_due:
            self.wake_due = True
            self.turn.lane_due(self)
        if deadline_ns and (self.first_deadline_ns == 0 or deadline_ns < self.first_deadline_ns):
            self.first_deadline_ns = deadline_ns
            self.turn.deadline_due(deadline_ns)
        self.unwoken_rows += self.request.rows
        if self.unwoken_rows >= self.v.row_capacity:
            # A turn that reads many requests must not keep a full batch from running.
            self.unwoken_rows = 0
            lane_wake(self.v.lane, self.instance_bells)
        return 0

    cdef void abandon(self, InferCall call) noexcept:
        """Gives back the rows of a call that was refused while it was claimed or filled."""
        cdef uint32_t i
        for i in range(call.part_count):
            ring_cancel(self.v, self.owner, &call.parts[i].claim)
        if call.part_count:
            # The executor frees a slab of cancelled rows when it passes; nobody else may come along to wake it.
            self.wake_later()

    cdef void wake_later(self) noexcept:
        """Has the executor woken at the end of the loop turn."""
        if self.wake_due:
            return
        self.wake_due = True
        try:
            self.turn.lane_due(self)
        except BaseException:
            lane_wake(self.v.lane, self.instance_bells)

    cdef int wake(self) noexcept:
        """End of the loop turn: one wake-up for all that was published in it; whether it took a system call."""
        self.wake_due = False
        self.unwoken_rows = 0
        if self.is_ordered:
            # A call that was cancelled stands in nobody's way any more.
            self.deliver_in_order(now_ns())
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
            # Rows of a slab that an executor died with are run and answered one by one; those of a slab in which a row
            # took too long to fill, or whose outputs found no room, in several passes.
            if slab_state(word) == SLAB_DONE or (
                (slab_state(word) == SLAB_RUNNING or slab_state(word) == SLAB_SEALED)
                and (
                    relaxed_load_half(&self.v.slabs[slab].attempts) >= ALONE_ATTEMPTS
                    or relaxed_load_half(&self.v.slabs[slab].passes) > 0
                )
            ):
                self.collect_slab(slab, now)
        if self.is_ordered:
            self.deliver_in_order(now)
        return 0

    cdef void line_up(self, InferCall call) noexcept:
        Py_INCREF(call)
        if self.last_call == NULL:
            self.first_call = <PyObject*>call
        else:
            (<InferCall>self.last_call).next_call = <PyObject*>call
        self.last_call = <PyObject*>call

    cdef int deliver_in_order(self, uint64_t now) except -1:
        """Delivers finished calls up to the first one that is not.

        No call waits for one behind it: rows lie in slabs in the order in which they were claimed, so what holds a row
        up (room for outputs that nobody has read) belongs to calls before it.
        """
        cdef InferCall call
        while self.first_call != NULL:
            call = <InferCall>self.first_call
            if call.in_flight and not call.is_held:
                return 0
            self.first_call = call.next_call
            if self.first_call == NULL:
                self.last_call = NULL
            Py_DECREF(call)
            if call.in_flight:
                call.is_held = False
                self.pending_count -= 1
                self.finish(call, now)
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
                if call.parts_left == 0 and not self.is_ordered:
                    self.finish(call, now)
                elif call.parts_left == 0:
                    # Still pending, as it holds rows.
                    call.is_held = True
                    self.pending_count += 1
                Py_DECREF(call)
            part = following
        if kept_first != NULL:
            self.first_pending[slab] = kept_first
            self.last_pending[slab] = kept_last
        ring_recycle(self.v, slab)
        return 0

    cdef int note_failure(self, InferCall call, Part* part, uint64_t failed_word) except -1:
        """Keeps the first failure's text: the row is freed before the reply may be written."""
        if call.error != NULL:
            return 0
        call.error = <InferError*>calloc(1, sizeof(InferError))
        if call.error == NULL:
            raise MemoryError()
        infer_failure(self.v, self.model, part, failed_word, call.error)
        return 0

    cdef int check_outputs(self, InferCall call) except -1:
        """Shaped mode: a call whose rows' outputs cannot be joined fails."""
        cdef InferError why
        why.code = 0
        if infer_outputs_check(self.v, self.model, &call.request, call.parts, call.part_count, &why) == 0:
            return 0
        call.error = <InferError*>calloc(1, sizeof(InferError))
        if call.error == NULL:
            raise MemoryError()
        call.error[0] = why
        return 0

    cdef int share_outputs(self, InferCall call) except -1:
        """Outputs that the client wants in its shared memory; the call fails when there is no room."""
        cdef InferError why
        why.code = 0
        if self.reply_tensors(call) < 0:
            infer_fail(&why, INFER_INTERNAL, "out of memory for the reply")
        elif infer_shared_write(self.replies, call.request.n_outputs, self.model, &why) == 0:
            return 0
        call.error = <InferError*>calloc(1, sizeof(InferError))
        if call.error == NULL:
            raise MemoryError()
        call.error[0] = why
        return 0

    cdef int finish(self, InferCall call, uint64_t now) except -1:
        cdef uint32_t i
        cdef SlabHeader* slab = &self.v.slabs[call.parts[0].claim.slab]
        cdef uint64_t run_start = relaxed_load(&slab.run_start_ns), run_end = relaxed_load(&slab.run_end_ns)
        cdef int reason
        call.in_flight = False
        relaxed_store(&self.stats.inflight_count, relaxed_load(&self.stats.inflight_count) - 1)
        if self.v.mode == MODE_SHAPED and call.error == NULL:
            self.check_outputs(call)
        if call.shared != NULL and call.error == NULL:
            self.share_outputs(call)
        if call.error == NULL:
            relaxed_add(&self.stats.success_count, 1)
            relaxed_add(&self.stats.row_count, call.request.rows)
            # Here and not in submit: the stages of the successes add up to their whole time.
            relaxed_add(&self.stats.parse_ns, call.published_ns - call.received_ns)
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
        if call.deadline_ns:
            admission_answered(&self.pressure, now - call.arrived_ns, call.deadline_ns - call.arrived_ns, now)
        try:
            call.responder.deliver(call)
        except Exception:
            # Out of memory while the reply was written. The slab's other calls must still be answered.
            call.responder.broken()
        # A row answered alone, before its slab is done, has no end of its own.
        if call.error == NULL and run_start <= run_end <= now:
            relaxed_add(&self.stats.reply_ns, now - run_end)
        if self.trace_rate:
            self.trace(call, run_start, run_end)
        for i in range(call.part_count):
            ring_release(self.v, self.owner, &call.parts[i].claim)
            if self.v.mode == MODE_SHAPED and relaxed_load_half(&self.v.slabs[call.parts[i].claim.slab].crowded):
                self.wake_later()
            if call.part_count > 1 or self.is_ordered:
                ring_recycle(self.v, call.parts[i].claim.slab)
        call.responder = None
        return 0

    cdef int expire(self, uint64_t now) except -1:
        """Answers calls whose deadline has passed, wherever their rows are. O(slabs + calls in flight)."""
        cdef uint32_t slab
        cdef Part* part
        cdef InferCall call
        cdef list expired = []
        self.first_deadline_ns = 0
        for slab in range(self.v.slab_count):
            part = self.first_pending[slab]
            while part != NULL:
                call = <InferCall>part.call
                if call.deadline_ns:
                    if call.deadline_ns <= now:
                        expired.append(call)
                    elif self.first_deadline_ns == 0 or call.deadline_ns < self.first_deadline_ns:
                        self.first_deadline_ns = call.deadline_ns
                part = part.next
        for call in expired:
            if call.in_flight:
                self.time_out(call, now)
        return 0

    cdef int time_out(self, InferCall call, uint64_t now) except -1:
        """The deadline has passed: rows that have not begun to run never will, and the client is told."""
        call.error = <InferError*>calloc(1, sizeof(InferError)) if call.error == NULL else call.error
        if call.error == NULL:
            raise MemoryError()
        infer_fail(call.error, INFER_DEADLINE, "%s", EXPIRED)
        self.let_go(call, REASON_TIMEOUT)
        relaxed_add(&self.stats.failure_ns, now - call.received_ns)
        admission_answered(&self.pressure, now - call.arrived_ns, call.deadline_ns - call.arrived_ns, now)
        try:
            call.responder.deliver(call)
        except Exception:
            call.responder.broken()
        if self.trace_rate:
            self.trace(call, call.published_ns, call.published_ns)
        call.responder = None
        return 0

    def set_trace(self, uint64_t rate, int cell, Control control, object sink):
        """From now on one of `rate` requests is told to sink(id, protocol, code, times in ns), by the counts of a cell.

        The times: received, published, run begun, run ended, reply written. Rate 0: none.
        """
        if control is not None:
            if not 0 <= cell < TRACE_CELLS:
                raise IndexError(f"trace cell {cell}: expected 0..{TRACE_CELLS - 1}")
            self.trace_cell = &control.header.trace[cell]
        elif rate:
            raise ValueError("tracing needs the control segment")
        self.trace_control = control
        self.trace_sink = sink
        self.trace_rate = rate

    cdef void trace(self, InferCall call, uint64_t run_start, uint64_t run_end) noexcept:
        """Tells of a finished call if its turn has come. What a worker takes from a count is gone if it dies then."""
        if shared_next(&self.trace_cell.seen_count) % self.trace_rate:
            return
        if not shared_take(&self.trace_cell.left_count):
            return
        self.trace_sink(
            call.request.id.p[:call.request.id.n] if call.request.has_id else b"",
            call.responder.protocol_of(call),
            0 if call.error == NULL else call.error.code,
            (call.received_ns, call.published_ns, run_start, run_end, now_ns()),
        )

    cdef int reply_tensors(self, InferCall call) noexcept nogil:
        """Fills self.replies with the outputs that the call asked for, as they lie in the slabs: 0, or -1 no memory."""
        return infer_outputs(self.v, self.model, &call.request, call.parts, call.part_count, self.replies,
                             &self.segments)

    cdef void cancel(self, InferCall call) noexcept:
        """The client has gone: rows that have not begun to run never will, and nobody is told."""
        if call.in_flight:
            self.let_go(call, REASON_CANCELED)
            call.responder = None

    cdef void let_go(self, InferCall call, int reason) noexcept:
        """Takes a call out of flight, whatever its rows are doing."""
        cdef uint32_t i
        call.in_flight = False
        relaxed_store(&self.stats.inflight_count, relaxed_load(&self.stats.inflight_count) - 1)
        relaxed_add(&self.stats.failure_counts[reason], 1)
        self.pending_count -= call.is_held
        for i in range(call.part_count):
            if self.unlink(&call.parts[i]):
                self.pending_count -= 1
                Py_DECREF(call)
            ring_cancel(self.v, self.owner, &call.parts[i].claim)
        self.wake_later()

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
