"""C face of HTTP/1.1 connections."""

from libc.stdint cimport uint64_t

from server._fast.http1_answer cimport Http1Answer
from server._fast.http1_body cimport Http1Body

cdef enum ConnectionState:
    READ_HEAD = 0
    READ_BODY = 1
    READ_CODED = 2     # in chunks or in a content coding
    SKIP_BODY = 3      # of a request that was refused from its head
    LINGER = 4         # the last answer is sent; bytes that still come are thrown away
    CLOSED = 5


cdef class Http1Connection(Http1Answer):
    cdef int state
    cdef char* own                 # a partial request: head and body as far as they are here
    cdef size_t own_bytes
    cdef size_t own_capacity
    cdef size_t need_bytes         # READ_BODY: head and body; SKIP_BODY: what is still to come
    cdef Http1Body body            # READ_CODED
    cdef bint is_decoding          # more of it waits in the front end's slices: reading is paused
    cdef bint is_blocked           # too many requests wait: reading is paused
    cdef bint must_linger
    cdef bint is_fresh             # no request was read yet
    cdef bint wants_continue
    cdef bint got_eof
    cdef bint is_paused
    cdef bint is_lingering
    cdef size_t spilled_bytes
    cdef uint64_t request_ns       # when the first byte of the request being read came; 0 between requests
    cdef uint64_t body_bytes_seen

    cdef int consume_all(self, const char* p, size_t n) except -1
    cdef Py_ssize_t consume(self, const char* p, size_t n) except -1
    cdef int next_request(self) except -1
    cdef Py_ssize_t read_head(self, const char* p, size_t n) except -2
    cdef int hand_over(self, object successor, const char* p, size_t n) except -1
    cdef bint upgrade(self, const char* p, size_t n) except -1
    cdef int begin_body(self, const char* p, size_t n) except -2
    cdef int send_continue(self) except -1
    cdef Py_ssize_t read_coded(self, const char* p, size_t n) except -2
    cdef int drop_body(self) except -1
    cdef int keep(self, const char* p, size_t n, size_t capacity) except -1
    cdef int drop_own(self) except -1
    cdef int refuse(self, int error, const char* extra) except -2
    cdef int refuse_head(self, int status, const char* message, const char* extra) except -2
    cdef int fail(self, int error) except -1
    cdef int begin_close(self) except -1
    cdef int pause(self) except -1
    cdef int resume(self) except -1
    cdef uint64_t received_of_request(self) noexcept
