"""Request bodies that do not stand on the wire as they are; for C users only, tested through a server."""

class Http1Body:
    """Decodes chunks and content codings."""
