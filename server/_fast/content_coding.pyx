"""Content codings of HTTP bodies and gRPC messages. What it knows, who owns memory, threads and cost: see the .pxd.

A stream is never trusted: output is bounded while it is made, a stream that ends early is the caller's to notice
(CODING_MORE at the end of input), and bytes behind the end are damage. Measured here: inflating 280 to 340 MB/s of
output, deflating JSON 110 MB/s.
"""

from libc.stddef cimport size_t
from libc.stdint cimport uint64_t
from libc.stdlib cimport realloc
from libc.string cimport memset

from server._fast.clock cimport now_ns
from server._fast.http1_text cimport http1_equals, http1_is_blank, http1_list_item
from server._fast.outbuf cimport OutBuf, outbuf_free, outbuf_reserve


cdef extern from "zlib.h" nogil:
    int Z_OK
    int Z_STREAM_END
    int Z_BUF_ERROR
    int Z_MEM_ERROR
    int Z_NO_FLUSH
    int Z_FINISH
    int Z_DEFLATED
    int Z_DEFAULT_STRATEGY
    int inflateInit2(z_stream* z, int window_bits)
    int z_inflate "inflate"(z_stream* z, int flush)
    int inflateEnd(z_stream* z)
    int deflateInit2(z_stream* z, int level, int method, int window_bits, int memory_level, int strategy)
    int z_deflate "deflate"(z_stream* z, int flush)
    int deflateEnd(z_stream* z)

cdef enum:
    #: Between two looks at the clock: 0.3 ms at most, which is what 1 KiB of blocks without content takes.
    STEP_IN_BYTES = 1024
    STEP_OUT_BYTES = 65536
    DEFLATE_STEP_BYTES = 4096
    #: Level 1 costs a third of the default level's time for a few per cent more bytes.
    DEFLATE_LEVEL = 1
    MEMORY_LEVEL = 8
    ZLIB_WINDOW_BITS = 15
    GZIP_WINDOW_BITS = 31


# ---- header fields

cdef int coding_token(const char* p, size_t n) noexcept nogil:
    if n == 4 and http1_equals(p, b"gzip", 4) or n == 6 and http1_equals(p, b"x-gzip", 6):
        return CODING_GZIP
    if n == 7 and http1_equals(p, b"deflate", 7):
        return CODING_DEFLATE
    if n == 8 and http1_equals(p, b"identity", 8):
        return CODING_IDENTITY
    return CODING_UNKNOWN


cdef int coding_of(const char* p, size_t n) noexcept nogil:
    cdef size_t at = 0, begin = 0, end = 0
    cdef int found = CODING_IDENTITY
    cdef int one
    while at <= n:
        at = http1_list_item(p, n, at, &begin, &end)
        if begin == end:
            continue
        one = coding_token(p + begin, end - begin)
        if one == CODING_UNKNOWN:
            return CODING_UNKNOWN
        if one != CODING_IDENTITY:
            found = one if found == CODING_IDENTITY else CODING_NESTED
    return found


cdef int weight_of(const char* p, size_t n) noexcept nogil:
    """';q=0.5' in thousandths (RFC 9110 section 12.4.2); 1000 for nothing at all, -1 for anything else."""
    cdef size_t i = 0
    cdef int weight, scale = 100
    if n == 0:
        return 1000
    if p[0] != c';':
        return -1
    i = 1
    while i < n and http1_is_blank(p[i]):
        i += 1
    if n - i < 3 or (p[i] != c'q' and p[i] != c'Q') or p[i + 1] != c'=' or (p[i + 2] != c'0' and p[i + 2] != c'1'):
        return -1
    weight = (p[i + 2] - c'0') * 1000
    i += 3
    if i == n:
        return weight
    if p[i] != c'.' or n - i > 4:
        return -1
    for i in range(i + 1, n):
        if p[i] < c'0' or p[i] > c'9':
            return -1
        weight += (p[i] - c'0') * scale
        scale //= 10
    return weight if weight <= 1000 else -1


