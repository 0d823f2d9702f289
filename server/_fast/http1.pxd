"""HTTP/1.1 request heads, strictly (RFC 9110, RFC 9112): bytes in, numbers and spans out.

Knows nothing of sockets, routes, models or bodies. The caller owns buffer and struct; nothing is allocated and nothing
is kept but offsets from the first byte of the head, so the buffer may move or grow between two calls. One thread at a
time per HttpHead; different heads are independent. O(bytes): a byte is looked at once, however the head is cut.

The parser reads left to right and stops at the first byte that cannot stand where it stands. The verdict is therefore a
function of the bytes alone and never of how they arrived.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t

from server._fast.http1_error cimport (
    HTTP_ERR_BODY_TOO_LARGE,
    HTTP_ERR_CHUNK_END,
    HTTP_ERR_CHUNK_EXTENSION,
    HTTP_ERR_CHUNK_OVERHEAD,
    HTTP_ERR_CHUNK_SIZE,
    HTTP_ERR_CODED_BODY,
    HTTP_ERR_CODING_NESTED,
    HTTP_ERR_CONTENT_ENCODING,
    HTTP_ERR_CONTENT_LENGTH,
    HTTP_ERR_END,
    HTTP_ERR_EXPECT,
    HTTP_ERR_FIELD_DUPLICATE,
    HTTP_ERR_FIELD_FOLDED,
    HTTP_ERR_FIELD_NAME,
    HTTP_ERR_FIELD_VALUE,
    HTTP_ERR_HEAD_TOO_LARGE,
    HTTP_ERR_HOST,
    HTTP_ERR_HOST_MISMATCH,
    HTTP_ERR_HOST_MISSING,
    HTTP_ERR_HTTP2_PREFACE,
    HTTP_ERR_INFERENCE_HEADER_LENGTH,
    HTTP_ERR_LENGTH_AND_CODING,
    HTTP_ERR_LENGTH_REQUIRED,
    HTTP_ERR_LINE_END,
    HTTP_ERR_MEDIA_TYPE,
    HTTP_ERR_METHOD,
    HTTP_ERR_OVERLOADED,
    HTTP_ERR_REQUEST_LINE,
    HTTP_ERR_TARGET,
    HTTP_ERR_TARGET_TOO_LONG,
    HTTP_ERR_TIMEOUT,
    HTTP_ERR_TOO_MANY_CHUNKS,
    HTTP_ERR_TOO_MANY_FIELDS,
    HTTP_ERR_TRAILER,
    HTTP_ERR_TRAILERS_TOO_LARGE,
    HTTP_ERR_TRANSFER_CODING_UNKNOWN,
    HTTP_ERR_TRANSFER_ENCODING,
    HTTP_ERR_UNDERSCORE_TWIN,
    HTTP_ERR_VERSION,
    HTTP_ERR_VERSION_UNSUPPORTED,
    HTTP_OK,
    HttpError,
    http1_error_status,
    http1_error_text,
)
from server._fast.http1_text cimport http1_equals


cdef enum HttpMethod:
    HTTP_METHOD_NONE = 0
    HTTP_GET = 1
    HTTP_HEAD = 2
    HTTP_POST = 3
    HTTP_PUT = 4
    HTTP_DELETE = 5
    HTTP_OPTIONS = 6
    HTTP_PATCH = 7


# What the response says about the connection; http1_write_head takes the same numbers.
cdef enum HttpPersistence:
    HTTP_CLOSE = 0
    HTTP_KEEP_ALIVE = 1
    # an HTTP/1.0 client that asked to keep the connection must be told that it is kept
    HTTP_KEEP_ALIVE_1_0 = 2


cdef struct HttpLimits:
    uint32_t max_target_bytes
    uint32_t max_head_bytes
    uint32_t max_fields


# Offset from the first byte of the head. off == 0: the field is absent; len == 0 with off > 0: present and empty.
cdef struct HttpSpan:
    uint32_t off
    uint32_t len


cdef struct HttpHead:
    # how far the parser is: opaque to the caller
    uint32_t pos
    uint32_t scan
    uint32_t colon
    uint32_t seen
    uint8_t stage
    # HttpError that was found (0 none); a head with an error stays that way until http1_reset
    uint8_t error

    # valid once http1_parse_head returned > 0
    uint8_t method
    uint8_t minor_version
    uint8_t keep_alive
    uint8_t chunked
    uint8_t expect_continue
    uint8_t has_body
    # the client offers to go on in HTTP/2 as RFC 7540 section 3.2 says; what it offers is in http2_settings
    uint8_t wants_h2c
    uint32_t field_count
    uint32_t head_bytes
    # -1 absent
    int64_t content_length
    # -1 absent, -2 not a number in 0 .. 2^31-1 or given twice
    int64_t inference_header_length
    HttpSpan target
    # of a target without a path ('http://host'): off > 0, len == 0, which means '/'
    HttpSpan path
    # without the '?'
    HttpSpan query
    # of an absolute-form target
    HttpSpan authority
    HttpSpan host
    HttpSpan content_type
    HttpSpan content_encoding
    # the first line of each, if given more than once: these are preferences, a lost one costs nothing but choice
    HttpSpan accept
    HttpSpan accept_encoding
    HttpSpan authorization
    # absent if given twice (W3C Trace Context section 3.3.1)
    HttpSpan traceparent
    # absent if given twice, both
    HttpSpan origin
    HttpSpan http2_settings
    # X-Request-Id, the first one
    HttpSpan request_id
    # X-Request-Timeout
    HttpSpan timeout


cdef inline void http1_default_limits(HttpLimits* limits) noexcept nogil:
    limits.max_target_bytes = 8192
    limits.max_head_bytes = 32768
    limits.max_fields = 100


# Makes the struct ready for the next head.
cdef void http1_reset(HttpHead* h) noexcept nogil

# > 0: the head is complete, h.head_bytes == result, the body starts there. 0: more bytes are needed; call again with
# the same head from its first byte on, longer. < 0: -(HttpError); answer http1_write_error and close.
# A leading empty line (RFC 9112 section 2.2) is skipped and counted in head_bytes.
cdef int http1_parse_head(HttpHead* h, const char* buf, size_t len, const HttpLimits* limits) noexcept nogil
