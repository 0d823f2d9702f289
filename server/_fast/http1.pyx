"""HTTP/1.1 request heads, strictly. What it knows, who owns memory, threads and cost: see http1.pxd.

One pass from left to right over the lines: a name is scanned up to ':', a value up to CR; names of interest are told
apart by their length and a few comparisons of eight folded bytes. Nothing is copied.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.string cimport memcmp, memset

from server._fast.http1_text cimport (
    h1_scan_target,
    h1_scan_text,
    h1_scan_token,
    http1_decimal,
    http1_is_blank,
    http1_is_digit,
    http1_is_host,
    http1_list_item,
    http1_name_is,
)


cdef enum Stage:
    STAGE_START = 0
    STAGE_METHOD = 1
    STAGE_TARGET = 2
    STAGE_VERSION = 3
    STAGE_FIELDS = 4
    STAGE_DONE = 5


cdef enum Seen:
    SEEN_HOST = 1
    SEEN_CONTENT_LENGTH = 2
    SEEN_TRANSFER_ENCODING = 4
    SEEN_CONTENT_TYPE = 8
    SEEN_CONTENT_ENCODING = 16
    SEEN_AUTHORIZATION = 32
    SEEN_TRACEPARENT = 64
    SEEN_TIMEOUT = 128
    SEEN_INFERENCE_LENGTH = 256
    SEEN_CLOSE = 512
    SEEN_KEEP_ALIVE = 1024
    SEEN_HTTP2_PREFACE = 2048
    SEEN_ORIGIN = 4096
    SEEN_HTTP2_SETTINGS = 8192
    # Upgrade names h2c, and Connection the two fields that go with it
    SEEN_H2C = 16384
    SEEN_UPGRADE_OPTION = 32768
    SEEN_SETTINGS_OPTION = 65536


# A first word longer than this is no method of anyone: refuse before the rest arrives.
cdef enum:
    MAX_METHOD_BYTES = 32


cdef int method_of(const char* p, size_t n) noexcept nogil:
    if n == 4:
        if memcmp(p, b"POST", 4) == 0:
            return HTTP_POST
        if memcmp(p, b"HEAD", 4) == 0:
            return HTTP_HEAD
    elif n == 3:
        if memcmp(p, b"GET", 3) == 0:
            return HTTP_GET
        if memcmp(p, b"PUT", 3) == 0:
            return HTTP_PUT
    elif n == 6:
        if memcmp(p, b"DELETE", 6) == 0:
            return HTTP_DELETE
    elif n == 7:
        if memcmp(p, b"OPTIONS", 7) == 0:
            return HTTP_OPTIONS
    elif n == 5:
        if memcmp(p, b"PATCH", 5) == 0:
            return HTTP_PATCH
    return HTTP_METHOD_NONE


cdef inline void set_span(HttpSpan* span, size_t off, size_t n) noexcept nogil:
    span.off = <uint32_t>off
    span.len = <uint32_t>n


cdef int split_target(HttpHead* h, const char* buf) noexcept nogil:
    """Origin-form, absolute-form (RFC 9112 section 3.2.2) or, for OPTIONS, '*': sets authority, path and query."""
    cdef size_t at = h.target.off
    cdef size_t end = at + h.target.len
    cdef size_t begin
    if buf[at] == c'*':
        if h.target.len != 1 or (h.method != HTTP_OPTIONS and not h.seen & SEEN_HTTP2_PREFACE):
            return -HTTP_ERR_TARGET
        set_span(&h.path, at, 1)
        return 0
    if buf[at] != c'/':
        if h.target.len >= 7 and http1_equals(buf + at, b"http://", 7):
            at += 7
        elif h.target.len >= 8 and http1_equals(buf + at, b"https://", 8):
            at += 8
        else:
            return -HTTP_ERR_TARGET
        begin = at
        while at < end and buf[at] != c'/' and buf[at] != c'?':
            at += 1
        if not http1_is_host(buf + begin, at - begin):
            return -HTTP_ERR_TARGET
        set_span(&h.authority, begin, at - begin)
    begin = at
    while at < end and buf[at] != c'?':
        at += 1
    set_span(&h.path, begin, at - begin)
    if at < end:
        set_span(&h.query, at + 1, end - at - 1)
    return 0


cdef int match_version(HttpHead* h, const char* p, size_t n) noexcept nogil:
    """'HTTP/1.x' CRLF in the n bytes there are: 10, 0 for more needed, or the error of the first wrong byte."""
    cdef const char* expected = b"HTTP/?.?"
    cdef size_t i
    if n >= 10 and memcmp(p, b"HTTP/1.1\r\n", 10) == 0 and h.method != HTTP_METHOD_NONE:
        h.minor_version = 1
        return 10
    for i in range(n if n < 8 else 8):
        if i == 5 or i == 7:
            if not http1_is_digit(p[i]):
                return -HTTP_ERR_VERSION
        elif p[i] != expected[i]:
            return -HTTP_ERR_VERSION
    if n < 8:
        return 0
    if p[5] == c'0':
        return -HTTP_ERR_VERSION
    if p[5] != c'1' or (p[7] != c'0' and p[7] != c'1'):
        if h.seen & SEEN_HTTP2_PREFACE and p[5] == c'2' and p[7] == c'0':
            return -HTTP_ERR_HTTP2_PREFACE
        return -HTTP_ERR_VERSION_UNSUPPORTED
    if h.seen & SEEN_HTTP2_PREFACE:
        return -HTTP_ERR_METHOD
    h.minor_version = <uint8_t>(p[7] - c'0')
    if n > 8:
        if p[8] != c'\r':
            return -HTTP_ERR_LINE_END if p[8] == c'\n' else -HTTP_ERR_VERSION
        if n > 9:
            return 10 if p[9] == c'\n' else -HTTP_ERR_LINE_END
    return 0


cdef int parse_request_line(HttpHead* h, const char* buf, size_t end, size_t max_target_bytes) noexcept nogil:
    """1 when the line is complete, 0 when `end` was reached before."""
    cdef size_t at, bound
    cdef int result
    if h.stage == STAGE_START:
        if h.pos == end:
            return 0
        if buf[h.pos] == c'\r':
            if end - h.pos < 2:
                return 0
            if buf[h.pos + 1] != c'\n':
                return -HTTP_ERR_LINE_END
            h.pos += 2
        elif buf[h.pos] == c'\n':
            return -HTTP_ERR_LINE_END
        h.stage = STAGE_METHOD
    if h.stage == STAGE_METHOD:
        bound = h.pos + MAX_METHOD_BYTES + 1
        if bound > end:
            bound = end
        at = h1_scan_token(buf, buf + h.pos, buf + bound) - buf
        if at - h.pos > MAX_METHOD_BYTES:
            return -HTTP_ERR_METHOD
        if at == end:
            return 0
        if at == h.pos or buf[at] != c' ':
            return -HTTP_ERR_REQUEST_LINE
        h.method = <uint8_t>method_of(buf + h.pos, at - h.pos)
        if h.method == HTTP_METHOD_NONE:
            # PRI is the first word of HTTP/2: worth its own answer, or a change of protocol
            if at - h.pos != 3 or memcmp(buf + h.pos, b"PRI", 3) != 0:
                return -HTTP_ERR_METHOD
            h.seen |= SEEN_HTTP2_PREFACE
        h.pos = <uint32_t>(at + 1)
        h.scan = h.pos
        h.stage = STAGE_TARGET
    if h.stage == STAGE_TARGET:
        bound = h.pos + max_target_bytes + 1
        if bound > end:
            bound = end
        at = h1_scan_target(buf, buf + h.scan, buf + bound) - buf
        h.scan = <uint32_t>at
        if at - h.pos > max_target_bytes:
            return -HTTP_ERR_TARGET_TOO_LONG
        if at == end:
            return 0
        if buf[at] != c' ':
            return -HTTP_ERR_REQUEST_LINE if buf[at] == c'\r' or buf[at] == c'\n' else -HTTP_ERR_TARGET
        if at == h.pos:
            return -HTTP_ERR_REQUEST_LINE
        set_span(&h.target, h.pos, at - h.pos)
        result = split_target(h, buf)
        if result < 0:
            return result
        h.pos = <uint32_t>(at + 1)
        h.stage = STAGE_VERSION
    result = match_version(h, buf + h.pos, end - h.pos)
    if result <= 0:
        return result
    h.pos += 10
    h.scan = h.pos
    h.stage = STAGE_FIELDS
    return 1


cdef int on_transfer_encoding(HttpHead* h, const char* p, size_t n) noexcept nogil:
    """0 for 'chunked'. Another list that ends in 'chunked' is understood, not implemented; the rest is malformed."""
    cdef size_t at = 0, begin = 0, end = 0
    cdef bint last_is_chunked = False
    if h.seen & SEEN_TRANSFER_ENCODING or h.minor_version == 0:
        return -HTTP_ERR_TRANSFER_ENCODING
    h.seen |= SEEN_TRANSFER_ENCODING
    if n == 7 and http1_equals(p, b"chunked", 7):
        h.chunked = 1
        return 0
    while at <= n:
        if last_is_chunked:
            return -HTTP_ERR_TRANSFER_ENCODING
        at = http1_list_item(p, n, at, &begin, &end)
        if begin == end or h1_scan_token(p, p + begin, p + end) != p + end:
            return -HTTP_ERR_TRANSFER_ENCODING
        last_is_chunked = end - begin == 7 and http1_equals(p + begin, b"chunked", 7)
    return -HTTP_ERR_TRANSFER_CODING_UNKNOWN if last_is_chunked else -HTTP_ERR_TRANSFER_ENCODING


cdef void on_connection(HttpHead* h, const char* p, size_t n) noexcept nogil:
    """Notes 'close' and 'keep-alive' in the list; other options are for hops that we are not."""
    cdef size_t at = 0, begin = 0, end = 0
    while at <= n:
        at = http1_list_item(p, n, at, &begin, &end)
        if end - begin == 10 and http1_equals(p + begin, b"keep-alive", 10):
            h.seen |= SEEN_KEEP_ALIVE
        elif end - begin == 5 and http1_equals(p + begin, b"close", 5):
            h.seen |= SEEN_CLOSE
        elif end - begin == 7 and http1_equals(p + begin, b"upgrade", 7):
            h.seen |= SEEN_UPGRADE_OPTION
        elif end - begin == 14 and http1_equals(p + begin, b"http2-settings", 14):
            h.seen |= SEEN_SETTINGS_OPTION


cdef void on_upgrade(HttpHead* h, const char* p, size_t n) noexcept nogil:
    """Notes 'h2c' in the list."""
    cdef size_t at = 0, begin = 0, end = 0
    while at <= n:
        at = http1_list_item(p, n, at, &begin, &end)
        if end - begin == 3 and http1_equals(p + begin, b"h2c", 3):
            h.seen |= SEEN_H2C


cdef inline int set_once(HttpHead* h, uint32_t bit, HttpSpan* span, size_t off, size_t n) noexcept nogil:
    if h.seen & bit:
        return -HTTP_ERR_FIELD_DUPLICATE
    h.seen |= bit
    set_span(span, off, n)
    return 0


cdef inline void set_first(HttpSpan* span, size_t off, size_t n) noexcept nogil:
    if span.off == 0:
        set_span(span, off, n)


cdef inline void set_unless_twice(HttpHead* h, uint32_t bit, HttpSpan* span, size_t off, size_t n) noexcept nogil:
    if h.seen & bit:
        set_span(span, 0, 0)
    else:
        h.seen |= bit
        set_span(span, off, n)


cdef int on_field(
    HttpHead* h, const char* buf, const char* name, size_t name_len, size_t off, size_t n
) noexcept nogil:
    """One field with its trimmed value [off, off + n) of buf: 0 or an error. Fields of no interest are only counted."""
    cdef int64_t number
    if name_len == 4:
        if http1_name_is(name, b"host", 4):
            if h.seen & SEEN_HOST or not http1_is_host(buf + off, n):
                return -HTTP_ERR_HOST
            return set_once(h, SEEN_HOST, &h.host, off, n)
    elif name_len == 6:
        if http1_name_is(name, b"accept", 6):
            set_first(&h.accept, off, n)
        elif http1_name_is(name, b"expect", 6):
            # an empty Expect asks for nothing: C++ clients of this protocol send it to switch curl's own off
            if n == 12 and http1_equals(buf + off, b"100-continue", 12):
                h.expect_continue = 1
            elif n:
                return -HTTP_ERR_EXPECT
        elif http1_name_is(name, b"origin", 6):
            set_unless_twice(h, SEEN_ORIGIN, &h.origin, off, n)
    elif name_len == 7:
        if http1_name_is(name, b"upgrade", 7):
            on_upgrade(h, buf + off, n)
    elif name_len == 10:
        if http1_name_is(name, b"connection", 10):
            on_connection(h, buf + off, n)
    elif name_len == 11:
        if http1_name_is(name, b"traceparent", 11):
            set_unless_twice(h, SEEN_TRACEPARENT, &h.traceparent, off, n)
    elif name_len == 12:
        if http1_name_is(name, b"content-type", 12):
            return set_once(h, SEEN_CONTENT_TYPE, &h.content_type, off, n)
        elif http1_name_is(name, b"x-request-id", 12):
            set_first(&h.request_id, off, n)
    elif name_len == 13:
        if http1_name_is(name, b"authorization", 13):
            return set_once(h, SEEN_AUTHORIZATION, &h.authorization, off, n)
    elif name_len == 14:
        if http1_name_is(name, b"content-length", 14):
            if h.seen & SEEN_CONTENT_LENGTH:
                return -HTTP_ERR_CONTENT_LENGTH
            h.seen |= SEEN_CONTENT_LENGTH
            h.content_length = http1_decimal(buf + off, n)
            if h.content_length < 0:
                return -HTTP_ERR_CONTENT_LENGTH
        elif http1_name_is(name, b"http2-settings", 14):
            set_unless_twice(h, SEEN_HTTP2_SETTINGS, &h.http2_settings, off, n)
        elif name[7] == c'_' and http1_name_is(name, b"content", 7) and http1_name_is(name + 8, b"length", 6):
            return -HTTP_ERR_UNDERSCORE_TWIN
    elif name_len == 15:
        if http1_name_is(name, b"accept-encoding", 15):
            set_first(&h.accept_encoding, off, n)
    elif name_len == 16:
        if http1_name_is(name, b"content-encoding", 16):
            return set_once(h, SEEN_CONTENT_ENCODING, &h.content_encoding, off, n)
    elif name_len == 17:
        if http1_name_is(name, b"transfer-encoding", 17):
            return on_transfer_encoding(h, buf + off, n)
        elif http1_name_is(name, b"x-request-timeout", 17):
            return set_once(h, SEEN_TIMEOUT, &h.timeout, off, n)
        elif name[8] == c'_' and http1_name_is(name, b"transfer", 8) and http1_name_is(name + 9, b"encoding", 8):
            return -HTTP_ERR_UNDERSCORE_TWIN
    elif name_len == 31:
        if http1_name_is(name, b"inference-header-content-length", 31):
            number = http1_decimal(buf + off, n)
            if h.seen & SEEN_INFERENCE_LENGTH or number < 0 or number > 0x7FFFFFFF:
                number = -2
            h.seen |= SEEN_INFERENCE_LENGTH
            h.inference_header_length = number
    return 0


cdef int finish(HttpHead* h, const char* buf) noexcept nogil:
    """The rules that need the whole head. 0 or an error."""
    cdef size_t i
    if h.chunked and h.content_length >= 0:
        return -HTTP_ERR_LENGTH_AND_CODING
    if not h.seen & SEEN_HOST:
        if h.minor_version == 1:
            return -HTTP_ERR_HOST_MISSING
    elif h.authority.off:
        if h.authority.len != h.host.len:
            return -HTTP_ERR_HOST_MISMATCH
        for i in range(h.host.len):
            # both are hosts by now, and of what a host may hold only the cases of a letter fold alike
            if (buf[h.authority.off + i] | 0x20) != (buf[h.host.off + i] | 0x20):
                return -HTTP_ERR_HOST_MISMATCH
    if h.seen & SEEN_CLOSE:
        h.keep_alive = HTTP_CLOSE
    elif h.minor_version == 1:
        h.keep_alive = HTTP_KEEP_ALIVE
    else:
        h.keep_alive = HTTP_KEEP_ALIVE_1_0 if h.seen & SEEN_KEEP_ALIVE else HTTP_CLOSE
    if h.minor_version == 0:
        # RFC 9110 section 10.1.1: the expectation of an HTTP/1.0 client is ignored
        h.expect_continue = 0
    h.has_body = h.chunked or h.content_length > 0
    h.wants_h2c = (
        h.seen & SEEN_H2C and h.seen & SEEN_UPGRADE_OPTION and h.seen & SEEN_SETTINGS_OPTION
        and h.http2_settings.off and h.minor_version == 1
    )
    h.head_bytes = h.pos
    h.stage = STAGE_DONE
    return 0


cdef int parse_fields(HttpHead* h, const char* buf, size_t end, uint32_t max_fields) noexcept nogil:
    """1 when the empty line was read, 0 when `end` was reached before."""
    cdef size_t pos = h.pos
    cdef size_t scan = h.scan
    cdef size_t colon = h.colon
    cdef size_t begin, stop
    cdef int result = 0
    while True:
        if colon == 0:
            scan = h1_scan_token(buf, buf + scan, buf + end) - buf
            if scan == end:
                break
            if buf[scan] != c':' or scan == pos:
                if scan > pos:
                    return -HTTP_ERR_LINE_END if buf[scan] == c'\n' else -HTTP_ERR_FIELD_NAME
                if buf[scan] == c'\r':
                    if scan + 1 == end:
                        break
                    if buf[scan + 1] != c'\n':
                        return -HTTP_ERR_LINE_END
                    pos += 2
                    result = 1
                    break
                if buf[scan] == c'\n':
                    return -HTTP_ERR_LINE_END
                return -HTTP_ERR_FIELD_FOLDED if http1_is_blank(buf[scan]) else -HTTP_ERR_FIELD_NAME
            colon = scan
            scan += 1
        scan = h1_scan_text(buf, buf + scan, buf + end) - buf
        if scan == end:
            break
        if buf[scan] != c'\r':
            return -HTTP_ERR_LINE_END if buf[scan] == c'\n' else -HTTP_ERR_FIELD_VALUE
        if scan + 1 == end:
            break
        if buf[scan + 1] != c'\n':
            return -HTTP_ERR_LINE_END
        h.field_count += 1
        if h.field_count > max_fields:
            return -HTTP_ERR_TOO_MANY_FIELDS
        begin = colon + 1
        stop = scan
        while begin < stop and http1_is_blank(buf[begin]):
            begin += 1
        while stop > begin and http1_is_blank(buf[stop - 1]):
            stop -= 1
        result = on_field(h, buf, buf + pos, colon - pos, begin, stop - begin)
        if result < 0:
            return result
        scan += 2
        pos = scan
        colon = 0
    h.pos = <uint32_t>pos
    h.scan = <uint32_t>scan
    h.colon = <uint32_t>colon
    return result


cdef void http1_reset(HttpHead* h) noexcept nogil:
    memset(h, 0, sizeof(HttpHead))
    h.content_length = -1
    h.inference_header_length = -1


cdef int http1_parse_head(HttpHead* h, const char* buf, size_t len, const HttpLimits* limits) noexcept nogil:
    cdef size_t end = len if len < limits.max_head_bytes else limits.max_head_bytes
    cdef int result = 1
    if h.error:
        return -<int>h.error
    if h.stage < STAGE_FIELDS:
        result = parse_request_line(h, buf, end, limits.max_target_bytes)
    if result > 0 and h.stage == STAGE_FIELDS:
        result = parse_fields(h, buf, end, limits.max_fields)
        if result > 0:
            result = finish(h, buf)
    if h.stage == STAGE_DONE:
        return <int>h.head_bytes
    if result == 0 and end == limits.max_head_bytes:
        result = -HTTP_ERR_HEAD_TOO_LARGE
    if result < 0:
        h.error = <uint8_t>(-result)
    return result


class Http1Error(ValueError):
    def __init__(self, code):
        self.code = code
        self.status = http1_error_status(code)
        self.text = http1_error_text(code).decode("ascii")
        super().__init__(f"{self.status} {self.text}")


METHODS = (None, "GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH")


cdef bytes span_bytes(const char* buf, HttpSpan span):
    return buf[span.off : span.off + span.len] if span.off else None


cdef class HeadParser:
    cdef HttpHead head
    cdef HttpLimits limits

    def __init__(self, max_target_bytes=8192, max_head_bytes=32768, max_fields=100):
        self.limits.max_target_bytes = max_target_bytes
        self.limits.max_head_bytes = max_head_bytes
        self.limits.max_fields = max_fields
        http1_reset(&self.head)

    def parse(self, data):
        cdef Py_buffer view
        cdef int result
        cdef const char* buf
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            buf = <const char*>view.buf
            with nogil:
                result = http1_parse_head(&self.head, buf, <size_t>view.len, &self.limits)
            if result < 0:
                raise Http1Error(-result)
            if result == 0:
                return None
            return self.as_dict(buf)
        finally:
            PyBuffer_Release(&view)

    cdef dict as_dict(self, const char* buf):
        cdef HttpHead* h = &self.head
        return {
            "method": METHODS[h.method],
            "minor_version": h.minor_version,
            "keep_alive": h.keep_alive,
            "chunked": bool(h.chunked),
            "expect_continue": bool(h.expect_continue),
            "has_body": bool(h.has_body),
            "wants_h2c": bool(h.wants_h2c),
            "field_count": h.field_count,
            "head_bytes": h.head_bytes,
            "content_length": h.content_length,
            "inference_header_length": h.inference_header_length,
            "target": span_bytes(buf, h.target),
            "path": span_bytes(buf, h.path),
            "query": span_bytes(buf, h.query),
            "authority": span_bytes(buf, h.authority),
            "host": span_bytes(buf, h.host),
            "content_type": span_bytes(buf, h.content_type),
            "content_encoding": span_bytes(buf, h.content_encoding),
            "accept": span_bytes(buf, h.accept),
            "accept_encoding": span_bytes(buf, h.accept_encoding),
            "authorization": span_bytes(buf, h.authorization),
            "traceparent": span_bytes(buf, h.traceparent),
            "origin": span_bytes(buf, h.origin),
            "http2_settings": span_bytes(buf, h.http2_settings),
            "request_id": span_bytes(buf, h.request_id),
            "timeout": span_bytes(buf, h.timeout),
        }


def parse_head(data, max_target_bytes=8192, max_head_bytes=32768, max_fields=100):
    return HeadParser(max_target_bytes, max_head_bytes, max_fields).parse(data)


def error_table():
    return {code: (http1_error_status(code), http1_error_text(code).decode("ascii")) for code in range(1, HTTP_ERR_END)}
