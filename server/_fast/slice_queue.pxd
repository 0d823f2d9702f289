"""C face of long work in slices."""

from libc.stdint cimport uint64_t

cdef enum:
    #: A slice ends at the first step behind this.
    SLICE_NS = 1000000


cdef class SliceQueue:
    cdef object loop
    cdef object run_call
    cdef object waiting            # a deque of callables

    # work() does a slice and says whether there is more of it; one that raises is not called again.
    cdef int add(self, object work) except -1
