"""What can be wrong with an HTTP/1.1 message, and what the client is told.

Knows neither bytes nor connections: one enum, one table. The functions of http1 and http1_chunk return -(HttpError);
every one of these ends the connection, because after it the place where the next request starts is not certain.
The last group is never returned by a parser: the connection finds these itself and takes the words from here.
Texts hold no character that JSON escapes. Static memory, any thread, O(1).
"""


cdef enum HttpError:
    HTTP_OK = 0
    # request line
    HTTP_ERR_REQUEST_LINE = 1
    HTTP_ERR_METHOD = 2
    HTTP_ERR_TARGET = 3
    HTTP_ERR_TARGET_TOO_LONG = 4
    HTTP_ERR_VERSION = 5
    HTTP_ERR_VERSION_UNSUPPORTED = 6
    HTTP_ERR_HTTP2_PREFACE = 7
    # lines and fields
    HTTP_ERR_LINE_END = 8
    HTTP_ERR_FIELD_NAME = 9
    HTTP_ERR_FIELD_FOLDED = 10
    HTTP_ERR_FIELD_VALUE = 11
    HTTP_ERR_FIELD_DUPLICATE = 12
    HTTP_ERR_HEAD_TOO_LARGE = 13
    HTTP_ERR_TOO_MANY_FIELDS = 14
    # host
    HTTP_ERR_HOST = 15
    HTTP_ERR_HOST_MISSING = 16
    HTTP_ERR_HOST_MISMATCH = 17
    # framing
    HTTP_ERR_CONTENT_LENGTH = 18
    HTTP_ERR_TRANSFER_ENCODING = 19
    HTTP_ERR_TRANSFER_CODING_UNKNOWN = 20
    HTTP_ERR_LENGTH_AND_CODING = 21
    HTTP_ERR_UNDERSCORE_TWIN = 22
    HTTP_ERR_EXPECT = 23
    # chunks
    HTTP_ERR_CHUNK_SIZE = 24
    HTTP_ERR_CHUNK_EXTENSION = 25
    HTTP_ERR_CHUNK_END = 26
    HTTP_ERR_CHUNK_OVERHEAD = 27
    HTTP_ERR_TOO_MANY_CHUNKS = 28
    HTTP_ERR_TRAILER = 29
    HTTP_ERR_TRAILERS_TOO_LARGE = 30
    HTTP_ERR_BODY_TOO_LARGE = 31
    # found by the connection
    HTTP_ERR_TIMEOUT = 32
    HTTP_ERR_LENGTH_REQUIRED = 33
    HTTP_ERR_CONTENT_ENCODING = 34
    HTTP_ERR_MEDIA_TYPE = 35
    HTTP_ERR_INFERENCE_HEADER_LENGTH = 36
    HTTP_ERR_OVERLOADED = 37
    HTTP_ERR_CODED_BODY = 38
    HTTP_ERR_CODING_NESTED = 39
    HTTP_ERR_END = 40


cdef inline int http1_error_status(int error) noexcept nogil:
    """The response status of a HttpError (sign ignored); 500 for a number that is none."""
    if error < 0:
        error = -error
    if error == HTTP_ERR_METHOD or error == HTTP_ERR_TRANSFER_CODING_UNKNOWN:
        return 501
    elif error == HTTP_ERR_TARGET_TOO_LONG:
        return 414
    elif error == HTTP_ERR_VERSION_UNSUPPORTED or error == HTTP_ERR_HTTP2_PREFACE:
        return 505
    elif error == HTTP_ERR_HEAD_TOO_LARGE or error == HTTP_ERR_TOO_MANY_FIELDS or error == HTTP_ERR_TRAILERS_TOO_LARGE:
        return 431
    elif error == HTTP_ERR_EXPECT:
        return 417
    elif error == HTTP_ERR_BODY_TOO_LARGE:
        return 413
    elif error == HTTP_ERR_TIMEOUT:
        return 408
    elif error == HTTP_ERR_LENGTH_REQUIRED:
        return 411
    elif error == HTTP_ERR_CONTENT_ENCODING or error == HTTP_ERR_MEDIA_TYPE:
        return 415
    elif error == HTTP_ERR_OVERLOADED:
        return 503
    elif error <= HTTP_OK or error >= HTTP_ERR_END:
        return 500
    return 400


