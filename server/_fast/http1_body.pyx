"""Request bodies that do not stand on the wire as they are: in chunks, in a content coding, or both.

It knows framing and codings and one limit; it does not know requests, connections or answers. The object owns the
decoded body, with a copy of the head in front, and what was received and waits to be inflated: never more than the
limit and one receive. One connection, one event loop thread. O(bytes); what takes long can be worked off in slices.
"""

from libc.stdint cimport int64_t, uint64_t
from libc.string cimport memset

from server._fast.content_coding cimport (
    CODING_DAMAGED,
    CODING_IDENTITY,
    CODING_PAUSED,
    CODING_TOO_LARGE,
    inflate_begin,
    inflate_end,
    inflate_some,
)
from server._fast.http1 cimport HTTP_ERR_BODY_TOO_LARGE, HTTP_ERR_CODED_BODY
from server._fast.http1_chunk cimport http1_chunk_feed, http1_chunk_reset
from server._fast.outbuf cimport OutBuf, outbuf_free, outbuf_reserve, outbuf_write


cdef size_t KEEP_BYTES = 1 << 18


cdef class Http1Body:
    def __dealloc__(self):
        inflate_end(&self.inflater)
        outbuf_free(&self.decoded)
        outbuf_free(&self.coded)

    cdef int begin(self, const char* p, size_t head_bytes, int64_t content_length, int coding,
                   size_t max_bytes) except -1:
        self.end()
        self.is_open = True
        self.head_bytes = head_bytes
        self.max_bytes = max_bytes
        self.coding = coding
        self.coded_bytes = 0
        self.is_framed = False
        self.was_paused = False
        self.is_chunked = content_length < 0
        self.expected_bytes = 0 if self.is_chunked else content_length
        if self.is_chunked:
            http1_chunk_reset(&self.chunks, max_bytes)
        if coding != CODING_IDENTITY and inflate_begin(&self.inflater, coding) < 0:
            raise MemoryError()
        if outbuf_write(&self.decoded, p, head_bytes) < 0:
            raise MemoryError()
        return 0

    cdef int feed(self, const char* p, size_t n, size_t* used, uint64_t until_ns) except? -1000:
        cdef OutBuf* b
        cdef size_t produced = 0
        cdef int code
        used[0] = 0
        if not self.is_chunked:
            n = min(n, self.expected_bytes)
            code = self.inflate(p, n, used, until_ns)
            self.expected_bytes -= used[0]
            self.is_framed = self.expected_bytes == 0
            return self.ended(code)
        if self.coding == CODING_IDENTITY:
            b = &self.decoded
        elif self.coded.len:
            # What was received before comes first: memory is bounded by what one receive brings.
            code = self.inflate_coded(until_ns)
            if code != BODY_MORE or self.is_framed:
                return self.ended(code)
            b = &self.coded
        else:
            b = &self.coded
        if outbuf_reserve(b, n + 1) < 0:
            raise MemoryError()
        code = http1_chunk_feed(&self.chunks, p, n, b.data + b.len, b.cap - b.len, used, &produced)
        b.len += produced
        if code < 0:
            return code
        self.is_framed = code == 1
        if self.coding == CODING_IDENTITY:
            return code
        return self.ended(self.inflate_coded(until_ns))

    cdef int inflate_coded(self, uint64_t until_ns) except? -1000:
        cdef size_t used = 0
        cdef int code = self.inflate(
            self.coded.data + self.coded_used, self.coded.len - self.coded_used, &used, until_ns)
        self.coded_used += used
        if code != BODY_PAUSED:
            self.coded.len = 0
            self.coded_used = 0
        return code

    cdef int inflate(self, const char* p, size_t n, size_t* used, uint64_t until_ns) except? -1000:
        """BODY_MORE when all of p[0:n] is read, BODY_PAUSED, or -(HttpError)."""
        cdef int code = inflate_some(
            &self.inflater, p, n, used, &self.decoded, self.head_bytes + self.max_bytes, until_ns)
        self.coded_bytes += used[0]
        if code == CODING_PAUSED:
            self.was_paused = True
            return BODY_PAUSED
        if code >= 0:
            return BODY_MORE
        if code == CODING_TOO_LARGE:
            return -HTTP_ERR_BODY_TOO_LARGE
        if code == CODING_DAMAGED:
            return -HTTP_ERR_CODED_BODY
        raise MemoryError()

    cdef int ended(self, int code) noexcept:
        """`code`, or that the body is complete: its framing, and its coding too unless nothing was coded."""
        if code != BODY_MORE or not self.is_framed:
            return code
        return BODY_DONE if self.inflater.is_done or self.coded_bytes == 0 else -HTTP_ERR_CODED_BODY

    cdef size_t held_bytes(self) noexcept:
        return self.decoded.len - self.head_bytes + self.coded.len if self.is_open else 0

    cdef void end(self) noexcept:
        self.is_open = False
        self.decoded.len = 0
        self.coded.len = 0
        self.coded_used = 0
        inflate_end(&self.inflater)
        memset(&self.inflater, 0, sizeof(self.inflater))
        if self.decoded.cap > KEEP_BYTES:
            outbuf_free(&self.decoded)
        if self.coded.cap > KEEP_BYTES:
            outbuf_free(&self.coded)
