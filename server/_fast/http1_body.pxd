"""C face of request bodies that do not stand on the wire as they are."""

from libc.stdint cimport int64_t, uint64_t

from server._fast.content_coding cimport Inflater
from server._fast.http1_chunk cimport ChunkDecoder
from server._fast.outbuf cimport OutBuf


cdef class Http1Body:
    cdef OutBuf decoded            # the head, whose spans are needed until the request is answered, and the body so far
    cdef size_t head_bytes
    cdef bint is_open
    cdef OutBuf coded              # what came in chunks and is not inflated yet
    cdef size_t coded_used
    cdef ChunkDecoder chunks
    cdef Inflater inflater
    cdef bint is_chunked
    cdef bint is_framed            # the last byte of the body has come
    cdef int coding
    cdef bint was_paused           # a slice was not enough
    cdef size_t expected_bytes     # of the body on the wire that have not come, if it is not chunked
    cdef uint64_t coded_bytes      # inflated so far
    cdef size_t max_bytes

    # Begins a body behind p[0:head_bytes]. content_length: of the wire, -1 for chunks.
    cdef int begin(self, const char* p, size_t head_bytes, int64_t content_length, int coding,
                   size_t max_bytes) except -1
    # Reads p[0:n], *used of it: BODY_MORE, BODY_DONE, BODY_PAUSED (until_ns has passed: call again), or -(HttpError).
    cdef int feed(self, const char* p, size_t n, size_t* used, uint64_t until_ns) except? -1000
    # How much memory its bytes take.
    cdef size_t held_bytes(self) noexcept
    # Forgets the body; large memory is given back.
    cdef void end(self) noexcept

    cdef int inflate_coded(self, uint64_t until_ns) except? -1000
    cdef int inflate(self, const char* p, size_t n, size_t* used, uint64_t until_ns) except? -1000
    cdef int ended(self, int code) noexcept

cdef enum BodyResult:
    BODY_MORE = 0
    BODY_DONE = 1
    BODY_PAUSED = 2
