"""C face of bodies that are received into the rows they are for."""

from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint64_t

from server._fast.frontend cimport Frontend
from server._fast.infer_call cimport LaneClient
from server._fast.slab_ring cimport Claim

#: A rest that is shorter than this is copied: it costs less than the bookkeeping.
cdef enum:
    LEAST_ROW_BYTES = 65536


cdef class RowBody:
    cdef LaneClient lane           # None: nothing is being received
    cdef Claim claim
    cdef char* rows                # where the tensor lies
    cdef size_t head_bytes         # of the body, before the tensor
    cdef size_t size_bytes         # of the tensor
    cdef size_t got_bytes
    cdef uint64_t begun_ns

    # Whether the rest of a body of `total_bytes` can come into rows, of which p[0:n] is here: p[0:head_bytes] stays
    # the caller's to keep, the rest of it lies in the rows afterwards. form, header_bytes: see rest_submit.
    cdef bint begin(self, Frontend frontend, LaneClient lane, int form, const char* p, size_t n, size_t total_bytes,
                    int64_t header_bytes, uint64_t now) except -1
    # Lets the lane's next request have the rows.
    cdef void pass_on(self) noexcept
    # Gives up rows that were not passed on, or not taken.
    cdef void end(self) noexcept
