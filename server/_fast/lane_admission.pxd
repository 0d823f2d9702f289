"""C face of a lane's door: which requests may claim rows, and until when they wait."""

from libc.stdint cimport int64_t, uint32_t, uint64_t

from server._fast.admission cimport REFUSE_FULL, REFUSE_PAST, LanePressure
from server._fast.infer_spec cimport InferError
from server._fast.layout cimport ArenaView, StatsBlock


#: What a refused client is told.
cdef inline const char* refusal_text(int code) noexcept nogil:
    if code == REFUSE_FULL:
        return b"Exceeds maximum queue size: the queue of this model is full, try again later"
    if code == REFUSE_PAST:
        return b"Request timeout expired: the deadline had passed when the request could be read"
    return b"this model cannot answer before the request's deadline: too many requests wait, try again later"


cdef class LaneAdmission:
    cdef ArenaView* v
    cdef StatsBlock* stats
    cdef public int64_t fallback_timeout_us     # of the server, where neither request nor model says one; 0: none
    cdef LanePressure pressure
    cdef uint32_t random

    cdef bint is_making_room

    cdef bint is_accepting(self) noexcept
    # LaneClient's: delivers what is finished.
    cdef int collect(self) except -1
    # Before admit(): frees what is finished and was not read yet in this turn of the loop, where the lane is full.
    cdef int make_room(self) except -1
    # From a request's head: an AdmissionCode; a refusal is counted. timeout_ns < 0: none said; lag_ns: of the loop.
    cdef int admit(self, uint64_t arrived_ns, int64_t timeout_ns, uint64_t lag_ns) noexcept
    cdef uint64_t deadline_of(self, uint64_t arrived_ns, int64_t timeout_ns, uint32_t level, int64_t timeout_us,
                              uint64_t* stale_ns) noexcept
    # The same once deadline, level and rows are known.
    cdef int predict(self, uint64_t arrived_ns, uint64_t deadline_ns, uint32_t level, uint32_t rows,
                     uint64_t lag_ns) noexcept
    # An AdmissionCode in words: 0, or -1 and the refusal.
    cdef int refuse(self, int code, InferError* err) noexcept
    # admit() and refuse().
    cdef int admit_or_fail(self, uint64_t arrived_ns, int64_t timeout_ns, uint64_t lag_ns, InferError* err) noexcept
    cdef int retry_after_s(self) noexcept
    cdef void refused(self, int reason) noexcept
