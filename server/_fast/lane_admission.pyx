"""The door of a lane in a worker: refuses from a request's head what could not be answered in time.

It knows the lane's load, the model's time limits and counts refusals; it does not know requests, calls or protocols.
Base of LaneClient, which owns the view and the statistics that it uses; the worker's event loop thread. A look costs
O(slabs), nothing is allocated.
"""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from server._fast.admission cimport (
    ADMIT,
    PATIENCE_S,
    REFUSE_FULL,
    REFUSE_PAST,
    REFUSE_PREDICTED,
    LaneLoad,
    admission_decide,
    admission_look,
    admission_margin,
    admission_retry_after_s,
)
from server._fast.atomics cimport half_load, relaxed_add
from server._fast.clock cimport now_ns
from server._fast.cost_table cimport cost_of
from server._fast.infer_spec cimport INFER_DEADLINE, INFER_UNAVAILABLE, InferError, infer_fail
from server._fast.layout cimport MODEL_READY, MODEL_RESTARTING
from server._fast.queue_levels cimport MAX_TIMEOUT_US, level_times
from server._fast.request_timeout cimport request_timeout_ns
from server._fast.slab_ring cimport ring_has_room
from server._fast.stats cimport REASON_REJECTED, REASON_TIMEOUT

cdef uint64_t PATIENCE_NS = <uint64_t>PATIENCE_S * <uint64_t>1000000000


cdef class LaneAdmission:
    """Base of LaneClient."""

    cdef bint is_accepting(self) noexcept:
        """Whether requests may queue: the model is ready, or its executor is on its way back."""
        cdef uint32_t state = half_load(&self.v.lane.model_state)
        return state == MODEL_READY or state == MODEL_RESTARTING

    cdef int collect(self) except -1:
        return 0

    cdef int make_room(self) except -1:
        """A turn that reads many requests of one row may use up all slabs, however fast the executor is: those that it
        has done wait for the turn's end. Deliveries may come back here for another request: once is enough.
        """
        if self.is_making_room or ring_has_room(self.v):
            return 0
        self.is_making_room = True
        try:
            return self.collect()
        finally:
            self.is_making_room = False

    cdef void refused(self, int reason) noexcept:
        """Counts a request that never got rows."""
        relaxed_add(&self.stats.failure_counts[reason], 1)

    cdef uint64_t deadline_of(self, uint64_t arrived_ns, int64_t timeout_ns, uint32_t level, int64_t timeout_us,
                              uint64_t* stale_ns) noexcept:
        """When the client gives up or its queue's policy refuses it, 0 for never: timeout_ns is how long it waits by
        its protocol (< 0: not said), timeout_us what it asks the server to wait (0: not said), which the policy of its
        level may overrule. stale_ns: when it has to let others pass, 0 for never.
        """
        cdef uint64_t deadline_ns, gone_ns
        level_times(self.v, level, timeout_us, arrived_ns, &deadline_ns, stale_ns)
        if timeout_ns < 0 and timeout_us <= 0 and deadline_ns == 0 and stale_ns[0] == 0 and self.fallback_timeout_us:
            timeout_ns = self.fallback_timeout_us * 1000
        # Longer than a century is for ever.
        if 0 <= timeout_ns < <int64_t>MAX_TIMEOUT_US * 1000:
            gone_ns = arrived_ns + <uint64_t>timeout_ns
            return min(deadline_ns, gone_ns) if deadline_ns else gone_ns
        return deadline_ns

    cdef int admit(self, uint64_t arrived_ns, int64_t timeout_ns, uint64_t lag_ns) noexcept:
        cdef uint64_t stale_ns
        if not ring_has_room(self.v):
            self.refused(REASON_REJECTED)
            return REFUSE_FULL
        if self.v.level_count > 1:
            # Its level stands in the body: who is first passes all others, and none is refused for its queue's policy.
            if timeout_ns < 0:
                return ADMIT
            return self.predict(arrived_ns, arrived_ns + <uint64_t>timeout_ns, 0, 1, lag_ns)
        return self.predict(arrived_ns, self.deadline_of(arrived_ns, timeout_ns, 0, 0, &stale_ns), 0, 1, lag_ns)

    cdef int predict(self, uint64_t arrived_ns, uint64_t deadline_ns, uint32_t level, uint32_t rows,
                     uint64_t lag_ns) noexcept:
        cdef uint64_t now, budget_ns
        cdef LaneLoad load
        cdef int code
        if deadline_ns == 0 and cost_of(self.v, <uint64_t>self.v.slab_count * self.v.row_capacity) < PATIENCE_NS:
            # Whatever waits, it does not take so long: most requests end here.
            return ADMIT
        budget_ns = deadline_ns - arrived_ns if deadline_ns else 0
        now = now_ns()
        admission_look(self.v, level, rows, now, &load)
        code = admission_decide(
            &load, now, deadline_ns, admission_margin(budget_ns, lag_ns, self.pressure.level))
        if code == REFUSE_PAST:
            self.refused(REASON_TIMEOUT)
        elif code == REFUSE_PREDICTED:
            self.refused(REASON_REJECTED)
            relaxed_add(&self.stats.predicted_count, 1)
        return code

    cdef int admit_or_fail(self, uint64_t arrived_ns, int64_t timeout_ns, uint64_t lag_ns, InferError* err) noexcept:
        return self.refuse(self.admit(arrived_ns, timeout_ns, lag_ns), err)

    cdef int refuse(self, int code, InferError* err) noexcept:
        if code == ADMIT:
            return 0
        infer_fail(err, INFER_DEADLINE if code == REFUSE_PAST else INFER_UNAVAILABLE, "%s", refusal_text(code))
        if code != REFUSE_PAST:
            err.retry_after_s = self.retry_after_s()
        return -1

    cdef int retry_after_s(self) noexcept:
        """When a request that is refused now should come again."""
        cdef LaneLoad load
        admission_look(self.v, self.v.level_count - 1, 1, now_ns(), &load)
        self.random = self.random * 1664525 + 1013904223
        return admission_retry_after_s(load.run_left_ns + load.work_ns, self.random >> 16)


def request_timeout(bytes text not None):
    """X-Request-Timeout in ns, -2 when it cannot be read."""
    return request_timeout_ns(text, len(text))
