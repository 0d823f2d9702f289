"""A client's offer to go on in HTTP/2: the Python face, for tests."""

def settings(field: bytes) -> bytes | None:
    """The payload of the SETTINGS frame that an HTTP2-Settings field stands for, or None: it is no base64url."""
