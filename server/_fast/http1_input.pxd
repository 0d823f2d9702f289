"""C face of where an HTTP/1.1 connection keeps a partial request."""

from libc.stddef cimport size_t

from server._fast.http1_answer cimport Http1Answer
from server._fast.row_body cimport RowBody

cdef enum ConnectionState:
    READ_HEAD = 0
    READ_BODY = 1
    READ_CODED = 2     # in chunks or in a content coding
    READ_ROWS = 3      # its tensor comes straight into the rows it is for
    SKIP_BODY = 4      # of a request that was refused from its head
    LINGER = 5         # the last answer is sent; bytes that still come are thrown away
    CLOSED = 6


#: A body that is announced as at least this long gets this much memory with its first bytes.
cdef enum:
    FIRST_OWN_BYTES = 1048576


cdef inline size_t own_room(size_t wanted_bytes, size_t need_bytes) noexcept nogil:
    """How much memory a request of need_bytes gets, of which so much is wanted for what has come."""
    cdef size_t least = FIRST_OWN_BYTES  # an enum is an int
    return min(need_bytes, max(wanted_bytes, least))


cdef class Http1Input(Http1Answer):
    cdef int state
    cdef char* own                 # a partial request: head and body as far as they are here
    cdef size_t own_bytes
    cdef size_t own_capacity
    cdef size_t need_bytes         # READ_BODY: head and body; SKIP_BODY: what is still to come
    cdef RowBody rows              # READ_ROWS: `own` holds what comes before the tensor
    cdef bint is_bulk              # the last request was long: the next one's first bytes come alone

    cdef int consume_all(self, const char* p, size_t n) except -1
    cdef int next_request(self) except -1
    cdef bint begin_rows(self, const char* p, size_t n) except -1
    cdef int end_rows(self) except -1
    cdef int copy_rows(self) except -1
    cdef int drop_rows(self) except -1
    cdef int keep(self, const char* p, size_t n, size_t capacity) except -1
    cdef int drop_own(self) except -1
