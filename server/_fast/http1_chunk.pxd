"""Chunked bodies, strictly (RFC 9112 section 7.1): framed bytes in, data out.

Knows nothing of heads, models or where the data goes. The caller owns struct, source and destination; nothing is
allocated. One thread at a time per decoder. O(bytes): data is moved in runs, framing is read byte by byte, and what
framing may cost is bounded against the data it carries. The verdict and the count of consumed bytes do not depend on
how the bytes arrived.

Trailers are checked and dropped, never merged into the head: whatever they are named, they change nothing.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef enum:
    HTTP_MAX_CHUNKS = 65536
    HTTP_MAX_CHUNK_EXTENSION_BYTES = 256
    HTTP_MAX_ALL_EXTENSION_BYTES = 16384
    HTTP_MAX_TRAILER_BYTES = 8192
    HTTP_MAX_TRAILER_FIELDS = 100
    # framing of a body is weighed against its data from this many framing bytes on
    HTTP_FRAMING_ALLOWANCE_BYTES = 65536
    HTTP_MAX_FRAMING_RATIO = 8


cdef struct ChunkDecoder:
    uint64_t max_body_bytes
    # data bytes so far
    uint64_t body_bytes
    # everything else so far: size lines, CRLFs, trailers
    uint64_t framing_bytes
    # of the current chunk, still to come; while the size line is read, its value so far
    uint64_t remaining_bytes
    uint32_t chunk_count
    uint32_t extension_bytes
    uint32_t all_extension_bytes
    uint32_t trailer_bytes
    uint32_t trailer_count
    uint8_t size_digits
    uint8_t state
    # HttpError that was found (0 none); stays until http1_chunk_reset
    uint8_t error


# Makes the decoder ready for a body of at most max_body_bytes of data (413 as soon as a chunk announces more).
cdef void http1_chunk_reset(ChunkDecoder* d, uint64_t max_body_bytes) noexcept nogil

# 1: the body is complete, the next request starts at src + consumed. 0: src is used up, or (consumed < n) dst is full.
# < 0: -(HttpError); consumed points at the first byte that is wrong.
# At most dst_cap bytes are written to dst. dst may equal src, or lie anywhere before it in the same buffer: data is
# written no further than it was read.
cdef int http1_chunk_feed(
    ChunkDecoder* d, const char* src, size_t n, char* dst, size_t dst_cap, size_t* consumed, size_t* produced
) noexcept nogil
