"""REST over HTTP/2; the base of Http2Connection, tested through a server."""

from server._fast.h2_session import H2Session

class Http2Rest(H2Session):
    """A connection's REST streams."""
