"""C face of HTTP/1.1 connections."""

from libc.stdint cimport uint64_t

from server._fast.http1_body cimport Http1Body
from server._fast.http1_input cimport Http1Input


cdef class Http1Connection(Http1Input):
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
    cdef size_t asked_bytes        # room that the transport was given for the present receive
    cdef uint64_t arrival_ns       # when what was received last came, at the earliest
    cdef uint64_t backlog_ns       # bytes may have waited in the socket since then; 0: it was empty a moment ago
    cdef uint64_t resumed_ns       # when they could be read again
    cdef int note_arrival(self, size_t received) noexcept
    cdef uint64_t body_bytes_seen

    cdef int consume_all(self, const char* p, size_t n) except -1
    cdef Py_ssize_t consume(self, const char* p, size_t n) except -1
    cdef int next_request(self) except -1
    cdef Py_ssize_t read_head(self, const char* p, size_t n) except -2
    cdef int hand_over(self, object successor, const char* p, size_t n) except -1
    cdef bint upgrade(self, const char* p, size_t n) except -1
    cdef int read_timeout(self, const char* p) except -2
    cdef int admit(self) except -2
    cdef int begin_body(self, const char* p, size_t n) except -2
    cdef int send_continue(self) except -1
    cdef Py_ssize_t read_coded(self, const char* p, size_t n) except -2
    cdef int drop_body(self) except -1
    cdef int refuse(self, int error, const char* extra) except -2
    cdef int refuse_head(self, int status, const char* message, const char* extra) except -2
    cdef int fail(self, int error) except -1
    cdef int begin_close(self) except -1
    cdef int pause(self) except -1
    cdef int resume(self) except -1
    cdef uint64_t received_of_request(self) noexcept