cdef int coding_chosen(const char* p, size_t n) noexcept nogil:
    cdef size_t at = 0, begin = 0, end = 0, stop = 0, type_end = 0
    cdef int best = CODING_IDENTITY
    cdef int best_weight = 0
    cdef int one, weight
    if n == 4 and http1_equals(p, b"gzip", 4):
        return CODING_GZIP
    while at <= n:
        at = http1_list_item(p, n, at, &begin, &end)
        stop = begin
        while stop < end and p[stop] != c';':
            stop += 1
        type_end = stop
        while type_end > begin and http1_is_blank(p[type_end - 1]):
            type_end -= 1
        one = coding_token(p + begin, type_end - begin)
        weight = weight_of(p + stop, end - stop)
        if one != CODING_UNKNOWN and weight > best_weight:
            best = one
            best_weight = weight
    return best


cdef const char* coding_name(int coding) noexcept nogil:
    return b"gzip" if coding == CODING_GZIP else b"deflate"


# ---- inflating

cdef int inflate_begin(Inflater* s, int coding) noexcept nogil:
    inflate_end(s)
    memset(s, 0, sizeof(Inflater))
    if inflateInit2(&s.z, GZIP_WINDOW_BITS if coding == CODING_GZIP else ZLIB_WINDOW_BITS) != Z_OK:
        return CODING_NO_MEMORY
    s.is_open = True
    return 0


cdef void inflate_end(Inflater* s) noexcept nogil:
    if s.is_open:
        inflateEnd(&s.z)
        s.is_open = False


cdef int make_room(OutBuf* b, size_t max_len) noexcept nogil:
    """Room for one byte at least and never more than max_len + 1 bytes in all: a doubling would pass the limit."""
    cdef size_t cap
    cdef char* grown
    if b.len < b.cap:
        return 0
    cap = 2 * b.cap if b.cap > STEP_OUT_BYTES else b.cap + STEP_OUT_BYTES
    if cap > max_len + 1:
        cap = max_len + 1
    grown = <char*>realloc(b.data, cap)
    if grown == NULL:
        return CODING_NO_MEMORY
    b.data = grown
    b.cap = cap
    return 0


cdef int inflate_some(Inflater* s, const char* p, size_t n, size_t* used, OutBuf* b, size_t max_len,
                      uint64_t until_ns) noexcept nogil:
    cdef size_t at = 0, room, taken
    cdef int code
    used[0] = 0
    while True:
        if s.is_done:
            # What follows the stream is nobody's: two readers would not agree about it.
            return CODING_DONE if at == n else CODING_DAMAGED
        if make_room(b, max_len) < 0:
            return CODING_NO_MEMORY
        room = min(b.cap - b.len, max_len + 1 - b.len)
        s.z.next_in = <const unsigned char*>p + at
        s.z.avail_in = <unsigned int>min(n - at, <size_t>STEP_IN_BYTES)
        s.z.next_out = <unsigned char*>b.data + b.len
        s.z.avail_out = <unsigned int>min(room, <size_t>STEP_OUT_BYTES)
        taken = s.z.avail_in
        code = z_inflate(&s.z, Z_NO_FLUSH)
        taken -= s.z.avail_in
        at += taken
        used[0] = at
        room = <size_t>(<char*>s.z.next_out - b.data) - b.len
        b.len += room
        if b.len > max_len:
            return CODING_TOO_LARGE
        if code == Z_STREAM_END:
            s.is_done = True
            continue
        if code == Z_MEM_ERROR:
            return CODING_NO_MEMORY
        if code != Z_OK and code != Z_BUF_ERROR:
            return CODING_DAMAGED
        if at == n and s.z.avail_out:
            return CODING_MORE
        if code == Z_BUF_ERROR and taken == 0 and room == 0 and at < n:
            return CODING_DAMAGED
        if until_ns and now_ns() >= until_ns:
            return CODING_PAUSED


cdef int inflate_whole(const char* p, size_t n, int coding, OutBuf* b, size_t max_len) noexcept nogil:
    cdef Inflater s
    cdef size_t used = 0
    cdef int code
    memset(&s, 0, sizeof(Inflater))
    code = inflate_begin(&s, coding)
    if code == 0:
        code = inflate_some(&s, p, n, &used, b, max_len, 0)
    inflate_end(&s)
    return code


# ---- deflating

