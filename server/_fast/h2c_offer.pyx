"""A client's offer to go on in HTTP/2 (RFC 7540 section 3.2): its settings, and its request as headers of a stream.

It knows the two encodings, not connections nor sessions. Once in a connection's life, so Python objects do. O(bytes).
"""

import binascii

from server._fast.http1 cimport HTTP_DELETE, HTTP_GET, HTTP_HEAD, HTTP_OPTIONS, HTTP_PATCH, HTTP_POST, HTTP_PUT
from server._fast.http1 cimport HttpHead, HttpSpan

cdef dict METHODS = {
    HTTP_GET: b"GET", HTTP_HEAD: b"HEAD", HTTP_POST: b"POST", HTTP_PUT: b"PUT", HTTP_DELETE: b"DELETE",
    HTTP_OPTIONS: b"OPTIONS", HTTP_PATCH: b"PATCH",
}
cdef bytes ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


cdef bytes h2c_settings(bytes field):
    if field.translate(None, ALPHABET) or len(field) % 4 == 1:
        return None
    return binascii.a2b_base64(field.replace(b"-", b"+").replace(b"_", b"/") + b"=" * (3 - (len(field) + 3) % 4))


cdef list h2c_headers(const HttpHead* head, const char* p):
    path = span(p, head.path) or b"/"
    if head.query.off:
        path += b"?" + span(p, head.query)
    headers = [(b":method", METHODS[head.method]), (b":path", path)]
    # Content-Type too would make a gRPC call of it, and those have bodies.
    for name, value in (
        (b"accept", span(p, head.accept)),
        (b"accept-encoding", span(p, head.accept_encoding)),
        (b"authorization", span(p, head.authorization)),
        (b"origin", span(p, head.origin)),
        (b"traceparent", span(p, head.traceparent)),
        (b"x-request-id", span(p, head.request_id)),
    ):
        if value:
            headers.append((name, value))
    return headers


cdef bytes span(const char* p, HttpSpan s):
    return p[s.off:s.off + s.len] if s.off else b""


def settings(bytes field):
    return h2c_settings(field)
