"""One HTTP/2 stream: what its headers say, its request's bytes so far, its reply's bytes still to go.

It knows header names and gRPC's trailers; which inference a path is, grpc_codec says; it does not know sessions,
windows or models. Owned by its session, used on the event loop's thread. O(bytes).
"""

cimport cython
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t
from libc.string cimport memcmp, memcpy, memmove

from server._fast.grpc_codec cimport GRPC_NO_INFERENCE, grpc_form, grpc_is_streamed
from server._fast.content_coding cimport coding_chosen, coding_of
from server._fast.http1_text cimport http1_decimal
from server._fast.nghttp2 cimport (
    NGHTTP2_DATA_FLAG_EOF,
    NGHTTP2_DATA_FLAG_NO_END_STREAM,
    NGHTTP2_ERR_DEFERRED,
    NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE,
    NGHTTP2_NV_FLAG_NONE,
    nghttp2_data_source,
    nghttp2_nv,
    nghttp2_session,
    nghttp2_submit_trailer,
)
from server._fast.outbuf cimport outbuf_free
from server._fast.request_timeout cimport REQUEST_TIMEOUT_INVALID, REQUEST_TIMEOUT_NONE, request_timeout_ns
from server._fast.spare_buffers cimport SpareBuffers, spare_give

cdef size_t KEEP_SENT_BYTES = 1 << 16


cdef nghttp2_nv nv(const char* name, size_t name_bytes, const char* value, size_t value_bytes) noexcept nogil:
    cdef nghttp2_nv header
    header.name = <uint8_t*>name
    header.value = <uint8_t*>value
    header.namelen = name_bytes
    header.valuelen = value_bytes
    header.flags = NGHTTP2_NV_FLAG_NONE
    return header


cdef int64_t MINUTE_NS = 60000000000
cdef int64_t FOR_EVER_NS = 9000000000000000000


cdef inline bint is_text(const char* p, size_t n, const char* text, size_t text_bytes) noexcept nogil:
    return n == text_bytes and memcmp(p, text, n) == 0


cdef int64_t parse_timeout(const char* p, size_t n) noexcept nogil:
    """grpc-timeout: 1 to 8 digits and a unit, in ns."""
    cdef int64_t value = 0
    cdef size_t i
    if n < 2 or n > 9:
        return TIMEOUT_INVALID
    for i in range(n - 1):
        if p[i] < c'0' or p[i] > c'9':
            return TIMEOUT_INVALID
        value = value * 10 + (p[i] - c'0')
    if p[n - 1] == c'n':
        return value
    if p[n - 1] == c'u':
        return value * 1000
    if p[n - 1] == c'm':
        return value * 1000000
    if p[n - 1] == c'S':
        return value * 1000000000
    if p[n - 1] == c'M':
        return value * MINUTE_NS
    if p[n - 1] == c'H':
        # 99,999,999 hours do not fit int64 nanoseconds; 292 years are as good as for ever
        return value * 60 * MINUTE_NS if value < 2500000 else FOR_EVER_NS
    return TIMEOUT_INVALID