cdef int deflate_begin(Deflater* s, int coding) noexcept nogil:
    deflate_end(s)
    memset(s, 0, sizeof(Deflater))
    if deflateInit2(
        &s.z, DEFLATE_LEVEL, Z_DEFLATED, GZIP_WINDOW_BITS if coding == CODING_GZIP else ZLIB_WINDOW_BITS, MEMORY_LEVEL,
        Z_DEFAULT_STRATEGY,
    ) != Z_OK:
        return CODING_NO_MEMORY
    s.is_open = True
    return 0


cdef void deflate_end(Deflater* s) noexcept nogil:
    if s.is_open:
        deflateEnd(&s.z)
        s.is_open = False


cdef int deflate_some(Deflater* s, const char* p, size_t n, size_t* used, OutBuf* b, uint64_t until_ns) noexcept nogil:
    cdef size_t at = 0, taken
    cdef int code
    used[0] = 0
    while True:
        if outbuf_reserve(b, 1024) < 0:
            return CODING_NO_MEMORY
        taken = min(n - at, <size_t>DEFLATE_STEP_BYTES)
        s.z.next_in = <const unsigned char*>p + at
        s.z.avail_in = <unsigned int>taken
        s.z.next_out = <unsigned char*>b.data + b.len
        s.z.avail_out = <unsigned int>min(b.cap - b.len, <size_t>1 << 30)
        code = z_deflate(&s.z, Z_FINISH if at + taken == n else Z_NO_FLUSH)
        at += taken - s.z.avail_in
        used[0] = at
        b.len = <char*>s.z.next_out - b.data
        if code == Z_STREAM_END:
            return CODING_DONE
        if code != Z_OK and code != Z_BUF_ERROR:
            return CODING_NO_MEMORY
        if until_ns and now_ns() >= until_ns:
            return CODING_PAUSED


cdef int deflate_whole(const char* p, size_t n, int coding, OutBuf* b) noexcept nogil:
    cdef Deflater s
    cdef size_t used = 0
    cdef int code
    memset(&s, 0, sizeof(Deflater))
    code = deflate_begin(&s, coding)
    if code == 0:
        code = deflate_some(&s, p, n, &used, b, 0)
    deflate_end(&s)
    return code


# ---- at the line

cdef tuple NAMES = ("identity", "gzip", "deflate", "unknown", "nested")


def coding_named(bytes content_encoding):
    return NAMES[coding_of(<const char*>content_encoding, len(content_encoding))]


def coding_preferred(bytes accept_encoding):
    return NAMES[coding_chosen(<const char*>accept_encoding, len(accept_encoding))]


def inflate(object pieces, str coding, size_t limit, uint64_t slice_ns=0):
    cdef Inflater s
    cdef OutBuf b = OutBuf(NULL, 0, 0)
    cdef size_t used = 0, at
    cdef int code = CODING_MORE
    cdef bytes piece
    pauses = 0
    memset(&s, 0, sizeof(s))
    try:
        if inflate_begin(&s, NAMES.index(coding)) < 0:
            raise MemoryError()
        for piece in pieces:
            at = 0
            while True:
                code = inflate_some(&s, <const char*>piece + at, len(piece) - at, &used, &b, limit,
                                    now_ns() + slice_ns if slice_ns else 0)
                at += used
                if code != CODING_PAUSED:
                    break
                pauses += 1
            if code < 0:
                break
        if code == CODING_NO_MEMORY:
            raise MemoryError()
        if code != CODING_DONE:
            raise ValueError({CODING_MORE: "truncated", CODING_DAMAGED: "damaged"}.get(code, "too large"))
        return b.data[:b.len], b.cap, pauses
    finally:
        inflate_end(&s)
        outbuf_free(&b)


def deflate(bytes data, str coding, uint64_t slice_ns=0):
    cdef Deflater s
    cdef OutBuf b = OutBuf(NULL, 0, 0)
    cdef size_t used = 0, at = 0
    cdef int code
    pauses = 0
    memset(&s, 0, sizeof(s))
    try:
        if deflate_begin(&s, NAMES.index(coding)) < 0:
            raise MemoryError()
        while True:
            code = deflate_some(&s, <const char*>data + at, len(data) - at, &used, &b,
                                now_ns() + slice_ns if slice_ns else 0)
            at += used
            if code != CODING_PAUSED:
                break
            pauses += 1
        if code < 0:
            raise MemoryError()
        return b.data[:b.len], pauses
    finally:
        deflate_end(&s)
        outbuf_free(&b)
