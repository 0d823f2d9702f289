"""C face of what an HTTP/1.1 connection answers."""

from libc.stdint cimport int64_t, uint64_t

from server._fast.http1 cimport HttpHead
from server._fast.http1_output cimport Http1Output
from server._fast.infer_call cimport LaneClient
from server._fast.reply_packing cimport Packing


cdef class Http1Answer(Http1Output):
    cdef object port
    cdef HttpHead head             # of the request being read
    cdef LaneClient lane           # of that request, if it is an inference that may run
    cdef int form                  # what that inference speaks: rest_codec
    cdef int cors                  # as in its slot
    cdef int64_t timeout_ns        # of that request: how long its client waits; < 0: not said
    cdef uint64_t request_ns       # when the first byte of the request being read came; 0 between requests
    cdef list calls                # by slot: the InferCall in flight, or None

    # A complete request, its head at p, its body apart: answers it or sets its call in flight.
    cdef int answer(self, const char* p, const char* body, size_t n) except -1
    cdef int next_slot(self) except -1
    cdef int answer_inference(self, const char* p, const char* body, size_t n) except -1
    cdef int answer_control(self, const char* p, const char* body, size_t n) except -1
    cdef int write_control(self, int slot, object response) except -1


cdef class Http1Packing(Packing):
    cdef Http1Answer connection
    cdef int slot
