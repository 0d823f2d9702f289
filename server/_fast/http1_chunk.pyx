"""Chunked bodies, strictly. What it knows, who owns memory, threads and cost: see http1_chunk.pxd.

A machine with one state per place in the grammar; data is the only state that takes more than one byte a step.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.string cimport memmove, memset

from server._fast.http1_error cimport (
    HTTP_ERR_BODY_TOO_LARGE,
    HTTP_ERR_CHUNK_END,
    HTTP_ERR_CHUNK_EXTENSION,
    HTTP_ERR_CHUNK_OVERHEAD,
    HTTP_ERR_CHUNK_SIZE,
    HTTP_ERR_LINE_END,
    HTTP_ERR_TOO_MANY_CHUNKS,
    HTTP_ERR_TRAILER,
    HTTP_ERR_TRAILERS_TOO_LARGE,
)
from server._fast.http1_text cimport h1_is_text, h1_is_token, http1_is_digit, http1_is_hex


from server._fast.http1 import Http1Error


cdef enum State:
    SIZE = 0
    EXTENSION_NAME_START = 1
    EXTENSION_NAME = 2
    EXTENSION_VALUE_START = 3
    EXTENSION_VALUE = 4
    EXTENSION_QUOTED = 5
    EXTENSION_ESCAPED = 6
    EXTENSION_QUOTE_END = 7
    SIZE_LF = 8
    DATA = 9
    DATA_CR = 10
    DATA_LF = 11
    TRAILER_START = 12
    TRAILER_NAME = 13
    TRAILER_VALUE = 14
    TRAILER_LF = 15
    END_LF = 16
    DONE = 17


cdef inline int hex_digit(unsigned char c) noexcept nogil:
    if not http1_is_hex(c):
        return -1
    return c - c'0' if http1_is_digit(c) else (c | 0x20) - c'a' + 10


cdef inline int on_size(ChunkDecoder* d, unsigned char c) noexcept nogil:
    cdef int digit = hex_digit(c)
    if digit >= 0:
        # 16 digits fit 64 bits; the top bit stays clear so that no signed length downstream can turn negative
        if d.size_digits == 16 or d.remaining_bytes >> 59:
            return -HTTP_ERR_CHUNK_SIZE
        d.size_digits += 1
        d.remaining_bytes = d.remaining_bytes << 4 | <uint64_t>digit
        return SIZE
    if d.size_digits == 0:
        return -HTTP_ERR_CHUNK_SIZE
    if c == c'\r':
        return SIZE_LF
    if c == c';':
        return EXTENSION_NAME_START
    return -HTTP_ERR_LINE_END if c == c'\n' else -HTTP_ERR_CHUNK_SIZE


cdef inline int on_extension(ChunkDecoder* d, int state, unsigned char c) noexcept nogil:
    """chunk-ext without blanks around ';' and '=' (RFC 9112 section 7.1.1 tolerates them only as "bad" whitespace)."""
    if c == c'\r':
        if state == EXTENSION_NAME or state == EXTENSION_VALUE or state == EXTENSION_QUOTE_END:
            return SIZE_LF
        return -HTTP_ERR_CHUNK_EXTENSION
    if c == c'\n':
        return -HTTP_ERR_LINE_END
    d.extension_bytes += 1
    d.all_extension_bytes += 1
    if (
        d.extension_bytes > HTTP_MAX_CHUNK_EXTENSION_BYTES
        or d.all_extension_bytes > HTTP_MAX_ALL_EXTENSION_BYTES
        or c < 0x20
        or c > 0x7e
    ):
        return -HTTP_ERR_CHUNK_EXTENSION
    if state == EXTENSION_QUOTED:
        return EXTENSION_ESCAPED if c == c'\\' else EXTENSION_QUOTE_END if c == c'"' else EXTENSION_QUOTED
    if state == EXTENSION_ESCAPED:
        return EXTENSION_QUOTED
    if h1_is_token(c):
        if state == EXTENSION_NAME_START or state == EXTENSION_NAME:
            return EXTENSION_NAME
        if state == EXTENSION_VALUE_START or state == EXTENSION_VALUE:
            return EXTENSION_VALUE
        return -HTTP_ERR_CHUNK_EXTENSION
    if c == c';' and (state == EXTENSION_NAME or state == EXTENSION_VALUE or state == EXTENSION_QUOTE_END):
        return EXTENSION_NAME_START
    if c == c'=' and state == EXTENSION_NAME:
        return EXTENSION_VALUE_START
    if c == c'"' and state == EXTENSION_VALUE_START:
        return EXTENSION_QUOTED
    return -HTTP_ERR_CHUNK_EXTENSION


cdef inline int on_size_line_end(ChunkDecoder* d) noexcept nogil:
    """The size is known: all limits are checked here, before a byte of the chunk is waited for."""
    d.size_digits = 0
    d.extension_bytes = 0
    if d.remaining_bytes == 0:
        return TRAILER_START
    d.chunk_count += 1
    if d.chunk_count > HTTP_MAX_CHUNKS:
        return -HTTP_ERR_TOO_MANY_CHUNKS
    if d.remaining_bytes > d.max_body_bytes - d.body_bytes:
        return -HTTP_ERR_BODY_TOO_LARGE
    # framing > ratio * data, written so that no announced size can overflow it
    if (
        d.framing_bytes > HTTP_FRAMING_ALLOWANCE_BYTES
        and (d.framing_bytes - 1) // HTTP_MAX_FRAMING_RATIO >= d.body_bytes + d.remaining_bytes
    ):
        return -HTTP_ERR_CHUNK_OVERHEAD
    return DATA


cdef inline int on_trailer(ChunkDecoder* d, int state, unsigned char c) noexcept nogil:
    d.trailer_bytes += 1
    if d.trailer_bytes > HTTP_MAX_TRAILER_BYTES:
        return -HTTP_ERR_TRAILERS_TOO_LARGE
    if state == TRAILER_START:
        if c == c'\r':
            return END_LF
        if c == c'\n':
            return -HTTP_ERR_LINE_END
        d.trailer_count += 1
        if d.trailer_count > HTTP_MAX_TRAILER_FIELDS:
            return -HTTP_ERR_TRAILERS_TOO_LARGE
        return TRAILER_NAME if h1_is_token(c) else -HTTP_ERR_TRAILER
    if state == TRAILER_NAME:
        if h1_is_token(c):
            return TRAILER_NAME
        if c == c':':
            return TRAILER_VALUE
    elif state == TRAILER_VALUE:
        if h1_is_text(c):
            return TRAILER_VALUE
        if c == c'\r':
            return TRAILER_LF
    elif c == c'\n':
        return TRAILER_START
    return -HTTP_ERR_LINE_END if c == c'\n' or state == TRAILER_LF else -HTTP_ERR_TRAILER


cdef inline int step(ChunkDecoder* d, int state, unsigned char c) noexcept nogil:
    """The state after one framing byte, or an error."""
    if state == SIZE:
        return on_size(d, c)
    elif state == SIZE_LF:
        return on_size_line_end(d) if c == c'\n' else -HTTP_ERR_LINE_END
    elif state == DATA_CR:
        return DATA_LF if c == c'\r' else -HTTP_ERR_CHUNK_END
    elif state == DATA_LF:
        return SIZE if c == c'\n' else -HTTP_ERR_CHUNK_END
    elif state == END_LF:
        return DONE if c == c'\n' else -HTTP_ERR_LINE_END
    elif state < SIZE_LF:
        return on_extension(d, state, c)
    return on_trailer(d, state, c)


cdef void http1_chunk_reset(ChunkDecoder* d, uint64_t max_body_bytes) noexcept nogil:
    memset(d, 0, sizeof(ChunkDecoder))
    d.max_body_bytes = max_body_bytes


cdef int http1_chunk_feed(
    ChunkDecoder* d, const char* src, size_t n, char* dst, size_t dst_cap, size_t* consumed, size_t* produced
) noexcept nogil:
    cdef size_t at = 0
    cdef size_t filled = 0
    cdef size_t run
    cdef int state = d.state
    if d.error:
        consumed[0] = 0
        produced[0] = 0
        return -<int>d.error
    while at < n and state != DONE:
        if state == DATA:
            run = n - at
            if run > d.remaining_bytes:
                run = d.remaining_bytes
            if run > dst_cap - filled:
                run = dst_cap - filled
            if run == 0:
                break
            memmove(dst + filled, src + at, run)
            filled += run
            at += run
            d.body_bytes += run
            d.remaining_bytes -= run
            if d.remaining_bytes == 0:
                state = DATA_CR
        else:
            d.framing_bytes += 1
            state = step(d, state, <unsigned char>src[at])
            if state < 0:
                d.error = <uint8_t>(-state)
                consumed[0] = at
                produced[0] = filled
                return state
            at += 1
    d.state = <uint8_t>state
    consumed[0] = at
    produced[0] = filled
    return state == DONE


cdef class ChunkedBody:
    cdef ChunkDecoder decoder
    cdef readonly uint64_t consumed_bytes

    def __init__(self, max_body_bytes=(1 << 63) - 1):
        http1_chunk_reset(&self.decoder, max_body_bytes)
        self.consumed_bytes = 0

    @property
    def is_done(self):
        return self.decoder.state == DONE

    @property
    def chunk_count(self):
        return self.decoder.chunk_count

    def feed(self, data, capacity=None):
        cdef Py_buffer view
        cdef size_t room
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            room = view.len if capacity is None else capacity
            out = bytearray(room)
            return bytes(out[: self.run(<const char*>view.buf, view.len, out, room)])
        finally:
            PyBuffer_Release(&view)

    def feed_in_place(self, data):
        cdef Py_buffer view
        cdef size_t consumed, produced
        cdef int result
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE | PyBUF_WRITABLE)
        try:
            with nogil:
                result = http1_chunk_feed(
                    &self.decoder,
                    <const char*>view.buf,
                    <size_t>view.len,
                    <char*>view.buf,
                    <size_t>view.len,
                    &consumed,
                    &produced,
                )
            self.consumed_bytes += consumed
            if result < 0:
                raise Http1Error(-result)
            return produced
        finally:
            PyBuffer_Release(&view)

    cdef size_t run(self, const char* src, size_t n, bytearray out, size_t room) except? 0:
        cdef size_t consumed, produced
        cdef char* dst = out
        cdef int result
        with nogil:
            result = http1_chunk_feed(&self.decoder, src, n, dst, room, &consumed, &produced)
        self.consumed_bytes += consumed
        if result < 0:
            raise Http1Error(-result)
        return produced


def decode_chunked(pieces, max_body_bytes=(1 << 63) - 1):
    decoder = ChunkedBody(max_body_bytes)
    body = b"".join([decoder.feed(piece) for piece in pieces])
    return (body, decoder.consumed_bytes) if decoder.is_done else None
