"""Where a connection keeps a partial request; for C users only, tested through a server."""

from server._fast.http1_answer import Http1Answer

class Http1Input(Http1Answer):
    """Base of Http1Connection."""
