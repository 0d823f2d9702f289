"""Content codings of HTTP bodies (RFC 9110 section 8.4) and gRPC messages: which one fields name, inflating, deflating.

Knows zlib and the two header fields; knows no connection, no clock of requests and no limits but those it is given. The
caller owns the structs and the OutBufs. One thread at a time per struct; different ones are independent. O(bytes).
Both directions stop at the first step behind `until_ns` (0: never), so that a body of any length can be worked off in
slices.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint64_t

from server._fast.outbuf cimport OutBuf

cdef enum ContentCoding:
    CODING_IDENTITY = 0
    CODING_GZIP = 1
    CODING_DEFLATE = 2     # a zlib stream (RFC 1950), as the field's name means and Triton reads it
    CODING_UNKNOWN = 3
    CODING_NESTED = 4      # several codings, one on the other: all of them known

cdef enum CodingResult:
    CODING_MORE = 0        # all input is used up, the stream goes on
    CODING_DONE = 1        # the stream is complete
    CODING_PAUSED = 2      # until_ns has passed: call again
    CODING_NO_MEMORY = -1
    CODING_DAMAGED = -2    # no such stream, or bytes behind its end
    CODING_TOO_LARGE = -3  # more output than allowed

cdef extern from *:
    """
    #define ZLIB_CONST
    #include <zlib.h>
    """
    ctypedef struct z_stream:
        const unsigned char* next_in
        unsigned int avail_in
        unsigned char* next_out
        unsigned int avail_out

cdef struct Inflater:
    z_stream z
    bint is_open
    bint is_done

cdef struct Deflater:
    z_stream z
    bint is_open


# The coding that a Content-Encoding field names; an empty one names identity.
cdef int coding_of(const char* p, size_t n) noexcept nogil
# What an Accept-Encoding field prefers of gzip, deflate and identity: the greatest weight, of equals the first, and
# nothing of weight 0. Other codings and '*' do not count.
cdef int coding_chosen(const char* p, size_t n) noexcept nogil
# NUL terminated, static: "gzip" or "deflate".
cdef const char* coding_name(int coding) noexcept nogil

# Begins a stream of CODING_GZIP or CODING_DEFLATE: 0 or CODING_NO_MEMORY. The struct is zeroed before its first use.
cdef int inflate_begin(Inflater* s, int coding) noexcept nogil
# Reads p[0:n], *used of it, and appends to b, which never holds more than max_len + 1 bytes nor owns more than
# max_len + 65536. A CodingResult.
cdef int inflate_some(Inflater* s, const char* p, size_t n, size_t* used, OutBuf* b, size_t max_len,
                      uint64_t until_ns) noexcept nogil
cdef void inflate_end(Inflater* s) noexcept nogil
# A whole stream at once, appended to b: CODING_DONE, CODING_MORE when it ends early, or a refusal.
cdef int inflate_whole(const char* p, size_t n, int coding, OutBuf* b, size_t max_len) noexcept nogil

# Begins to compress: 0 or CODING_NO_MEMORY.
cdef int deflate_begin(Deflater* s, int coding) noexcept nogil
# Compresses the rest p[0:n] of a body, *used of it, and appends to b. CODING_DONE, CODING_PAUSED or CODING_NO_MEMORY.
cdef int deflate_some(Deflater* s, const char* p, size_t n, size_t* used, OutBuf* b, uint64_t until_ns) noexcept nogil
cdef void deflate_end(Deflater* s) noexcept nogil
# A whole stream at once, appended to b: CODING_DONE or CODING_NO_MEMORY.
cdef int deflate_whole(const char* p, size_t n, int coding, OutBuf* b) noexcept nogil
