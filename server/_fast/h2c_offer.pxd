"""C face of a client's offer to go on in HTTP/2 (RFC 7540 section 3.2)."""

from server._fast.http1 cimport HttpHead

# The payload of the SETTINGS frame that an HTTP2-Settings field stands for, or None: it is no base64url.
cdef bytes h2c_settings(bytes field)
# The request as the headers of a stream. p: the head's first byte.
cdef list h2c_headers(const HttpHead* head, const char* p)
