"""Heads of HTTP/1.1 responses. What it knows, who owns memory, threads and cost: see http1_reply.pxd.

Every head is one reservation of FIXED_BYTES and the caller's extra lines, then plain copies of constants: nothing is
formatted but the numbers.
"""

from libc.stdint cimport uint64_t
from libc.string cimport memcpy, strlen

from server._fast.http1_error cimport http1_error_status, http1_error_text
from server._fast.outbuf cimport OutBuf, outbuf_free, outbuf_reserve, outbuf_write

# Status line, reason, types, two numbers and their names: the longest head without `extra` is below this.
cdef enum:
    FIXED_BYTES = 512


cdef const char* http1_reason(int status) noexcept nogil:
    if status == 200:
        return "OK"
    elif status == 201:
        return "Created"
    elif status == 202:
        return "Accepted"
    elif status == 204:
        return "No Content"
    elif status == 304:
        return "Not Modified"
    elif status == 400:
        return "Bad Request"
    elif status == 401:
        return "Unauthorized"
    elif status == 403:
        return "Forbidden"
    elif status == 404:
        return "Not Found"
    elif status == 405:
        return "Method Not Allowed"
    elif status == 406:
        return "Not Acceptable"
    elif status == 408:
        return "Request Timeout"
    elif status == 409:
        return "Conflict"
    elif status == 411:
        return "Length Required"
    elif status == 412:
        return "Precondition Failed"
    elif status == 413:
        return "Content Too Large"
    elif status == 414:
        return "URI Too Long"
    elif status == 415:
        return "Unsupported Media Type"
    elif status == 417:
        return "Expectation Failed"
    elif status == 422:
        return "Unprocessable Content"
    elif status == 429:
        return "Too Many Requests"
    elif status == 431:
        return "Request Header Fields Too Large"
    elif status == 499:
        return "Client Closed Request"
    elif status == 500:
        return "Internal Server Error"
    elif status == 501:
        return "Not Implemented"
    elif status == 503:
        return "Service Unavailable"
    elif status == 504:
        return "Gateway Timeout"
    elif status == 505:
        return "HTTP Version Not Supported"
    return "Unknown"


cdef inline char* put(char* at, const char* text, size_t n) noexcept nogil:
    memcpy(at, text, n)
    return at + n


cdef inline char* put_number(char* at, int64_t value) noexcept nogil:
    """Decimal digits of a number that is not negative."""
    cdef char digits[20]
    cdef int i = 20
    cdef uint64_t rest = <uint64_t>value
    while True:
        i -= 1
        digits[i] = <char>(c'0' + rest % 10)
        rest //= 10
        if rest == 0:
            break
    return put(at, digits + i, 20 - i)


cdef inline char* put_content_type(char* at, int content_type) noexcept nogil:
    if content_type == HTTP_CONTENT_JSON:
        return put(at, b"Content-Type: application/json\r\n", 32)
    elif content_type == HTTP_CONTENT_OCTET:
        return put(at, b"Content-Type: application/octet-stream\r\n", 40)
    elif content_type == HTTP_CONTENT_TEXT:
        return put(at, b"Content-Type: text/plain; charset=utf-8\r\n", 41)
    elif content_type == HTTP_CONTENT_PROMETHEUS:
        return put(at, b"Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n", 56)
    elif content_type == HTTP_CONTENT_OPENMETRICS:
        return put(at, b"Content-Type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n", 74)
    elif content_type == HTTP_CONTENT_HTML:
        return put(at, b"Content-Type: text/html; charset=utf-8\r\n", 40)
    return at


cdef inline char* put_status_line(char* at, int status) noexcept nogil:
    cdef const char* reason
    if status == 200:
        return put(at, b"HTTP/1.1 200 OK\r\n", 17)
    # three digits whatever the caller passes: a stray number here would break the client's framing
    if status < 100 or status > 999:
        status = 500
    at = put(at, b"HTTP/1.1 ", 9)
    at = put_number(at, status)
    at[0] = c' '
    reason = http1_reason(status)
    at = put(at + 1, reason, strlen(reason))
    return put(at, b"\r\n", 2)


cdef int http1_write_head(
    OutBuf* b,
    int status,
    int content_type,
    int64_t content_length,
    int persistence,
    int64_t inference_header_length,
    const char* extra,
    size_t extra_len,
) noexcept nogil:
    cdef char* at
    if extra == NULL:
        extra_len = 0
    if extra_len > <size_t>1 << 40 or outbuf_reserve(b, FIXED_BYTES + extra_len) < 0:
        return -1
    at = b.data + b.len
    if status == 200 and content_type == HTTP_CONTENT_JSON and content_length >= 0:
        at = put(at, b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: ", 65)
        at = put_number(at, content_length)
        at = put(at, b"\r\n", 2)
    else:
        at = put_status_line(at, status)
        at = put_content_type(at, content_type)
        if content_length >= 0:
            at = put(at, b"Content-Length: ", 16)
            at = put_number(at, content_length)
            at = put(at, b"\r\n", 2)
    if inference_header_length >= 0:
        at = put(at, b"Inference-Header-Content-Length: ", 33)
        at = put_number(at, inference_header_length)
        at = put(at, b"\r\n", 2)
    if persistence == 0:
        at = put(at, b"Connection: close\r\n", 19)
    elif persistence == 2:
        at = put(at, b"Connection: keep-alive\r\n", 24)
    if extra_len:
        at = put(at, extra, extra_len)
    at = put(at, b"\r\n", 2)
    b.len = at - b.data
    return 0


cdef int http1_write_continue(OutBuf* b) noexcept nogil:
    return outbuf_write(b, b"HTTP/1.1 100 Continue\r\n\r\n", 25)


cdef int http1_write_error(OutBuf* b, int error) noexcept nogil:
    cdef const char* text = http1_error_text(error)
    cdef size_t n = strlen(text)
    if outbuf_reserve(b, FIXED_BYTES + n + 12) < 0:
        return -1
    # both writes below fit what was just reserved
    http1_write_head(b, http1_error_status(error), HTTP_CONTENT_JSON, <int64_t>n + 12, 0, -1, NULL, 0)
    outbuf_write(b, b'{"error":"', 10)
    outbuf_write(b, text, n)
    return outbuf_write(b, b'"}', 2)


cdef bytes taken(OutBuf* b, int result):
    try:
        if result < 0:
            raise MemoryError("response head")
        return b.data[: b.len]
    finally:
        outbuf_free(b)


def write_head(
    int status,
    int content_type,
    int64_t content_length,
    int persistence,
    int64_t inference_header_length=-1,
    bytes extra=None,
):
    cdef OutBuf b = OutBuf(NULL, 0, 0)
    cdef const char* lines = NULL
    cdef size_t lines_len = 0
    if extra is not None:
        lines = extra
        lines_len = len(extra)
    cdef int result = http1_write_head(
        &b, status, content_type, content_length, persistence, inference_header_length, lines, lines_len
    )
    return taken(&b, result)


def write_continue():
    cdef OutBuf b = OutBuf(NULL, 0, 0)
    return taken(&b, http1_write_continue(&b))


def write_error(int error):
    cdef OutBuf b = OutBuf(NULL, 0, 0)
    return taken(&b, http1_write_error(&b, error))
