"""Content codings: the Python face, for tests and tools; the server uses the C one."""

from collections.abc import Sequence

def coding_named(content_encoding: bytes) -> str:
    """What a Content-Encoding field names: "identity", "gzip", "deflate", "unknown" or "nested"."""

def coding_preferred(accept_encoding: bytes) -> str:
    """What an Accept-Encoding field prefers: "identity", "gzip" or "deflate"."""

def inflate(pieces: Sequence[bytes], coding: str, limit: int, slice_ns: int = 0) -> tuple[bytes, int, int]:
    """The bytes of a stream that comes in pieces, the memory they took, and the pauses that slices of `slice_ns` made.

    Raises ValueError: "damaged", "truncated", "too large".
    """

def deflate(data: bytes, coding: str, slice_ns: int = 0) -> tuple[bytes, int]:
    """The stream, and the pauses that slices of `slice_ns` made."""
