"""Cross-origin requests of browsers (Fetch Standard, section 3.2): who may, and what the answers say.

Off unless origins are configured; without them no answer has a field of it. Knows two header fields; inline leaves for
both HTTP versions, any thread, O(origins).
"""

from libc.string cimport memcmp


cdef inline int cors_find(list origins, const char* p, size_t n) except -1:
    """Which of the origins, counted from 1; 0: none, the answer says nothing and the browser keeps it from the page."""
    cdef int at = 0
    cdef bytes origin
    for origin in origins:
        at += 1
        if origin == b"*" or <size_t>len(origin) == n and memcmp(<const char*>origin, p, n) == 0:
            return at
    return 0


cdef inline tuple cors_fields(bytes origin):
    """The fields of every answer to a page of this origin."""
    fields = (
        ("Access-Control-Allow-Origin", origin.decode("latin-1")),
        ("Access-Control-Expose-Headers", "Inference-Header-Content-Length"),
    )
    return fields if origin == b"*" else fields + (("Vary", "Origin"),)


cdef inline tuple cors_preflight_fields():
    """What else the answer to OPTIONS says. '*' leaves out Authorization, by the standard."""
    return (
        ("Access-Control-Allow-Methods", "GET, HEAD, POST"),
        ("Access-Control-Allow-Headers", "*, Authorization"),
        ("Access-Control-Max-Age", "600"),
    )


cdef inline bytes field_lines(tuple fields):
    return "".join([f"{name}: {value}\r\n" for name, value in fields]).encode("latin-1")