cdef inline const char* http1_error_text(int error) noexcept nogil:
    """The sentence of a HttpError (sign ignored), NUL terminated, static."""
    if error < 0:
        error = -error
    if error == HTTP_ERR_REQUEST_LINE:
        return "malformed request line: expected 'METHOD target HTTP/1.1', one space between the parts, ended by CRLF"
    elif error == HTTP_ERR_METHOD:
        return "method not implemented: expected GET, HEAD, POST, PUT, DELETE, OPTIONS or PATCH in upper case"
    elif error == HTTP_ERR_TARGET:
        return (
            "malformed request target: expected a path that starts with '/' or an http URL, in visible ASCII "
            "without '#'; percent-encode anything else"
        )
    elif error == HTTP_ERR_TARGET_TOO_LONG:
        return "request target is longer than the limit of this server"
    elif error == HTTP_ERR_VERSION:
        return "malformed protocol version: expected HTTP/1.1 or HTTP/1.0"
    elif error == HTTP_ERR_VERSION_UNSUPPORTED:
        return "protocol version not supported: expected HTTP/1.1 or HTTP/1.0"
    elif error == HTTP_ERR_HTTP2_PREFACE:
        return "this port speaks HTTP/1.1, but the client opened with HTTP/2"
    elif error == HTTP_ERR_LINE_END:
        return "malformed line end: expected CRLF, got CR or LF alone"
    elif error == HTTP_ERR_FIELD_NAME:
        return "malformed header name: expected letters, digits and '-', followed at once by ':'"
    elif error == HTTP_ERR_FIELD_FOLDED:
        return "header line starts with a space or tab: folded headers are refused, send each header on one line"
    elif error == HTTP_ERR_FIELD_VALUE:
        return "header value holds a control character"
    elif error == HTTP_ERR_FIELD_DUPLICATE:
        return "a header that may be given once was given twice"
    elif error == HTTP_ERR_HEAD_TOO_LARGE:
        return "request head is larger than the limit of this server"
    elif error == HTTP_ERR_TOO_MANY_FIELDS:
        return "request has more headers than the limit of this server"
    elif error == HTTP_ERR_HOST:
        return "malformed Host header: expected one host name or address, optionally with ':' and a port"
    elif error == HTTP_ERR_HOST_MISSING:
        return "Host header is missing: HTTP/1.1 requires it"
    elif error == HTTP_ERR_HOST_MISMATCH:
        return "the host in the request target is not the one in the Host header"
    elif error == HTTP_ERR_CONTENT_LENGTH:
        return "malformed Content-Length: expected one decimal number below 2^63 without sign or leading zeros"
    elif error == HTTP_ERR_TRANSFER_ENCODING:
        return "malformed Transfer-Encoding: expected exactly 'chunked', given once, in HTTP/1.1"
    elif error == HTTP_ERR_TRANSFER_CODING_UNKNOWN:
        return "transfer coding not implemented: expected exactly 'chunked'"
    elif error == HTTP_ERR_LENGTH_AND_CODING:
        return "both Content-Length and Transfer-Encoding are present: expected one of them"
    elif error == HTTP_ERR_UNDERSCORE_TWIN:
        return "Content-Length or Transfer-Encoding is spelled with an underscore: expected '-'"
    elif error == HTTP_ERR_EXPECT:
        return "expectation not supported: expected '100-continue'"
    elif error == HTTP_ERR_CHUNK_SIZE:
        return "malformed chunk size: expected 1 to 16 hexadecimal digits, a value below 2^63, then CRLF"
    elif error == HTTP_ERR_CHUNK_EXTENSION:
        return "malformed chunk extension: expected ';name=value', at most 256 bytes a chunk and 16384 bytes in all"
    elif error == HTTP_ERR_CHUNK_END:
        return "chunk data is not followed by CRLF: the data is longer than the chunk size says"
    elif error == HTTP_ERR_CHUNK_OVERHEAD:
        return "chunks are too small: framing is more than 8 times the data, send larger chunks"
    elif error == HTTP_ERR_TOO_MANY_CHUNKS:
        return "body has more than 65536 chunks: send larger chunks"
    elif error == HTTP_ERR_TRAILER:
        return "malformed trailer: expected 'Name: value' lines ended by CRLF"
    elif error == HTTP_ERR_TRAILERS_TOO_LARGE:
        return "trailers are larger than the limit of this server"
    elif error == HTTP_ERR_BODY_TOO_LARGE:
        return "request body is larger than the limit of this server, see --max-body-bytes"
    elif error == HTTP_ERR_TIMEOUT:
        return "request was not complete in time"
    elif error == HTTP_ERR_LENGTH_REQUIRED:
        return "request has no body: expected Content-Length or Transfer-Encoding: chunked"
    elif error == HTTP_ERR_CONTENT_ENCODING:
        return "content coding not supported: expected gzip or deflate, or a body without Content-Encoding"
    elif error == HTTP_ERR_CODED_BODY:
        return "the compressed body cannot be read: it is damaged or cut off, or something follows it"
    elif error == HTTP_ERR_CODING_NESTED:
        return "body has several content codings: expected one"
    elif error == HTTP_ERR_MEDIA_TYPE:
        return "media type not supported: expected application/json or application/octet-stream"
    elif error == HTTP_ERR_INFERENCE_HEADER_LENGTH:
        return "malformed Inference-Header-Content-Length: expected one number from 0 to the length of the body"
    elif error == HTTP_ERR_OVERLOADED:
        return "server is overloaded: try again later"
    return "internal error"
