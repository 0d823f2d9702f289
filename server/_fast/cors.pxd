"""Cross-origin requests of browsers (Fetch Standard, section 3.2): who may, and what the answers say.

Off unless origins are configured; without them no answer has a field of it. Knows two header fields; inline leaves for
both HTTP versions, any thread, O(origins).
"""

from libc.string cimport memcmp


cdef inline bytes cors_lines(bytes origin):
    """The header lines of every answer to a page of this origin."""
    cdef bytes lines = (
        b"Access-Control-Allow-Origin: " + origin + b"\r\n"
        b"Access-Control-Expose-Headers: Inference-Header-Content-Length\r\n"
    )
    return lines if origin == b"*" else lines + b"Vary: Origin\r\n"


cdef inline const char* cors_preflight_lines() noexcept nogil:
    """What else the answer to OPTIONS says. '*' leaves out Authorization, by the standard."""
    return (
        b"Access-Control-Allow-Methods: GET, HEAD, POST\r\n"
        b"Access-Control-Allow-Headers: *, Authorization\r\n"
        b"Access-Control-Max-Age: 600\r\n"
    )


cdef inline int cors_find(list origins, const char* p, size_t n) except -1:
    """Which of the origins, counted from 1; 0: none, the answer says nothing and the browser refuses it."""
    cdef int at = 0
    cdef bytes origin
    for origin in origins:
        at += 1
        if origin == b"*" or <size_t>len(origin) == n and memcmp(<const char*>origin, p, n) == 0:
            return at
    return 0
