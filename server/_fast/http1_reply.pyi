"""Heads of HTTP/1.1 responses: the Python face, for tests and tools; the server uses the C one."""

def write_head(
    status: int,
    content_type: int,
    content_length: int,
    persistence: int,
    inference_header_length: int = -1,
    extra: bytes | None = None,
) -> bytes:
    """The head up to and with its empty line.

    content_type: HttpContentType of http1_reply.pxd, 0 for none. content_length and inference_header_length: bytes, -1
    for no such field. persistence: 0 'Connection: close', 1 nothing, 2 'Connection: keep-alive'. extra: whole lines,
    each with its CRLF. Raises MemoryError.
    """

def write_continue() -> bytes:
    """The interim response 100 (RFC 9110 section 15.2.1). Raises MemoryError."""

def write_error(error: int) -> bytes:
    """The whole answer to a HttpError: head and {"error":"..."}; the connection is to be closed. Raises MemoryError."""
