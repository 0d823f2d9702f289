"""Strict chunked bodies (RFC 9112 section 7.1): the Python face, for tests and tools; the server uses the C one."""

from collections.abc import Iterable

from typing_extensions import Buffer

class ChunkedBody:
    """One body, over as many pieces as it takes. Trailers are checked and dropped."""

    #: source bytes read so far; after an error, the place of the first wrong byte
    consumed_bytes: int
    #: the end of the body was read: the next request starts at consumed_bytes
    is_done: bool
    #: chunks with data, so far
    chunk_count: int
    def __init__(self, max_body_bytes: int = ...) -> None:
        """max_body_bytes: data allowed in all, 2^63-1 if not given; a chunk that announces more is an error (413)."""

    def feed(self, data: Buffer, capacity: int | None = None) -> bytes:
        """The data in the next piece; at most `capacity` bytes of it (then consumed_bytes tells where to go on).

        Raises Http1Error at the first wrong byte.
        """

    def feed_in_place(self, data: Buffer) -> int:
        """Decodes a writable piece onto its own beginning: how many bytes of it are data now. Raises Http1Error."""

def decode_chunked(pieces: Iterable[Buffer], max_body_bytes: int = ...) -> tuple[bytes, int] | None:
    """(data, source bytes used), or None if the body is not complete. Raises Http1Error."""
