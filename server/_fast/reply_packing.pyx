"""Replies that are compressed, a slice in each turn of the loop.

It does not know protocols: subclasses say who waits and how the result is sent. The object owns the bytes. One event
loop thread; O(bytes), about 10 ns each.
"""

from libc.string cimport memset

from server._fast.clock cimport now_ns
from server._fast.content_coding cimport (
    CODING_NO_MEMORY,
    CODING_PAUSED,
    deflate_begin,
    deflate_end,
    deflate_some,
)
from server._fast.outbuf cimport OutBuf, outbuf_free
from server._fast.slice_queue cimport SLICE_NS, SliceQueue


cdef class Packing:
    def __cinit__(self):
        memset(&self.deflater, 0, sizeof(self.deflater))

    def __dealloc__(self):
        deflate_end(&self.deflater)
        outbuf_free(&self.body)
        outbuf_free(&self.packed)

    cdef int pack(self, OutBuf* body, int coding, SliceQueue slices) except -1:
        cdef int code
        self.coding = coding
        if deflate_begin(&self.deflater, coding) < 0:
            raise MemoryError()
        code = deflate_some(&self.deflater, body.data, body.len, &self.body_used, &self.packed, now_ns() + SLICE_NS)
        if code == CODING_NO_MEMORY:
            raise MemoryError()
        if code != CODING_PAUSED:
            return self.finish()
        self.body = body[0]
        body[0] = OutBuf(NULL, 0, 0)
        return slices.add(self.go_on)

    def go_on(self):
        """A slice; whether there is more of it."""
        cdef size_t used = 0
        cdef int code
        if not self.is_wanted():
            return False
        code = deflate_some(
            &self.deflater, self.body.data + self.body_used, self.body.len - self.body_used, &used, &self.packed,
            now_ns() + SLICE_NS)
        self.body_used += used
        if code == CODING_PAUSED:
            return True
        try:
            if code == CODING_NO_MEMORY:
                raise MemoryError()
            self.finish()
        except Exception as error:
            self.failed(error)
        return False

    cdef bint is_wanted(self) noexcept:
        return True

    cdef int finish(self) except -1:
        return 0

    cdef int failed(self, object error) except -1:
        return 0
