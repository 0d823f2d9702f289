"""Where an HTTP/1.1 connection keeps a request that is not complete: memory of its own, or the rows that it is for.

It knows the two places and when one takes the other's part; it does not know how requests are read nor what they are
answered. Its own memory is bounded by what has come, not by what was announced, and counted for all connections of the
worker. One connection, one event loop thread; O(bytes).
"""

from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memmove

from server._fast.http1_answer cimport Http1Answer
from server._fast.row_body cimport LEAST_ROW_BYTES, RowBody

cdef size_t KEEP_OWN_BYTES = 1 << 16


cdef class Http1Input(Http1Answer):
    """Base of Http1Connection."""

    def __dealloc__(self):
        free(self.own)

    cdef int consume_all(self, const char* p, size_t n) except -1:
        return 0

    cdef int next_request(self) except -1:
        return 0

    cdef bint begin_rows(self, const char* p, size_t n) except -1:
        """Whether the rest of the body, which begins at p with its head, comes into the rows that it is for."""
        cdef size_t head_bytes = self.head.head_bytes
        self.is_bulk = self.need_bytes - n >= LEAST_ROW_BYTES
        if not self.is_bulk or self.lane is None:
            return False
        if self.rows is None:
            self.rows = RowBody.__new__(RowBody)
        if not self.rows.begin(
            self.frontend, self.lane, self.form, p + head_bytes, n - head_bytes, self.need_bytes - head_bytes,
            self.head.inference_header_length, self.active_ns,
        ):
            return False
        self.state = READ_ROWS
        self.keep(p, head_bytes + self.rows.head_bytes, head_bytes + self.rows.head_bytes)
        return True

    cdef int end_rows(self) except -1:
        """The rows are filled: answers the request."""
        if not self.rows.lane.is_accepting() or self.rows.lane.is_retired:
            # Others have to run it, or to say why not.
            self.copy_rows()
            return self.consume_all(self.own, self.own_bytes)
        self.rows.pass_on()
        self.answer(self.own, self.own + self.head.head_bytes, self.need_bytes - self.head.head_bytes)
        self.drop_rows()
        self.next_request()
        return self.drop_own()

    cdef int copy_rows(self) except -1:
        """Goes on with the body in the connection's own memory: what has come of it is copied from the rows."""
        cdef size_t had = self.own_bytes, n = had + self.rows.got_bytes
        self.state = READ_BODY
        self.keep(NULL, 0, own_room(2 * n, self.need_bytes))
        memcpy(self.own + had, self.rows.rows, self.rows.got_bytes)
        self.own_bytes = n
        return self.drop_rows()

    cdef int drop_rows(self) except -1:
        if self.rows is not None:
            self.rows.end()
        return 0

    cdef int keep(self, const char* p, size_t n, size_t capacity) except -1:
        """Moves p[0:n] to the connection's own memory, with room for `capacity` bytes. p may lie in it already."""
        cdef char* grown
        if capacity < n:
            capacity = n
        if capacity + 4096 > self.own_capacity:
            if p >= self.own and p < self.own + self.own_capacity and p != NULL:
                memmove(self.own, p, n)
                p = NULL
            grown = <char*>realloc(self.own, capacity + 8192)
            if grown == NULL:
                raise MemoryError()
            self.frontend.held_bytes += capacity + 8192 - self.own_capacity
            self.own = grown
            self.own_capacity = capacity + 8192
            if p == NULL:
                self.own_bytes = n if n else self.own_bytes
                return 0
        if p != NULL:
            if p != self.own:
                memmove(self.own, p, n)
            self.own_bytes = n
        return 0

    cdef int drop_own(self) except -1:
        self.own_bytes = 0
        if self.own_capacity > KEEP_OWN_BYTES or self.state == CLOSED:
            self.frontend.held_bytes -= self.own_capacity
            self.frontend.is_trim_due = True
            free(self.own)
            self.own = NULL
            self.own_capacity = 0
        return 0
