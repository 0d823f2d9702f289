"""Heads of HTTP/1.1 responses: numbers in, bytes out.

Knows statuses and the few fields every reply has; knows nothing of bodies, routes or connections. Appends to the
caller's OutBuf, which owns the memory; one thread at a time per OutBuf. O(bytes written), one reservation per head.
All functions return 0, or -1 when memory is out (the buffer is then as it was).
"""

from libc.stdint cimport int64_t

from server._fast.outbuf cimport OutBuf


cdef enum HttpContentType:
    HTTP_CONTENT_NONE = 0
    HTTP_CONTENT_JSON = 1
    HTTP_CONTENT_OCTET = 2
    HTTP_CONTENT_TEXT = 3
    HTTP_CONTENT_PROMETHEUS = 4
    HTTP_CONTENT_OPENMETRICS = 5
    HTTP_CONTENT_HTML = 6


# The reason phrase of a status, NUL terminated, static; "Unknown" for a status this server does not use.
cdef const char* http1_reason(int status) noexcept nogil

# content_length -1: no such field (204, 304). persistence: HttpPersistence of http1.pxd, as in HttpHead.keep_alive
# (0 writes 'Connection: close', 1 nothing, 2 'Connection: keep-alive'). inference_header_length -1: no such field.
# extra: whole lines 'Name: value\r\n', or NULL.
cdef int http1_write_head(
    OutBuf* b,
    int status,
    int content_type,
    int64_t content_length,
    int persistence,
    int64_t inference_header_length,
    const char* extra,
    size_t extra_len,
) noexcept nogil

# The interim response that asks a client with 'Expect: 100-continue' for its body.
cdef int http1_write_continue(OutBuf* b) noexcept nogil

# The whole answer to a HttpError (sign ignored): head with 'Connection: close' and {"error":"<text>"}.
cdef int http1_write_error(OutBuf* b, int error) noexcept nogil