@cython.freelist(256)
cdef class H2Stream:
    """A request and its reply; exists from the first header to the close of the stream."""

    def __dealloc__(self):
        outbuf_free(&self.body)
        outbuf_free(&self.reply)

    cdef size_t give_body(self, SpareBuffers* spares) noexcept nogil:
        """The request's bytes are not needed any more: how many were held. The next stream takes the buffer."""
        cdef size_t held = self.body.len - self.body_used
        self.body_used = 0
        spare_give(spares, &self.body)
        return held

    cdef int header(self, const char* name, size_t name_bytes, const char* value, size_t value_bytes) except -1:
        """One header of the request, as nghttp2 checked and decoded it: 0, or 1 when the list is too long."""
        cdef int64_t number
        self.header_bytes += name_bytes + value_bytes + 32
        if self.header_bytes > MAX_HEADER_LIST_BYTES:
            # A byte of HPACK can stand for a whole table entry: the sum has to be bounded while it is decoded.
            self.headers = None
            return 1
        if name[0] == c':':
            if is_text(name, name_bytes, b":path", 5):
                self.form = grpc_form(value, value_bytes)
                if self.form != GRPC_NO_INFERENCE and not grpc_is_streamed(self.form):
                    self.route = ROUTE_GRPC_INFER
                else:
                    self.path = value[:value_bytes]
            elif is_text(name, name_bytes, b":method", 7) and not is_text(value, value_bytes, b"POST", 4):
                self.method = value[:value_bytes]
            return 0
        if is_text(name, name_bytes, b"content-type", 12):
            self.is_grpc = value_bytes >= 16 and memcmp(value, b"application/grpc", 16) == 0
        elif is_text(name, name_bytes, b"grpc-timeout", 12):
            self.timeout_ns = parse_timeout(value, value_bytes)
        elif is_text(name, name_bytes, b"x-request-timeout", 17):
            # Given twice it says nothing that could be relied on.
            self.rest_timeout_ns = (
                request_timeout_ns(value, value_bytes) if self.rest_timeout_ns == REQUEST_TIMEOUT_NONE
                else REQUEST_TIMEOUT_INVALID)
        elif is_text(name, name_bytes, b"grpc-encoding", 13):
            if is_text(value, value_bytes, b"identity", 8):
                self.coding = CODING_IDENTITY
            elif is_text(value, value_bytes, b"gzip", 4):
                self.coding = CODING_GZIP
            elif is_text(value, value_bytes, b"deflate", 7):
                self.coding = CODING_DEFLATE
            else:
                self.coding = CODING_UNKNOWN
        elif is_text(name, name_bytes, b"content-encoding", 16):
            self.content_coding = coding_of(value, value_bytes)
        elif is_text(name, name_bytes, b"accept-encoding", 15):
            self.accepted_coding = coding_chosen(value, value_bytes)
        elif is_text(name, name_bytes, b"inference-header-content-length", 31):
            number = http1_decimal(value, value_bytes)
            self.json_bytes = number if self.json_bytes == -1 and 0 <= number < 2147483648 else -2
        if self.route != ROUTE_GRPC_INFER:
            if self.headers is None:
                self.headers = []
            self.headers.append((name[:name_bytes], value[:value_bytes]))
        return 0


cdef ssize_t read_reply(nghttp2_session* session, int32_t stream_id, uint8_t* buf, size_t length, uint32_t* data_flags,
                        nghttp2_data_source* source, void* user_data) noexcept:
    """Hands a stream's reply to nghttp2; behind its end the gRPC trailers."""
    cdef H2Stream stream = <H2Stream>source.ptr
    cdef size_t n = stream.reply.len - stream.reply_sent
    cdef char digits[2]
    cdef int skip
    cdef nghttp2_nv trailers[2]
    if n > length:
        n = length
    if n:
        memcpy(buf, stream.reply.data + stream.reply_sent, n)
    stream.reply_sent += n
    stream.moved_bytes += n
    if stream.reply_sent < stream.reply.len:
        if stream.reply_sent > KEEP_SENT_BYTES and 2 * stream.reply_sent >= stream.reply.len:
            # A client that never catches up must not make the buffer as long as all that was ever sent.
            stream.reply.len -= stream.reply_sent
            memmove(stream.reply.data, stream.reply.data + stream.reply_sent, stream.reply.len)
            stream.reply_sent = 0
        return n
    stream.reply.len = 0
    stream.reply_sent = 0
    if not stream.is_reply_complete:
        if n:
            return n
        stream.is_deferred = True
        return NGHTTP2_ERR_DEFERRED
    data_flags[0] |= NGHTTP2_DATA_FLAG_EOF
    if stream.grpc_status >= 0:
        data_flags[0] |= NGHTTP2_DATA_FLAG_NO_END_STREAM
        digits[0] = c'0' + stream.grpc_status // 10
        digits[1] = c'0' + stream.grpc_status % 10
        skip = 0 if stream.grpc_status > 9 else 1
        trailers[0] = nv(b"grpc-status", 11, &digits[skip], 2 - skip)
        if stream.grpc_message is not None:
            trailers[1] = nv(b"grpc-message", 12, <const char*>stream.grpc_message, len(stream.grpc_message))
        if nghttp2_submit_trailer(session, stream_id, trailers, 2 if stream.grpc_message is not None else 1) != 0:
            return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE
    return n
