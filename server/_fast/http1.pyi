"""Strict HTTP/1.1 request heads (RFC 9110, RFC 9112): the Python face for tests and tools; the server uses C's."""

from typing import Final, TypedDict, type_check_only

from typing_extensions import Buffer

class Http1Error(ValueError):
    """A message that breaks HTTP/1.1; str() is status and sentence. The connection must be closed after the answer."""

    #: HttpError of http1_error.pxd
    code: int
    #: response status
    status: int
    #: what was expected, for the client; holds nothing that JSON escapes
    text: str
    def __init__(self, code: int) -> None: ...

@type_check_only
class Head(TypedDict):
    """A complete head. Bytes are copies; None is absent, b"" is present and empty (or a path that means "/")."""

    method: str
    minor_version: int
    #: 0 close, 1 keep, 2 keep and say so (HTTP/1.0)
    keep_alive: int
    chunked: bool
    expect_continue: bool
    has_body: bool
    field_count: int
    #: where the body starts
    head_bytes: int
    #: -1 absent
    content_length: int
    #: -1 absent, -2 not a number in 0 .. 2^31-1 or given twice
    inference_header_length: int
    target: bytes
    path: bytes
    query: bytes | None
    authority: bytes | None
    host: bytes | None
    content_type: bytes | None
    content_encoding: bytes | None
    accept: bytes | None
    accept_encoding: bytes | None
    authorization: bytes | None
    traceparent: bytes | None
    request_id: bytes | None
    timeout: bytes | None

#: Methods by their number in HttpMethod; 0 is none.
METHODS: Final[tuple[str | None, ...]]

class HeadParser:
    """One head, over as many calls as it takes."""

    def __init__(self, max_target_bytes: int = 8192, max_head_bytes: int = 32768, max_fields: int = 100) -> None: ...
    def parse(self, data: Buffer) -> Head | None:
        """Parses all bytes that came so far (not only the new ones): the head, or None if more are needed.

        Raises Http1Error at the first byte that cannot stand where it stands, and again on every later call.
        """

def parse_head(
    data: Buffer, max_target_bytes: int = 8192, max_head_bytes: int = 32768, max_fields: int = 100
) -> Head | None:
    """HeadParser(...).parse(data)."""

def error_table() -> dict[int, tuple[int, str]]:
    """HttpError -> (status, text), for every error there is."""
